// Forward kernels of add_layer_norm; add_layer_norm.h says what each tensor is.
//
// Two kernels: a warp per row with the row in registers (H <= 1024, 16-byte packs), and a block per row for every other
// H and for pointers that packs do not fit. Both read x and residual once, unless a row outgrows shared memory.

#include "common/dtypes.cuh"
#include "common/philox.cuh"
#include "common/reduce.cuh"
#include "ops/add_layer_norm/add_layer_norm.h"
#include "ops/add_layer_norm/dispatch.cuh"

namespace sentcore {
namespace {

constexpr int kRowsPerBlock = 4;                   // warp kernel: one warp a row
constexpr int kBlockThreads = 256;                 // block kernel
constexpr std::size_t kMaxCachedBytes = 48 << 10;  // block kernel: rows up to this stay in shared memory, as float
// Block kernel: eight blocks on each of 132 multiprocessors; with more rows, a block takes several.
constexpr std::int64_t kMaxBlocks = 1056;

// What the kernels need of the arguments beyond their pointers; the kernels get it ready-made.
struct Scales {
  float keep_scale;  // 1 / (1 - dropout_p)
  float eps;
  std::uint32_t threshold;
};

// What of x and residual is needed for N elements of total; residual is untouched where there is none.
template <typename T, int N>
struct Operands {
  Elements<T, N> x;
  Elements<T, N> residual;
};

template <int N, typename T>
__device__ __forceinline__ void load_operands(const AddLayerNormForward& args, std::int64_t index,
                                              Operands<T, N>& operands) {
  operands.x = load<Access::streamed, N>(static_cast<const T*>(args.x) + index);
  if (args.residual != nullptr) {
    operands.residual = load<Access::streamed, N>(static_cast<const T*>(args.residual) + index);
  }
}

// N elements of total, in float32, from column on; index is that of the first one in [T, H]. kPlain: neither x_bias nor
// dropout, which a model's forward has not, and whose code costs instructions where it is merely not taken.
template <typename W, bool kPlain, int N, typename T>
__device__ __forceinline__ void add(const AddLayerNormForward& args, const Scales& scales, const Dropout& dropout,
                                    const Operands<T, N>& operands, std::int64_t index, std::int64_t column,
                                    float (&total)[N]) {
  convert(operands.x, total);
  if (!kPlain && args.x_bias != nullptr) {
    float bias[N];
    load_as_float<Access::reused>(static_cast<const W*>(args.x_bias) + column, bias);
#pragma unroll
    for (int i = 0; i < N; ++i) total[i] += bias[i];
  }
  if (!kPlain && args.seed != nullptr) {
    const std::uint32_t keep = dropout.keep_bits<N>(static_cast<std::uint64_t>(index));
#pragma unroll
    for (int i = 0; i < N; ++i) total[i] = (keep >> i) & 1u ? total[i] * scales.keep_scale : 0.0f;
  }
  if (args.residual != nullptr) {
    float residual[N];
    convert(operands.residual, residual);
#pragma unroll
    for (int i = 0; i < N; ++i) total[i] += residual[i];
  }
  // The backward reads total as it was saved, so the statistics are of the same rounded values: in a row of nearly
  // equal elements rstd is huge, and a difference in rounding alone would become a gradient.
#pragma unroll
  for (int i = 0; i < N; ++i) total[i] = to_float(from_float<T>(total[i]));
}

__device__ __forceinline__ Dropout dropout_of(const AddLayerNormForward& args, const Scales& scales) {
  if (args.seed == nullptr) return {0, 0, 0};
  return {static_cast<std::uint64_t>(args.seed[0]), static_cast<std::uint64_t>(args.seed[1]), scales.threshold};
}

// Writes N elements of out, and of total where it is saved.
template <typename T, typename W, int N>
__device__ __forceinline__ void store_row(const AddLayerNormForward& args, std::int64_t index, std::int64_t column,
                                          float mean, float rstd, const float (&total)[N]) {
  // total is next read in the backward pass; out by the next kernel.
  if (args.total != nullptr) store_from_float<Access::streamed>(static_cast<T*>(args.total) + index, total);
  float weight[N], bias[N] = {}, out[N];
  load_as_float<Access::reused>(static_cast<const W*>(args.weight) + column, weight);
  if (args.norm_bias != nullptr) load_as_float<Access::reused>(static_cast<const W*>(args.norm_bias) + column, bias);
#pragma unroll
  for (int i = 0; i < N; ++i) out[i] = (total[i] - mean) * rstd * weight[i] + bias[i];
  store_from_float<Access::reused>(static_cast<T*>(args.out) + index, out);
}

__device__ __forceinline__ void store_stats(const AddLayerNormForward& args, std::int64_t row, float mean, float rstd) {
  if (args.total == nullptr) return;
  static_cast<float*>(args.mean)[row] = mean;
  static_cast<float*>(args.rstd)[row] = rstd;
}

// ---- a warp per row ----

// kPacks packs a lane cover the row: H <= kPacks * 32 * kPackSize<T>, H a multiple of kPackSize<T>.
template <typename T, typename W, int kPacks, bool kPlain>
__global__ void __launch_bounds__(kRowsPerBlock* kWarpSize)
    forward_warp(const AddLayerNormForward args, const Scales scales) {
  constexpr int N = kPackSize<T>, kStep = kWarpSize * N;
  const int first = static_cast<int>(threadIdx.x) % kWarpSize * N;  // column of this lane's first pack
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kRowsPerBlock + threadIdx.x / kWarpSize;
  if (row >= args.rows) return;  // a whole warp leaves, and no barrier of the block follows
  const Dropout dropout = kPlain ? Dropout{} : dropout_of(args, scales);
  const int hidden = static_cast<int>(args.hidden);
  const std::int64_t begin = row * args.hidden + first;

  // All loads of the row are under way before the first is waited for: no branch is among them.
  Operands<T, N> operands[kPacks];
  const bool has_residual = args.residual != nullptr;
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const bool inside = first + p * kStep < hidden;
    operands[p].x = load_if<N>(inside, static_cast<const T*>(args.x) + begin + p * kStep);
    operands[p].residual = load_if<N>(inside && has_residual, static_cast<const T*>(args.residual) + begin + p * kStep);
  }

  float total[kPacks][N];
  float sum = 0.0f;
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int column = first + p * kStep;
    if (column < hidden) {
      add<W, kPlain>(args, scales, dropout, operands[p], begin + p * kStep, column, total[p]);
#pragma unroll
      for (int i = 0; i < N; ++i) sum += total[p][i];
    }
  }
  const float mean = warp_sum(sum) / static_cast<float>(hidden);

  float squares = 0.0f;
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    if (first + p * kStep < hidden) {
#pragma unroll
      for (int i = 0; i < N; ++i) squares += (total[p][i] - mean) * (total[p][i] - mean);
    }
  }
  const float rstd = __frsqrt_rn(warp_sum(squares) / static_cast<float>(hidden) + scales.eps);

  if (first == 0) store_stats(args, row, mean, rstd);
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int column = first + p * kStep;
    if (column < hidden) store_row<T, W>(args, begin + p * kStep, column, mean, rstd, total[p]);
  }
}

// ---- a block per row ----

// Packs of N elements (H a multiple of N). With `cached`, H floats of dynamic shared memory keep the row between the
// three passes, each thread its own columns; without, total is computed again from x and residual.
template <typename T, typename W, int N>
__global__ void __launch_bounds__(kBlockThreads)
    forward_block(const AddLayerNormForward args, const Scales scales, const bool cached) {
  SENTCORE_DYNAMIC_SHARED(float, cache);
  const Dropout dropout = dropout_of(args, scales);
  const float count = static_cast<float>(args.hidden);
  const std::int64_t first = static_cast<std::int64_t>(threadIdx.x) * N;
  const std::int64_t step = static_cast<std::int64_t>(blockDim.x) * N;

  for (std::int64_t row = blockIdx.x; row < args.rows; row += gridDim.x) {
    const std::int64_t begin = row * args.hidden;
    const auto compute = [&](std::int64_t column, float (&total)[N]) {
      Operands<T, N> operands;
      load_operands(args, begin + column, operands);
      add<W, false>(args, scales, dropout, operands, begin + column, column, total);
    };
    const auto total_at = [&](std::int64_t column, float (&total)[N]) {
      if (!cached) return compute(column, total);
#pragma unroll
      for (int i = 0; i < N; ++i) total[i] = cache[column + i];
    };

    float sum[1] = {0.0f};
    for (std::int64_t column = first; column < args.hidden; column += step) {
      float total[N];
      compute(column, total);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        sum[0] += total[i];
        if (cached) cache[column + i] = total[i];
      }
    }
    block_sum(sum);
    const float mean = sum[0] / count;

    float squares[1] = {0.0f};
    for (std::int64_t column = first; column < args.hidden; column += step) {
      float total[N];
      total_at(column, total);
#pragma unroll
      for (int i = 0; i < N; ++i) squares[0] += (total[i] - mean) * (total[i] - mean);
    }
    block_sum(squares);
    const float rstd = __frsqrt_rn(squares[0] / count + scales.eps);

    if (threadIdx.x == 0) store_stats(args, row, mean, rstd);
    for (std::int64_t column = first; column < args.hidden; column += step) {
      float total[N];
      total_at(column, total);
      store_row<T, W>(args, begin + column, column, mean, rstd, total);
    }
  }
}

// ---- which of them ----

template <typename T, typename W>
cudaError_t launch_forward(const AddLayerNormForward& args, cudaStream_t stream) {
  constexpr int N = kPackSize<T>;
  const Scales scales{static_cast<float>(1.0 / (1.0 - args.dropout_p)), static_cast<float>(args.eps),
                      dropout_threshold(args.dropout_p)};
  const bool packs = args.hidden % N == 0 &&
                     packs_fit({args.x, args.residual, args.weight, args.norm_bias, args.x_bias, args.out, args.total});
  if (packs && args.hidden <= kMaxWarpHidden) {
    const LaunchShape shape{dim3(static_cast<unsigned>(ceil_div<std::int64_t>(args.rows, kRowsPerBlock))),
                            dim3(kRowsPerBlock * kWarpSize)};
    const bool plain = args.x_bias == nullptr && args.seed == nullptr;
    // Half the registers where the row needs only half of them.
    constexpr int kAll = packs_per_lane<T>(kMaxWarpHidden), kHalf = packs_per_lane<T>(kMaxWarpHidden / 2);
    if (args.hidden <= kMaxWarpHidden / 2) {
      return plain ? launch(forward_warp<T, W, kHalf, true>, shape, stream, args, scales)
                   : launch(forward_warp<T, W, kHalf, false>, shape, stream, args, scales);
    }
    return plain ? launch(forward_warp<T, W, kAll, true>, shape, stream, args, scales)
                 : launch(forward_warp<T, W, kAll, false>, shape, stream, args, scales);
  }
  const std::size_t row_bytes = static_cast<std::size_t>(args.hidden) * sizeof(float);
  const bool cached = row_bytes <= kMaxCachedBytes;
  const LaunchShape shape{dim3(static_cast<unsigned>(args.rows < kMaxBlocks ? args.rows : kMaxBlocks)),
                          dim3(kBlockThreads), cached ? row_bytes : 0};
  if (packs) return launch(forward_block<T, W, N>, shape, stream, args, scales, cached);
  return launch(forward_block<T, W, 1>, shape, stream, args, scales, cached);
}

}  // namespace

cudaError_t add_layer_norm_forward_cuda(const AddLayerNormForward& args, cudaStream_t stream) {
  return for_dtypes(args.dtype, args.weight_dtype, [&](auto element, auto weight) {
    return launch_forward<typename decltype(element)::type, typename decltype(weight)::type>(args, stream);
  });
}

}  // namespace sentcore
