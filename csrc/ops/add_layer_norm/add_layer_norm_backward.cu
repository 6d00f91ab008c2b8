// Backward kernels of add_layer_norm; add_layer_norm.h says what each tensor is.
//
// With n = (total - mean) * rstd and g = grad_out * weight, for each row
//   grad_residual = rstd * (g - mean_H(g) - n * mean_H(g * n)) + grad_total
//   grad_x        = grad_residual * keep / (1 - dropout_p)
// and over the rows grad_weight = sum(grad_out * n), grad_norm_bias = sum(grad_out), grad_x_bias = sum(grad_x).
//
// A block is a group: it owns rows, keeps their column sums, and writes them to its slice of `partial`; add_groups adds
// the slices. As in the forward there are two such kernels, a warp per row (H <= 1024 in packs) and a block per row.

#include "common/dtypes.cuh"
#include "common/philox.cuh"
#include "common/reduce.cuh"
#include "common/sums/sums.h"
#include "ops/add_layer_norm/add_layer_norm.h"
#include "ops/add_layer_norm/dispatch.cuh"

namespace sentcore {
namespace {

constexpr int kWarps = 4;           // warp kernel: rows a block works on at a time
constexpr int kBlockThreads = 256;  // block kernel
constexpr int kRowsPerGroup = 2 * kWarps;
constexpr int kBlocks = 3;  // of the warp kernel on a multiprocessor: as many as leave each the registers it needs
// That many on each of 132 multiprocessors. A constant, so that sums do not depend on the GPU.
constexpr std::int64_t kMaxGroups = 132 * kBlocks;

struct Scales {
  float keep_scale;  // 1 / (1 - dropout_p)
  std::uint32_t threshold;
};

__device__ __forceinline__ Dropout dropout_of(const AddLayerNormBackward& args, const Scales& scales) {
  if (args.seed == nullptr) return {0, 0, 0};
  return {static_cast<std::uint64_t>(args.seed[0]), static_cast<std::uint64_t>(args.seed[1]), scales.threshold};
}

// Slice of `group` for one of the three sums: 0 grad_weight, 1 grad_norm_bias, 2 grad_x_bias.
__device__ __forceinline__ float* partial_of(const AddLayerNormBackward& args, int sum, std::int64_t group) {
  return static_cast<float*>(args.partial) + (sum * args.groups + group) * args.hidden;
}

// What is read of N elements; grad_total is untouched where there is none.
template <typename T, int N>
struct Operands {
  Elements<T, N> grad_out;
  Elements<T, N> total;
  Elements<T, N> grad_total;
};

template <Access access, int N, typename T>
__device__ __forceinline__ void load_operands(const AddLayerNormBackward& args, std::int64_t index,
                                              Operands<T, N>& operands) {
  operands.grad_out = load<access, N>(static_cast<const T*>(args.grad_out) + index);
  operands.total = load<access, N>(static_cast<const T*>(args.total) + index);
  if (args.grad_total != nullptr) {
    operands.grad_total = load<access, N>(static_cast<const T*>(args.grad_total) + index);
  }
}

struct RowStats {
  float mean;
  float rstd;
};

__device__ __forceinline__ RowStats stats_of(const AddLayerNormBackward& args, std::int64_t row) {
  return {static_cast<const float*>(args.mean)[row], static_cast<const float*>(args.rstd)[row]};
}

// grad = grad_out and normalized = n of N elements.
template <int N, typename T>
__device__ __forceinline__ void normalize(const Operands<T, N>& operands, const RowStats& stats, float (&grad)[N],
                                          float (&normalized)[N]) {
  convert(operands.grad_out, grad);
  convert(operands.total, normalized);
#pragma unroll
  for (int i = 0; i < N; ++i) normalized[i] = (normalized[i] - stats.mean) * stats.rstd;
}

// Adds N elements' share of the two sums over H: of g and of g * n.
template <typename W, int N, typename T>
__device__ __forceinline__ void add_row_sums(const AddLayerNormBackward& args, const Operands<T, N>& operands,
                                             const RowStats& stats, std::int64_t column, float (&sums)[2]) {
  float grad[N], normalized[N], weight[N];
  normalize(operands, stats, grad, normalized);
  load_as_float<Access::reused>(static_cast<const W*>(args.weight) + column, weight);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    sums[0] += grad[i] * weight[i];
    sums[1] += grad[i] * weight[i] * normalized[i];
  }
}

// Writes grad_residual and grad_x of N elements, and gives their terms of the three sums over T.
template <typename W, int N, typename T>
__device__ __forceinline__ void finish(const AddLayerNormBackward& args, const Scales& scales, const Dropout& dropout,
                                       const Operands<T, N>& operands, const RowStats& stats, std::int64_t index,
                                       std::int64_t column, float mean_g, float mean_gn, float (&weight_term)[N],
                                       float (&norm_bias_term)[N], float (&x_bias_term)[N]) {
  float normalized[N], weight[N];
  normalize(operands, stats, norm_bias_term, normalized);
  load_as_float<Access::reused>(static_cast<const W*>(args.weight) + column, weight);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    weight_term[i] = norm_bias_term[i] * normalized[i];
    x_bias_term[i] = (norm_bias_term[i] * weight[i] - mean_g - normalized[i] * mean_gn) * stats.rstd;
  }
  if (args.grad_total != nullptr) {
    float grad_total[N];
    convert(operands.grad_total, grad_total);
#pragma unroll
    for (int i = 0; i < N; ++i) x_bias_term[i] += grad_total[i];
  }
  store_from_float<Access::reused>(static_cast<T*>(args.grad_residual) + index, x_bias_term);
  if (args.seed != nullptr) {
    const std::uint32_t keep = dropout.keep_bits<N>(static_cast<std::uint64_t>(index));
#pragma unroll
    for (int i = 0; i < N; ++i) x_bias_term[i] = (keep >> i) & 1u ? x_bias_term[i] * scales.keep_scale : 0.0f;
    store_from_float<Access::reused>(static_cast<T*>(args.grad_x) + index, x_bias_term);
  }
}

// ---- a warp per row ----

// kPacks packs a lane cover the row. kSums: 3, or 2 where grad_x_bias is not wanted. Dynamic shared memory: float
// [kWarps, H].
template <typename T, typename W, int kPacks, int kSums>
__global__ void __launch_bounds__(kWarps* kWarpSize, kSums == 2 && kPacks < 8 ? kBlocks : 2)
    backward_warp(const AddLayerNormBackward args, const Scales scales) {
  constexpr int N = kPackSize<T>, kStep = kWarpSize * N;
  const int first = static_cast<int>(threadIdx.x) % kWarpSize * N;  // column of this lane's first pack
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int hidden = static_cast<int>(args.hidden);
  const bool has_grad_total = args.grad_total != nullptr;
  const Dropout dropout = dropout_of(args, scales);
  float column_sums[kSums][kPacks][N] = {};

  struct Row {
    RowStats stats;
    Operands<T, N> operands[kPacks];
  };
  const auto read = [&](std::int64_t row) {  // without a branch, so that all loads are under way at once
    Row loaded{};
    const bool is_row = row < args.rows;
    if (is_row) loaded.stats = stats_of(args, row);
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const bool inside = is_row && first + p * kStep < hidden;
      const std::int64_t index = row * args.hidden + first + p * kStep;
      auto& operands = loaded.operands[p];
      operands.grad_out = load_if<N>(inside, static_cast<const T*>(args.grad_out) + index);
      operands.total = load_if<N>(inside, static_cast<const T*>(args.total) + index);
      operands.grad_total = load_if<N>(inside && has_grad_total, static_cast<const T*>(args.grad_total) + index);
    }
    return loaded;
  };
  // Short rows leave registers to read the next one beside the work on this one.
  constexpr bool kAhead = sizeof(T) == 2 && kPacks * N <= 16;
  const std::int64_t step = args.groups * kWarps;
  std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp;
  Row next{};
  if (kAhead) next = read(row);
  for (; row < args.rows; row += step) {
    const Row current = kAhead ? next : read(row);
    if (kAhead) next = read(row + step);
    const auto& [stats, operands] = current;
    const std::int64_t begin = row * args.hidden + first;
    float sums[2] = {0.0f, 0.0f};
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int column = first + p * kStep;
      if (column < hidden) add_row_sums<W>(args, operands[p], stats, column, sums);
    }
    const float mean_g = warp_sum(sums[0]) / static_cast<float>(hidden);
    const float mean_gn = warp_sum(sums[1]) / static_cast<float>(hidden);
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int column = first + p * kStep;
      if (column < hidden) {
        float terms[3][N];
        finish<W>(args, scales, dropout, operands[p], stats, begin + p * kStep, column, mean_g, mean_gn, terms[0],
                  terms[1], terms[2]);
#pragma unroll
        for (int sum = 0; sum < kSums; ++sum) {
#pragma unroll
          for (int i = 0; i < N; ++i) column_sums[sum][p][i] += terms[sum][i];
        }
      }
    }
  }

  // The warps' column sums, one at a time, meet in shared memory.
  SENTCORE_DYNAMIC_SHARED(float, rows);
#pragma unroll
  for (int sum = 0; sum < kSums; ++sum) {
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int column = first + p * kStep;
      if (column < hidden) {
#pragma unroll
        for (int i = 0; i < N; ++i) rows[warp * hidden + column + i] = column_sums[sum][p][i];
      }
    }
    __syncthreads();  // the rows of all warps are written
    float* partial = partial_of(args, sum, blockIdx.x);
    for (int column = static_cast<int>(threadIdx.x); column < hidden; column += kWarps * kWarpSize) {
      float value = 0.0f;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) value += rows[w * hidden + column];
      partial[column] = value;
    }
    __syncthreads();  // and have been read: the next sum may overwrite them
  }
}

// ---- a block per row ----

// Packs of N elements (H a multiple of N), any H. Each thread keeps the column sums of its columns in the group's
// slices of `partial`, which stay in L2.
template <typename T, typename W, int N>
__global__ void __launch_bounds__(kBlockThreads) backward_block(const AddLayerNormBackward args, const Scales scales) {
  const Dropout dropout = dropout_of(args, scales);
  const float count = static_cast<float>(args.hidden);
  const std::int64_t first = static_cast<std::int64_t>(threadIdx.x) * N;
  const std::int64_t step = static_cast<std::int64_t>(blockDim.x) * N;

  for (std::int64_t row = blockIdx.x; row < args.rows; row += args.groups) {
    const std::int64_t begin = row * args.hidden;
    const RowStats stats = stats_of(args, row);
    Operands<T, N> operands;
    float sums[2] = {0.0f, 0.0f};
    for (std::int64_t column = first; column < args.hidden; column += step) {
      load_operands<Access::reused>(args, begin + column, operands);
      add_row_sums<W>(args, operands, stats, column, sums);
    }
    block_sum(sums);
    for (std::int64_t column = first; column < args.hidden; column += step) {
      load_operands<Access::reused>(args, begin + column, operands);
      float terms[3][N];
      finish<W>(args, scales, dropout, operands, stats, begin + column, column, sums[0] / count, sums[1] / count,
                terms[0], terms[1], terms[2]);
      const bool first_row = row == blockIdx.x;
#pragma unroll
      for (int sum = 0; sum < 3; ++sum) {
        float* partial = partial_of(args, sum, blockIdx.x) + column;
#pragma unroll
        for (int i = 0; i < N; ++i) partial[i] = first_row ? terms[sum][i] : partial[i] + terms[sum][i];
      }
    }
  }
}

// ---- which of them ----

template <typename T, typename W>
cudaError_t launch_rows(const AddLayerNormBackward& args, cudaStream_t stream) {
  constexpr int N = kPackSize<T>;
  const Scales scales{static_cast<float>(1.0 / (1.0 - args.dropout_p)), dropout_threshold(args.dropout_p)};
  const dim3 grid(static_cast<unsigned>(args.groups));
  const bool packs = args.hidden % N == 0 && packs_fit({args.grad_out, args.grad_total, args.total, args.weight,
                                                        args.grad_x, args.grad_residual});
  if (packs && args.hidden <= kMaxWarpHidden) {
    const LaunchShape shape{grid, dim3(kWarps * kWarpSize),
                            static_cast<std::size_t>(args.hidden) * kWarps * sizeof(float)};
    constexpr int kAll = packs_per_lane<T>(kMaxWarpHidden);
    if (args.grad_x_bias != nullptr) return launch(backward_warp<T, W, kAll, 3>, shape, stream, args, scales);
    if (args.hidden <= kMaxWarpHidden / 2) {
      return launch(backward_warp<T, W, kAll / 2, 2>, shape, stream, args, scales);
    }
    if constexpr (kAll == 8) {  // float32: the longest rows leave registers for two blocks alone
      if (args.hidden <= kMaxWarpHidden / 4 * 3) return launch(backward_warp<T, W, 6, 2>, shape, stream, args, scales);
    }
    return launch(backward_warp<T, W, kAll, 2>, shape, stream, args, scales);
  }
  const LaunchShape shape{grid, dim3(kBlockThreads)};
  if (packs) return launch(backward_block<T, W, N>, shape, stream, args, scales);
  return launch(backward_block<T, W, 1>, shape, stream, args, scales);
}

}  // namespace

std::int64_t add_layer_norm_groups_cuda(std::int64_t rows) {
  const std::int64_t groups = ceil_div<std::int64_t>(rows, kRowsPerGroup);
  return groups < kMaxGroups ? groups : kMaxGroups;
}

cudaError_t add_layer_norm_backward_cuda(const AddLayerNormBackward& args, cudaStream_t stream) {
  const cudaError_t status = for_dtypes(args.dtype, args.weight_dtype, [&](auto element, auto weight) {
    return launch_rows<typename decltype(element)::type, typename decltype(weight)::type>(args, stream);
  });
  if (status != cudaSuccess) return status;
  const GroupSums sums{args.hidden,
                       args.groups,
                       static_cast<const float*>(args.partial),
                       {args.grad_weight, args.grad_norm_bias, args.grad_x_bias}};
  return add_groups_cuda(args.weight_dtype, sums, stream);
}

}  // namespace sentcore
