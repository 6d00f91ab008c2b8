// The product on tensor cores, bfloat16 and float16: tiles of 128 x 128 x 32, 8 warps of 64 x 32, copies three stages
// deep. For K, N (and M where A is read by column) that are multiples of 8, and parts aligned to 16 bytes.

#include "common/dtypes.cuh"
#include "common/gemm/epilogue.cuh"
#include "common/gemm/kernels.h"
#include "common/reduce.cuh"

namespace sentcore {
namespace {

constexpr int kTile = 128;  // rows and columns
constexpr int kDepth = 32;
constexpr int kStages = 3;
constexpr int kThreads = 256;
constexpr int kWarpRows = 64, kWarpColumns = 32;
constexpr int kPack = 8;  // elements in 16 bytes
// 16 bytes more than a row, so that the 8 rows of an 8 x 8 matrix lie in different banks.
constexpr int kPitch = kDepth + kPack;         // [128, 32]: K along the row
constexpr int kPitchByColumn = kTile + kPack;  // [32, 128]: K down the rows
constexpr int kTileElements = kTile * kPitch;  // of either layout's larger one
constexpr int kSumsPitch = kTile + 4;
constexpr std::size_t kStageBytes = 2 * kStages * kTileElements * 2;
constexpr std::size_t kSumsBytes = kTile * kSumsPitch * 4;  // take the stages' place when all steps are done
constexpr std::size_t kSharedBytes = kStageBytes > kSumsBytes ? kStageBytes : kSumsBytes;
static_assert(kDepth * kPitchByColumn <= kTileElements, "one room serves both layouts");
static_assert(kTile == kGemmTileColumns, "");

// Row `row` of stacked rows, from column `column` on.
template <typename T>
__device__ __forceinline__ const T* at(const StackedRows& m, int row, int column) {
  const int rows_of_part = static_cast<int>(m.rows_of_part);
  const void* part = m.part[0];
  if (row >= rows_of_part) part = row >= 2 * rows_of_part ? m.part[2] : m.part[1];
  row -= row >= rows_of_part ? (row >= 2 * rows_of_part ? 2 * rows_of_part : rows_of_part) : 0;
  return static_cast<const T*>(part) + static_cast<std::int64_t>(row) * m.width + column;
}

// Starts the copy of one operand's tile at depth k0: `outer` rows or columns of the product from outer0 on. kByDepth:
// memory is [outer, K] and so is the tile; otherwise both are [K, outer]. What lies outside is zero.
template <typename T, bool kByDepth, typename OuterOf>
__device__ __forceinline__ void fetch(const StackedRows& m, T* tile, const OuterOf& outer_of, int outer_end, int k0,
                                      int depth_end, int thread) {
  constexpr int kPacksOfRow = (kByDepth ? kDepth : kTile) / kPack;
#pragma unroll 1  // two rounds; side by side their addresses would not fit into 128 registers
  for (int i = 0; i < kTile * kDepth / kPack / kThreads; ++i) {
    const int pack = thread + i * kThreads, r = pack / kPacksOfRow, c = pack % kPacksOfRow * kPack;
    const int outer = outer_of(kByDepth ? r : c), k = k0 + (kByDepth ? c : r);
    const bool outside = outer < 0 || outer >= outer_end || k >= depth_end;
    const T* source = static_cast<const T*>(m.part[0]);
    if (!outside) source = kByDepth ? at<T>(m, outer, k) : at<T>(m, k, outer);
    ptx::copy_async_16(tile + r * (kByDepth ? kPitch : kPitchByColumn) + c, source, outside);
  }
}

// Rows of the product in tile row r.
struct PlainOuter {
  int first;
  __device__ __forceinline__ int operator()(int i) const { return first + i; }
};
// Columns of the product in tile column c; -1 where the tile ends beyond a gated product's half.
template <bool kGated>
struct ColumnOuter {
  int first;
  int half;  // N / 2
  __device__ __forceinline__ int operator()(int c) const {
    if (!kGated) return first + c;
    const int place = first + c % (kTile / 2);
    if (place >= half) return -1;
    return c < kTile / 2 ? place : half + place;
  }
};

// The 16 x 16 piece of A at (row, k) of its tile, as mma takes it.
template <typename T, bool kByDepth>
__device__ __forceinline__ void load_a(const T* tile, int row, int k, int lane, std::uint32_t (&fragment)[4]) {
  if constexpr (kByDepth) {
    ptx::load_matrix_x4(fragment, tile + (row + lane % 16) * kPitch + k + lane / 16 * 8);
  } else {
    ptx::load_matrix_x4_transposed(fragment,
                                   tile + (k + lane / 16 * 8 + lane % 8) * kPitchByColumn + row + lane / 8 % 2 * 8);
  }
}

// The 16 x 16 piece of B at (k, column): two 16 x 8 pieces for mma.
template <typename T, bool kByDepth>
__device__ __forceinline__ void load_b(const T* tile, int column, int k, int lane, std::uint32_t (&fragment)[2][2]) {
  std::uint32_t loaded[4];
  if constexpr (kByDepth) {
    ptx::load_matrix_x4(loaded, tile + (column + lane / 16 * 8 + lane % 8) * kPitch + k + lane / 8 % 2 * 8);
  } else {
    ptx::load_matrix_x4_transposed(loaded, tile + (k + lane % 16) * kPitchByColumn + column + lane / 16 * 8);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) fragment[i / 2][i % 2] = loaded[i];
}

// kA, kB: the operand's memory runs along K. Grid: tiles (columns fastest, so that the rows of A stay in L2), slices of
// K.
template <typename T, bool kA, bool kB, bool kGated>
__global__ void __launch_bounds__(kThreads, 2) multiply(const Gemm args, int column_tiles, int slice_depth) {
  SENTCORE_DYNAMIC_SHARED(T, shared);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize, warp = thread / kWarpSize;
  const int warp_row = warp / (kTile / kWarpColumns), warp_column = warp % (kTile / kWarpColumns);
  const int slice = static_cast<int>(blockIdx.y);
  const int row0 = static_cast<int>(blockIdx.x) / column_tiles * kTile;
  const int column0 = static_cast<int>(blockIdx.x) % column_tiles * (kGated ? kTile / 2 : kTile);
  const PlainOuter row_of{row0};
  const ColumnOuter<kGated> column_of{column0, static_cast<int>(args.columns / 2)};
  const int begin = slice * slice_depth;
  const int end = begin + slice_depth < args.depth ? begin + slice_depth : static_cast<int>(args.depth);
  const int steps = (end - begin + kDepth - 1) / kDepth;

  const auto start = [&](int step) {
    if (step < steps) {
      T* stage = shared + step % kStages * 2 * kTileElements;
      const int k0 = begin + step * kDepth;
      fetch<T, kA>(args.a, stage, row_of, static_cast<int>(args.rows), k0, end, thread);
      fetch<T, kB>(args.b, stage + kTileElements, column_of, static_cast<int>(args.columns), k0, end, thread);
    }
    ptx::copy_async_commit();  // an empty group where nothing is left: the count of the wait stays right
  };

  float sums[4][4][4] = {};
#pragma unroll
  for (int step = 0; step < kStages - 1; ++step) start(step);
  for (int step = 0; step < steps; ++step) {
    ptx::copy_async_wait<kStages - 2>();
    __syncthreads();  // this step's tiles have landed, and all have read the stage that is filled next
    start(step + kStages - 1);
    const T* tile_a = shared + step % kStages * 2 * kTileElements;
    const T* tile_b = tile_a + kTileElements;
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      std::uint32_t b[4][2];
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        std::uint32_t pair[2][2];
        load_b<T, kB>(tile_b, warp_column * kWarpColumns + n * 16, k, lane, pair);
#pragma unroll
        for (int i = 0; i < 4; ++i) b[2 * n + i / 2][i % 2] = pair[i / 2][i % 2];
      }
#pragma unroll
      for (int m = 0; m < 4; ++m) {  // one piece of A at a time: four would not fit into 128 registers
        std::uint32_t a[4];
        load_a<T, kA>(tile_a, warp_row * kWarpRows + m * 16, k, lane, a);
#pragma unroll
        for (int n = 0; n < 4; ++n) ptx::multiply_accumulate_16x8x16<T>(sums[m][n], a, b[n]);
      }
    }
  }
  ptx::copy_async_wait<0>();

  __syncthreads();  // all have read the last stage
  float* staged = reinterpret_cast<float*>(shared);
#pragma unroll
  for (int m = 0; m < 4; ++m) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const int row = warp_row * kWarpRows + m * 16 + lane / 4;
      float* target = staged + row * kSumsPitch + warp_column * kWarpColumns + n * 8 + lane % 4 * 2;
      target[0] = sums[m][n][0];
      target[1] = sums[m][n][1];
      target[8 * kSumsPitch] = sums[m][n][2];
      target[8 * kSumsPitch + 1] = sums[m][n][3];
    }
  }
  __syncthreads();  // the tile's sums are written
  gemm::store_rows<T, kTile, kTile, kPack>(args, {row0, column0, slice}, kGated, staged, kSumsPitch, thread, kThreads);
}

template <typename T, bool kA, bool kB, bool kGated>
cudaError_t start(const Gemm& args, cudaStream_t stream) {
  const std::int64_t columns = kGated ? args.columns / 2 : args.columns;
  const std::int64_t row_tiles = ceil_div<std::int64_t>(args.rows, kTile);
  const std::int64_t column_tiles = ceil_div<std::int64_t>(columns, kGated ? kTile / 2 : kTile);
  const gemm::Slices slices = gemm::slices_of(args);
  const LaunchShape shape{dim3(static_cast<unsigned>(row_tiles * column_tiles), static_cast<unsigned>(slices.count)),
                          dim3(kThreads), kSharedBytes};
  return launch(multiply<T, kA, kB, kGated>, shape, stream, args, static_cast<int>(column_tiles),
                static_cast<int>(slices.depth));
}

template <typename T>
cudaError_t by_layout(const Gemm& args, cudaStream_t stream) {
  if (is_gated(args.epilogue.activation)) return start<T, true, true, true>(args, stream);
  if (args.a_by_column) return start<T, false, false, false>(args, stream);
  if (args.b_by_column) return start<T, true, true, false>(args, stream);
  return start<T, true, false, false>(args, stream);
}

}  // namespace

cudaError_t gemm::run_mma(const Gemm& args, cudaStream_t stream) {
  if (args.dtype == Dtype::bfloat16) return by_layout<__nv_bfloat16>(args, stream);
  return by_layout<__half>(args, stream);
}

}  // namespace sentcore
