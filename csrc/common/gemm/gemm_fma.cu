// The product by multiply-adds, for float32 in full precision and for what the tensor cores' kernel does not take:
// tiles of 64 x 64 x 16, a thread has 4 x 4 sums.

#include "common/dtypes.cuh"
#include "common/gemm/epilogue.cuh"
#include "common/gemm/kernels.h"
#include "common/reduce.cuh"

namespace sentcore {
namespace {

using gemm::TilePlace;

constexpr int kTile = 64;
constexpr int kDepth = 16;
constexpr int kThreads = 256;
constexpr int kPitch = kTile + 4;
constexpr int kSide = 4;  // sums of a thread: kSide x kSide

template <typename T>
__device__ __forceinline__ float value_at(const StackedRows& m, std::int64_t row, std::int64_t column) {
  const int part = (row >= m.rows_of_part) + (row >= 2 * m.rows_of_part);
  return to_float(static_cast<const T*>(m.part[part])[(row - part * m.rows_of_part) * m.width + column]);
}

// Column of the product that tile column c stands for, -1 for none.
__device__ __forceinline__ std::int64_t column_of(const Gemm& args, const TilePlace& place, int c, bool gated) {
  if (!gated) return place.column0 + c < args.columns ? place.column0 + c : -1;
  const std::int64_t half = args.columns / 2, column = place.column0 + c % (kTile / 2);
  if (column >= half) return -1;
  return c < kTile / 2 ? column : half + column;
}

template <typename T, int W>
__global__ void __launch_bounds__(kThreads) multiply(const Gemm args, int column_tiles, std::int64_t slice_depth) {
  SENTCORE_SHARED(float, shared, [kTile * kPitch]);  // two tiles of operands, later the sums
  static_assert(2 * kDepth * kPitch <= kTile * kPitch, "the operands fit where the sums will be");
  float* const tile_a = shared;                    // [kDepth, kPitch]
  float* const tile_b = shared + kDepth * kPitch;  // [kDepth, kPitch]
  const int thread = static_cast<int>(threadIdx.x);
  const bool gated = is_gated(args.epilogue.activation);
  const int slice = static_cast<int>(blockIdx.y);
  const std::int64_t tile_of_row = static_cast<std::int64_t>(blockIdx.x) / column_tiles;
  const std::int64_t tile_of_column = static_cast<std::int64_t>(blockIdx.x) % column_tiles;
  const TilePlace place{tile_of_row * kTile, tile_of_column * (gated ? kTile / 2 : kTile), slice};
  const std::int64_t begin = slice * slice_depth;
  const std::int64_t end = begin + slice_depth < args.depth ? begin + slice_depth : args.depth;

  const int r0 = thread / (kTile / kSide) * kSide, c0 = thread % (kTile / kSide) * kSide;
  float sums[kSide][kSide] = {};
  for (std::int64_t k0 = begin; k0 < end; k0 += kDepth) {
#pragma unroll
    for (int i = 0; i < kTile * kDepth / kThreads; ++i) {
      // Neighbouring threads read neighbouring elements of the operand, whichever way it lies.
      const int e = thread + i * kThreads;
      const int outer_a = args.a_by_column ? e % kTile : e / kDepth,
                depth_a = args.a_by_column ? e / kTile : e % kDepth;
      const int outer_b = args.b_by_column ? e / kDepth : e % kTile,
                depth_b = args.b_by_column ? e % kDepth : e / kTile;
      const std::int64_t row = place.row0 + outer_a, column = column_of(args, place, outer_b, gated);
      const std::int64_t ka = k0 + depth_a, kb = k0 + depth_b;
      float a = 0.0f, b = 0.0f;
      if (row < args.rows && ka < end) {
        a = args.a_by_column ? value_at<T>(args.a, ka, row) : value_at<T>(args.a, row, ka);
      }
      if (column >= 0 && kb < end) {
        b = args.b_by_column ? value_at<T>(args.b, column, kb) : value_at<T>(args.b, kb, column);
      }
      tile_a[depth_a * kPitch + outer_a] = a;
      tile_b[depth_b * kPitch + outer_b] = b;
    }
    __syncthreads();  // the tiles are written
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      float a[kSide], b[kSide];
#pragma unroll
      for (int i = 0; i < kSide; ++i) a[i] = tile_a[k * kPitch + r0 + i];
#pragma unroll
      for (int i = 0; i < kSide; ++i) b[i] = tile_b[k * kPitch + c0 + i];
#pragma unroll
      for (int i = 0; i < kSide; ++i) {
#pragma unroll
        for (int j = 0; j < kSide; ++j) sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
      }
    }
    __syncthreads();  // and have been read: the next ones, or the sums, may overwrite them
  }
#pragma unroll
  for (int i = 0; i < kSide; ++i) {
#pragma unroll
    for (int j = 0; j < kSide; ++j) shared[(r0 + i) * kPitch + c0 + j] = sums[i][j];
  }
  __syncthreads();  // the sums are written
  gemm::store_rows<T, kTile, kTile, W>(args, place, gated, shared, kPitch, thread, kThreads);
}

template <typename T>
cudaError_t start(const Gemm& args, cudaStream_t stream) {
  const bool gated = is_gated(args.epilogue.activation);
  const std::int64_t columns = gated ? args.columns / 2 : args.columns;
  const std::int64_t row_tiles = ceil_div<std::int64_t>(args.rows, kTile);
  const std::int64_t column_tiles = ceil_div<std::int64_t>(columns, gated ? kTile / 2 : kTile);
  const gemm::Slices slices = gemm::slices_of(args);
  const LaunchShape shape{dim3(static_cast<unsigned>(row_tiles * column_tiles), static_cast<unsigned>(slices.count)),
                          dim3(kThreads)};
  return launch(multiply<T, 1>, shape, stream, args, static_cast<int>(column_tiles), slices.depth);
}

}  // namespace

cudaError_t gemm::run_fma(const Gemm& args, cudaStream_t stream) {
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
