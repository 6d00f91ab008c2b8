// The rotation of queries and keys as a pass of its own; qkv_projection.h says what each tensor is.

#include "common/dtypes.cuh"
#include "ops/qkv_projection/qkv_projection.h"

namespace sentcore {
namespace {

constexpr int kThreads = 256;

// A thread takes one pair of columns: of 3 · N · D/2 a token.
template <typename T, typename Angle>
__global__ void __launch_bounds__(kThreads) rotate(const Rotation args) {
  const std::int64_t half = args.size / 2, pairs = 3 * args.heads * half;
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= args.tokens * pairs) return;
  const std::int64_t token = i / pairs, pair = i % pairs, place = pair % half;
  const std::int64_t at = token * 2 * pairs + pair / half * args.size + place;
  const T* in = static_cast<const T*>(args.in) + at;
  T* out = static_cast<T*>(args.out) + at;
  const float first = to_float(in[0]), second = to_float(in[half]);
  if (pair >= 2 * args.heads * half) {  // values
    out[0] = in[0];
    out[half] = from_float<T>(second);
    return;
  }
  const float cosine = to_float(static_cast<const Angle*>(args.cos)[token * half + place]);
  float sine = to_float(static_cast<const Angle*>(args.sin)[token * half + place]);
  if (args.inverse) sine = -sine;
  out[0] = from_float<T>(first * cosine - second * sine);
  out[half] = from_float<T>(second * cosine + first * sine);
}

template <typename T>
cudaError_t start(const Rotation& args, cudaStream_t stream) {
  const std::int64_t count = args.tokens * 3 * args.heads * args.size / 2;
  const LaunchShape shape{dim3(static_cast<unsigned>(ceil_div<std::int64_t>(count, kThreads))), dim3(kThreads)};
  if (args.angles_are_float32) return launch(rotate<T, float>, shape, stream, args);
  return launch(rotate<T, T>, shape, stream, args);
}

}  // namespace

cudaError_t rotate_cuda(const Rotation& args, cudaStream_t stream) {
  switch (args.dtype) {
    case Dtype::float32:
      return start<float>(args, stream);
    case Dtype::bfloat16:
      return start<__nv_bfloat16>(args, stream);
    case Dtype::float16:
      return start<__half>(args, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace sentcore
