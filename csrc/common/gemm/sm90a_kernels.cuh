// Which instance of multiply_sm90a a product takes; included by a file for each dtype.
#pragma once

#include "common/gemm/sm90a_multiply.cuh"

namespace sentcore::gemm {

template <typename T, bool kA, bool kB, End kEnd>
cudaError_t by_columns(const Gemm& args, cudaStream_t stream) {
  // From N alone, though a sum's bits would be the same with either.
  if (args.columns % 192 == 0) return start_sm90a<T, T, 192, kA, kB, kEnd>(args, stream);
  return start_sm90a<T, T, 128, kA, kB, kEnd>(args, stream);
}

template <typename T>
cudaError_t run_sm90a(const Gemm& args, cudaStream_t stream) {
  if (args.a_by_column) return start_sm90a<T, T, 128, false, false, End::plain>(args, stream);
  if (!args.b_by_column) return by_columns<T, true, false, End::plain>(args, stream);
  switch (args.epilogue.activation) {
    case Activation::none:
      if (args.epilogue.cos != nullptr) return start_sm90a<T, T, 128, true, true, End::rotated>(args, stream);
      return by_columns<T, true, true, End::plain>(args, stream);
    case Activation::gelu:
      return by_columns<T, true, true, End::gelu>(args, stream);
    case Activation::gelu_tanh:
      return start_sm90a<T, T, 128, true, true, End::gelu_tanh>(args, stream);
    case Activation::geglu:
      return start_sm90a<T, T, 128, true, true, End::geglu>(args, stream);
    case Activation::swiglu:
      return start_sm90a<T, T, 128, true, true, End::swiglu>(args, stream);
    case Activation::relu:
      break;  // see sm90a_takes
  }
  return cudaErrorInvalidValue;
}

}  // namespace sentcore::gemm
