// The product of fp8_linear on sm_90a.

#include "common/gemm/sm90a_multiply.cuh"
#include "ops/fp8_linear/fp8_linear.h"

namespace sentcore {
namespace {

using gemm::End;

template <typename T, End kEnd>
cudaError_t by_columns(const Gemm& gemm, cudaStream_t stream) {
  if (gemm.columns % 192 == 0) return gemm::start_sm90a<T, E4m3, 192, true, true, kEnd>(gemm, stream);
  return gemm::start_sm90a<T, E4m3, 128, true, true, kEnd>(gemm, stream);
}

template <typename T>
cudaError_t run(const Gemm& gemm, cudaStream_t stream) {
  switch (gemm.epilogue.activation) {
    case Activation::none:
      return by_columns<T, End::plain>(gemm, stream);
    case Activation::gelu:
      return by_columns<T, End::gelu>(gemm, stream);
    case Activation::gelu_tanh:
      return gemm::start_sm90a<T, E4m3, 128, true, true, End::gelu_tanh>(gemm, stream);
    case Activation::geglu:
      return gemm::start_sm90a<T, E4m3, 128, true, true, End::geglu>(gemm, stream);
    case Activation::swiglu:
      return gemm::start_sm90a<T, E4m3, 128, true, true, End::swiglu>(gemm, stream);
    case Activation::relu:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t fp8_linear_sm90a(const Fp8Linear& args, cudaStream_t stream) {
  const std::int64_t pairs = args.pitch / 2;
  Gemm gemm{};
  gemm.dtype = args.dtype;
  gemm.rows = args.rows;
  gemm.columns = args.columns;
  gemm.depth = pairs;
  gemm.a = {{args.x, nullptr, nullptr}, args.rows, pairs};
  gemm.b = {{args.weight, nullptr, nullptr}, args.columns, pairs};
  gemm.b_by_column = true;
  gemm.epilogue.bias[0] = args.bias;
  gemm.epilogue.activation = args.activation;
  gemm.epilogue.row_scale = args.x_scale;
  gemm.epilogue.column_scale = args.weight_scale;
  gemm.out = args.out;
  return args.dtype == Dtype::bfloat16 ? run<__nv_bfloat16>(gemm, stream) : run<__half>(gemm, stream);
}

}  // namespace sentcore
