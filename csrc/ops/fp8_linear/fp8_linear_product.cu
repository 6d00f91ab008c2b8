// The product of e4m3 rows on tensor cores; fp8_linear.h says what each tensor is. Tiles of 128 x 128 x 64, in bytes
// those of common/gemm/gemm_mma.cu, copies three stages deep. 16 warps of 32 x 32: one block fills a multiprocessor
// where two do not fit (sm_89, sm_120), and there are registers for sm_90 and sm_100, which unpack e4m3 to float16 and
// multiply that.

#include "common/choices/choices.h"
#include "common/dtypes.cuh"
#include "common/reduce.cuh"
#include "ops/fp8_linear/fp8_linear.h"

namespace sentcore {
namespace {

constexpr int kTile = 128;  // rows and columns
constexpr int kDepth = 64;
constexpr int kStages = 3;
constexpr int kThreads = 512;
constexpr int kWarpRows = 32, kWarpColumns = 32;
constexpr int kPack = 16;               // elements, of a byte each, in 16 bytes
constexpr int kPitch = kDepth + kPack;  // so that the 8 rows of a matrix that is loaded lie in different banks
constexpr int kTileBytes = kTile * kPitch;
constexpr int kSumsPitch = kTile + 4;
constexpr std::size_t kStageBytes = 2 * kStages * kTileBytes;
constexpr std::size_t kSumsBytes = kTile * kSumsPitch * 4;  // take the stages' place when all steps are done
static_assert(kTile * kDepth == kThreads * kPack, "a thread copies one pack of a tile");
constexpr std::size_t kSharedBytes = kStageBytes > kSumsBytes ? kStageBytes : kSumsBytes;

// Column of R that tile column c stands for, -1 for none. A gated tile holds columns of the first half, then those they
// are multiplied by.
template <bool kGated>
__device__ __forceinline__ int column_of(int column0, int c, int columns) {
  if (!kGated) return column0 + c < columns ? column0 + c : -1;
  const int half = columns / 2, place = column0 + c % (kTile / 2);
  if (place >= half) return -1;
  return c < kTile / 2 ? place : half + place;
}

// W: columns of out that a thread stores at a time, 16 bytes of T or 1. Grid: tiles, columns fastest.
template <typename T, bool kGated, int W>
__global__ void __launch_bounds__(kThreads, 1) multiply(const Fp8Linear args, int column_tiles) {
  SENTCORE_DYNAMIC_SHARED(E4m3, shared);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize, warp = thread / kWarpSize;
  const int warp_row = warp / (kTile / kWarpColumns), warp_column = warp % (kTile / kWarpColumns);
  const int row0 = static_cast<int>(blockIdx.x) / column_tiles * kTile;
  const int column0 = static_cast<int>(blockIdx.x) % column_tiles * (kGated ? kTile / 2 : kTile);
  const int rows = static_cast<int>(args.rows), columns = static_cast<int>(args.columns);
  const int pitch = static_cast<int>(args.pitch), steps = (pitch + kDepth - 1) / kDepth;

  // A thread copies one pack of each operand for a step: row copy_row of the tile, from element copy_depth on.
  const int copy_row = thread / (kDepth / kPack), copy_depth = thread % (kDepth / kPack) * kPack;
  const int copy_column = column_of<kGated>(column0, copy_row, columns);
  const bool no_row = row0 + copy_row >= rows, no_column = copy_column < 0;
  const E4m3* const x = args.x + (no_row ? 0 : (row0 + copy_row) * args.pitch);
  const E4m3* const weight = args.weight + (no_column ? 0 : copy_column * args.pitch);
  // Starts the copies of one step's tiles [128, 64] of x and of the weight; what lies outside is zero.
  const auto start = [&](int step) {
    if (step < steps) {
      E4m3* const target = shared + step % kStages * 2 * kTileBytes + copy_row * kPitch + copy_depth;
      const int k = step * kDepth + copy_depth;
      const bool outside = k >= pitch;
      ptx::copy_async_16(target, outside ? x : x + k, no_row || outside);
      ptx::copy_async_16(target + kTileBytes, outside ? weight : weight + k, no_column || outside);
    }
    ptx::copy_async_commit();  // an empty group where nothing is left: the count of the wait stays right
  };

  float sums[2][4][4] = {};
#pragma unroll
  for (int step = 0; step < kStages - 1; ++step) start(step);
  for (int step = 0; step < steps; ++step) {
    ptx::copy_async_wait<kStages - 2>();
    __syncthreads();  // this step's tiles have landed, and all have read the stage that is filled next
    start(step + kStages - 1);
    const E4m3* tile_x = shared + step % kStages * 2 * kTileBytes;
    const E4m3* tile_weight = tile_x + kTileBytes;
#pragma unroll 1  // both at a time would not fit into 128 registers on sm_90
    for (int k = 0; k < kDepth; k += 32) {
      std::uint32_t b[4][2];
#pragma unroll
      for (int n = 0; n < 2; ++n) {  // 16 columns at a time: two 32 x 8 pieces
        const int column = warp_column * kWarpColumns + n * 16 + lane / 16 * 8 + lane % 8;
        std::uint32_t loaded[4];
        ptx::load_matrix_x4(loaded, tile_weight + column * kPitch + k + lane / 8 % 2 * kPack);
#pragma unroll
        for (int i = 0; i < 4; ++i) b[2 * n + i / 2][i % 2] = loaded[i];
      }
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const int row = warp_row * kWarpRows + m * 16 + lane % 16;
        std::uint32_t a[4];
        ptx::load_matrix_x4(a, tile_x + row * kPitch + k + lane / 16 * kPack);
#pragma unroll
        for (int n = 0; n < 4; ++n) ptx::multiply_accumulate_16x8x32_e4m3(sums[m][n], a, b[n]);
      }
    }
  }
  ptx::copy_async_wait<0>();

  __syncthreads();  // all have read the last stage
  float* staged = reinterpret_cast<float*>(shared);
  float row_scale[2][2];
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = row0 + warp_row * kWarpRows + m * 16 + lane / 4 + i * 8;
      row_scale[m][i] = row < rows ? args.x_scale[row] : 0.0f;
    }
  }
#pragma unroll
  for (int n = 0; n < 4; ++n) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int c = warp_column * kWarpColumns + n * 8 + lane % 4 * 2 + j;
      const int column = column_of<kGated>(column0, c, columns);
      const float scale = column < 0 ? 0.0f : args.weight_scale[column];
      const float bias = column < 0 || args.bias == nullptr ? 0.0f : args.bias[column];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        float* target = staged + (warp_row * kWarpRows + m * 16 + lane / 4) * kSumsPitch + c;
        target[0] = sums[m][n][j] * row_scale[m][0] * scale + bias;
        target[8 * kSumsPitch] = sums[m][n][2 + j] * row_scale[m][1] * scale + bias;
      }
    }
  }
  __syncthreads();  // the tile's sums are written

  constexpr int kWidth = kGated ? kTile / 2 : kTile;
  const int width_of_out = kGated ? columns / 2 : columns;
  for (int i = thread; i < kTile * kWidth / W; i += kThreads) {
    const int r = i * W / kWidth, c = i * W % kWidth;
    if (row0 + r >= rows || column0 + c >= width_of_out) continue;
    const float* row = staged + r * kSumsPitch;
    float values[W];
#pragma unroll
    for (int j = 0; j < W; ++j) values[j] = activate(args.activation, row[c + j]);
    if (kGated) {
#pragma unroll
      for (int j = 0; j < W; ++j) values[j] *= row[kWidth + c + j];
    }
    const std::int64_t place = static_cast<std::int64_t>(row0 + r) * width_of_out + column0 + c;
    store_from_float<Access::reused>(static_cast<T*>(args.out) + place, values);
  }
}

template <typename T, bool kGated>
cudaError_t start(const Fp8Linear& args, cudaStream_t stream) {
  const std::int64_t columns = kGated ? args.columns / 2 : args.columns;
  const std::int64_t row_tiles = ceil_div<std::int64_t>(args.rows, kTile);
  const std::int64_t column_tiles = ceil_div<std::int64_t>(columns, kGated ? kTile / 2 : kTile);
  const LaunchShape shape{dim3(static_cast<unsigned>(row_tiles * column_tiles)), dim3(kThreads), kSharedBytes};
  const int tiles = static_cast<int>(column_tiles);
  constexpr int W = kPackSize<T>;
  if (columns % W == 0) return launch(multiply<T, kGated, W>, shape, stream, args, tiles);
  return launch(multiply<T, kGated, 1>, shape, stream, args, tiles);
}

template <typename T>
cudaError_t by_activation(const Fp8Linear& args, cudaStream_t stream) {
  return is_gated(args.activation) ? start<T, true>(args, stream) : start<T, false>(args, stream);
}

// Whether there is a kernel of sm_90a for it.
[[maybe_unused]] bool fits_sm90a(const Fp8Linear& args) {
  const std::int64_t columns = is_gated(args.activation) ? args.columns / 2 : args.columns;
  const bool halves = !is_gated(args.activation) || columns % 64 == 0;  // a box does not lie across both
  return args.dtype != Dtype::float32 && args.activation != Activation::relu && columns % 8 == 0 && halves;
}

}  // namespace

cudaError_t fp8_linear_cuda(const Fp8Linear& args, cudaStream_t stream) {
#ifdef SENTCORE_WITH_SM90A
  if (fits_sm90a(args) && takes_sm90a(Choice::fp8_linear, args.dtype, args.columns, args.pitch)) {
    return fp8_linear_sm90a(args, stream);
  }
#endif
  switch (args.dtype) {
    case Dtype::float32:
      return by_activation<float>(args, stream);
    case Dtype::bfloat16:
      return by_activation<__nv_bfloat16>(args, stream);
    case Dtype::float16:
      return by_activation<__half>(args, stream);
    case Dtype::float64:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace sentcore
