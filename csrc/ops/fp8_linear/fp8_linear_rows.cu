// Rows to e4m3 with a scale each; fp8_linear.h says what each tensor is. A warp a row: the row stays in registers
// between its maximum and its rounding, or is read again where it is longer than they are.

#include "common/dispatch.cuh"
#include "common/dtypes.cuh"
#include "common/reduce.cuh"
#include "ops/fp8_linear/fp8_linear.h"

namespace sentcore {
namespace {

constexpr int kRowsPerBlock = 4;
constexpr int kPack = 8;  // columns that a lane takes at a time: 16 or 32 bytes read, 8 written

template <int N>
__device__ __forceinline__ void store_e4m3(E4m3* p, const float (&values)[N]) {
  if constexpr (N == 1) {
    p->bits = static_cast<std::uint8_t>(ptx::pack_pair_e4m3(values[0], 0.0f));
  } else {
    uint2 words;
    words.x = ptx::pack_pair_e4m3(values[0], values[1]) | ptx::pack_pair_e4m3(values[2], values[3]) << 16;
    words.y = ptx::pack_pair_e4m3(values[4], values[5]) | ptx::pack_pair_e4m3(values[6], values[7]) << 16;
    *reinterpret_cast<uint2*>(p) = words;
  }
}

// The bits of non-negative floats are in the order of their values, NaN above infinity: so a maximum keeps a NaN.
template <int N, typename T>
__device__ __forceinline__ void take_largest(const Elements<T, N>& loaded, std::uint32_t& largest) {
  float values[N];
  convert(loaded, values);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const std::uint32_t bits = bits_as<std::uint32_t>(values[i]) & 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
}

__device__ __forceinline__ std::uint32_t warp_largest(std::uint32_t value) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    const std::uint32_t other = __shfl_xor_sync(kFullMask, value, distance);
    value = other > value ? other : value;
  }
  return value;
}

// kPacks: packs of N columns that a lane keeps, P <= kPacks * 32 * N; 0 where the row is read twice. N is kPack, for
// aligned rows of a multiple of it, or 1.
template <typename T, int N, int kPacks>
__global__ void __launch_bounds__(kRowsPerBlock* kWarpSize) round_rows(const Fp8Rows args) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kRowsPerBlock + threadIdx.x / kWarpSize;
  if (row >= args.rows) return;  // a whole warp leaves, and no barrier of the block follows
  const int depth = static_cast<int>(args.depth), pitch = static_cast<int>(args.pitch);
  const T* x = static_cast<const T*>(args.x) + row * args.depth;
  E4m3* out = args.values + row * args.pitch;

  std::uint32_t largest = 0;
  Elements<T, N> kept[kPacks > 0 ? kPacks : 1];
  if constexpr (kPacks > 0) {
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int column = (p * kWarpSize + lane) * N;
      if (column < depth) kept[p] = load<Access::streamed, N>(x + column);
    }
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      if ((p * kWarpSize + lane) * N < depth) take_largest(kept[p], largest);
    }
  } else {
    for (int column = lane * N; column < depth; column += kWarpSize * N) {
      take_largest(load<Access::reused, N>(x + column), largest);
    }
  }
  largest = warp_largest(largest);
  const bool finite = largest < 0x7f800000u;
  float maximum = finite ? bits_as<float>(largest) : 1.0f;
  maximum = maximum > kLeastFp8Maximum ? maximum : kLeastFp8Maximum;
  const float inverse = kLargestE4m3 / maximum;
  if (lane == 0) args.scale[row] = finite ? maximum / kLargestE4m3 : bits_as<float>(0x7fc00000u);

  const auto store = [&](int column, const Elements<T, N>& loaded) {
    float values[N] = {};
    if (finite && column < depth) {
      convert(loaded, values);
#pragma unroll
      for (int i = 0; i < N; ++i) values[i] *= inverse;
    }
    store_e4m3(out + column, values);
  };
  if constexpr (kPacks > 0) {
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int column = (p * kWarpSize + lane) * N;
      if (column < pitch) store(column, kept[p]);
    }
  } else {
    for (int column = lane * N; column < pitch; column += kWarpSize * N) {
      Elements<T, N> loaded{};
      if (column < depth) loaded = load<Access::reused, N>(x + column);
      store(column, loaded);
    }
  }
}

template <typename T>
cudaError_t start(const Fp8Rows& args, cudaStream_t stream) {
  const LaunchShape shape{dim3(static_cast<unsigned>(ceil_div<std::int64_t>(args.rows, kRowsPerBlock))),
                          dim3(kRowsPerBlock * kWarpSize)};
  constexpr std::int64_t kRound = kPack * kWarpSize;
  if (args.depth % kPack != 0 || !packs_fit({args.x})) return launch(round_rows<T, 1, 0>, shape, stream, args);
  if (args.pitch <= 2 * kRound) return launch(round_rows<T, kPack, 2>, shape, stream, args);
  if (args.pitch <= 4 * kRound) return launch(round_rows<T, kPack, 4>, shape, stream, args);
  if (args.pitch <= 8 * kRound) return launch(round_rows<T, kPack, 8>, shape, stream, args);
  if constexpr (sizeof(T) == 2) {
    if (args.pitch <= 16 * kRound) return launch(round_rows<T, kPack, 16>, shape, stream, args);
  }
  return launch(round_rows<T, kPack, 0>, shape, stream, args);
}

}  // namespace

cudaError_t fp8_rows_cuda(const Fp8Rows& args, cudaStream_t stream) {
  switch (args.dtype) {
    case Dtype::float32:
      return start<float>(args, stream);
    case Dtype::bfloat16:
      return start<__nv_bfloat16>(args, stream);
    case Dtype::float16:
      return start<__half>(args, stream);
    case Dtype::float64:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace sentcore
