// The product of 384 columns with residual and LayerNorm behind it, on sm_90a. A block to a multiprocessor takes 128
// rows after the other: one thread has the copy engine fill stages of 64 of K, two warpgroups multiply 64 rows each by
// all 384 columns, so that a row's sums are four neighbouring threads' and its mean and variance need no other.

#include "common/dtypes.cuh"
#include "common/reduce.cuh"
#include "common/sm90a/machine.h"
#include "common/sm90a/ptx.cuh"
#include "common/sm90a/ring.cuh"
#include "ops/linear_add_layer_norm/linear_add_layer_norm.h"

namespace sentcore {
namespace {

constexpr int kWidth = static_cast<int>(kNormedWidth);
constexpr int kHalf = kWidth / 2;  // columns of a product
constexpr int kDepth = 64;         // of a stage: 128 bytes
constexpr int kGroups = 2;
constexpr int kThreads = (kGroups + 1) * kWarpgroup;
constexpr int kRows = 64 * kGroups;
constexpr int kStageBytes = (kGroups + kWidth / 64) * kBox;
constexpr int kStages = 3;
constexpr int kStaged = kStages * kStageBytes;                         // where a box for each warpgroup begins
constexpr std::size_t kSharedBytes = kStaged + kGroups * kBox + 1024;  // whose beginning is aligned to 1024
constexpr int kBothGroups = 3;  // the number of a barrier; 1 and 2 are each group's own

struct Maps {
  TensorMap x;       // [T, K]
  TensorMap weight;  // [H, K]
  TensorMap out;     // [T, H]
};

// What each column adds and is multiplied by.
struct Columns {
  float bias[kWidth];
  float scale[kWidth];
  float shift[kWidth];
};

template <typename T>
struct alignas(4) Pair {
  T first, second;
};

template <typename T>
__device__ __forceinline__ float of_vector(const void* vector, int i, float otherwise) {
  return vector == nullptr ? otherwise : to_float(static_cast<const T*>(vector)[i]);
}

// Sums of a thread: [columns of 384 / 192][columns / 8 of 192][two of a row, two of the row 8 below].
using Sums = float[2][kHalf / 2];

// Adds bias and residual, and leaves the rows' means and reciprocal deviations, in two passes over the registers.
template <typename T>
__device__ __forceinline__ void finish_rows(const LinearAddLayerNorm& args, const Columns& columns, int row, int column,
                                            Sums& sums, float (&mean)[2], float (&scale)[2]) {
  const T* residual = static_cast<const T*>(args.residual) + static_cast<std::int64_t>(row) * kWidth + column;
  const bool inside[2] = {row < args.rows, row + 8 < args.rows};
  float total[2] = {}, squares[2] = {};
#pragma unroll
  for (int h = 0; h < 2; ++h) {
#pragma unroll
    for (int n = 0; n < kHalf / 8; ++n) {
      if (n % 4 == 0) ptx::keep_order();  // residuals of four places under way at a time: all would take 192 registers
      const int c = h * kHalf + n * 8;
      const float2 bias = *reinterpret_cast<const float2*>(columns.bias + c + column);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float first = 0.0f, second = 0.0f;
        if (inside[half]) {
          const Pair<T> pair = *reinterpret_cast<const Pair<T>*>(residual + half * 8 * kWidth + c);
          first = to_float(pair.first);
          second = to_float(pair.second);
        }
        sums[h][4 * n + 2 * half] += bias.x + first;
        sums[h][4 * n + 2 * half + 1] += bias.y + second;
        total[half] += sums[h][4 * n + 2 * half] + sums[h][4 * n + 2 * half + 1];
      }
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    total[half] += __shfl_xor_sync(kFullMask, total[half], 1);
    total[half] += __shfl_xor_sync(kFullMask, total[half], 2);
    mean[half] = total[half] / kWidth;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int n = 0; n < kHalf / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float distance = sums[h][4 * n + 2 * half + i] - mean[half];
          squares[half] += distance * distance;
        }
      }
    }
    ptx::forget(mean[half]);  // 192 differences to it, for store_rows
    squares[half] += __shfl_xor_sync(kFullMask, squares[half], 1);
    squares[half] += __shfl_xor_sync(kFullMask, squares[half], 2);
    scale[half] = rsqrtf(squares[half] / kWidth + args.eps);
  }
}

// The normalized rows through a box of shared memory, 64 columns at a time.
template <typename T>
__device__ __forceinline__ void store_rows(const TensorMap* out, const Columns& columns, std::uint32_t box, int group,
                                           int thread, int row0, const Sums& sums, const float (&mean)[2],
                                           const float (&scale)[2]) {
  const int row = thread / kWarpSize * 16 + thread % kWarpSize / 4, column = thread % 4 * 2;
  const std::uint32_t place = box + static_cast<std::uint32_t>(row * kBoxBytes + row % 8 * 16 + column * 2);
#pragma unroll
  for (int chunk = 0; chunk < kWidth / 64; ++chunk) {
    if (thread == 0) ptx::store_wait_read<0>();
    ptx::named_barrier(1 + group, kWarpgroup);  // the copy that reads the box is done
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const int c = chunk * 64 + n * 8 + column;
      const float2 by = *reinterpret_cast<const float2*>(columns.scale + c);
      const float2 add = *reinterpret_cast<const float2*>(columns.shift + c);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float* value = sums[chunk / 3] + 4 * (chunk % 3 * 8 + n) + 2 * half;
        const float first = (value[0] - mean[half]) * scale[half] * by.x + add.x;
        const float second = (value[1] - mean[half]) * scale[half] * by.y + add.y;
        ptx::store_shared((place ^ static_cast<std::uint32_t>(n * 16)) + half * 8 * kBoxBytes,
                          ptx::pack_pair<T>(first, second));
      }
    }
    ptx::fence_for_copies();
    ptx::named_barrier(1 + group, kWarpgroup);  // the box is full
    if (thread == 0) {
      ptx::store_box(out, box, row0, chunk * 64);
      ptx::store_commit();
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    multiply_and_normalize(const __grid_constant__ Maps maps, const LinearAddLayerNorm args, int tiles, int steps) {
  SENTCORE_DYNAMIC_SHARED(unsigned char, dynamic);
  SENTCORE_SHARED(ptx::Barrier, full, [kStages]);
  SENTCORE_SHARED(ptx::Barrier, empty, [kStages]);
  SENTCORE_SHARED(Columns, shared_columns, [1]);
  Columns& columns = shared_columns[0];
  unsigned char* shared = dynamic + (1024 - ptx::shared_address(dynamic) % 1024) % 1024;
  const int thread = static_cast<int>(threadIdx.x), group = ptx::uniform(thread / kWarpgroup);
  if (thread == 0) {
    for (int i = 0; i < kStages; ++i) {
      ptx::barrier_init(&full[i], 1);
      ptx::barrier_init(&empty[i], kGroups * kWarpgroup / kWarpSize);
    }
    ptx::barrier_init_fence();
  }
  __syncthreads();  // the barriers are made

  ptx::Turn<kStages> turn;
  if (group == kGroups) {  // the one that fills
    ptx::give_registers<kGivenRegisters>();
    if (thread % kWarpgroup != 0) return;
    for (int tile = static_cast<int>(blockIdx.x); tile < tiles; tile += static_cast<int>(gridDim.x)) {
      for (int step = 0; step < steps; ++step) {
        unsigned char* stage = shared + turn.stage * kStageBytes;
        ptx::barrier_wait(&empty[turn.stage], turn.parity ^ 1u);
        ptx::barrier_arrive_and_expect(&full[turn.stage], kStageBytes);
        for (int i = 0; i < kGroups; ++i) {
          ptx::load_box(stage + i * kBox, &maps.x, &full[turn.stage], tile * kRows + i * 64, step * kDepth);
        }
        for (int i = 0; i < kWidth / 64; ++i) {
          ptx::load_box(stage + (kGroups + i) * kBox, &maps.weight, &full[turn.stage], i * 64, step * kDepth);
        }
        turn.advance(1);
      }
    }
  } else {
    ptx::take_registers<kTakenRegisters>();
    for (int c = thread; c < kWidth; c += kGroups * kWarpgroup) {
      columns.bias[c] = of_vector<T>(args.bias, c, 0.0f);
      columns.scale[c] = of_vector<T>(args.norm_weight, c, 1.0f);
      columns.shift[c] = of_vector<T>(args.norm_bias, c, 0.0f);
    }
    ptx::named_barrier(kBothGroups, kGroups * kWarpgroup);  // the columns are there
    const int member = thread % kWarpgroup;
    const bool says = thread % kWarpSize == 0;
    const std::uint32_t box = ptx::shared_address(shared + kStaged + group * kBox);
    for (int tile = static_cast<int>(blockIdx.x); tile < tiles; tile += static_cast<int>(gridDim.x)) {
      Sums sums = {};  // see wgmma.cuh
      int last = 0;    // the stage of the step before
      for (int step = 0; step < steps; ++step) {
        const unsigned char* stage = shared + turn.stage * kStageBytes;
        ptx::barrier_wait(&full[turn.stage], turn.parity);
        ptx::product_fence();
#pragma unroll
        for (int k = 0; k < kDepth; k += 16) {
          const std::uint64_t a = ptx::operand(stage + group * kBox + k * 2);
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            const std::uint64_t b = ptx::operand(stage + (kGroups + h * kHalf / 64) * kBox + k * 2);
            ptx::multiply_64<T, true, true, kHalf>(sums[h], a, b, step > 0 || k > 0);
          }
        }
        ptx::product_commit();
        ptx::product_wait<1>();
        if (step > 0 && says) ptx::barrier_arrive(&empty[last]);
        last = turn.stage;
        turn.advance(1);
      }
      ptx::product_wait<0>();
      if (says) ptx::barrier_arrive(&empty[last]);
      float mean[2], scale[2];
      const int row0 = tile * kRows + group * 64;
      finish_rows<T>(args, columns, row0 + member / kWarpSize * 16 + member % kWarpSize / 4, member % 4 * 2, sums, mean,
                     scale);
      store_rows<T>(&maps.out, columns, box, group, member, row0, sums, mean, scale);
    }
    if (member == 0) ptx::store_wait_read<0>();
  }
}

template <typename T>
cudaError_t start(const LinearAddLayerNorm& args, cudaStream_t stream) {
  Maps maps{};
  cudaError_t status = make_tensor_map(&maps.x, args.x, args.rows, args.depth, args.depth);
  if (status == cudaSuccess) status = make_tensor_map(&maps.weight, args.weight, kWidth, args.depth, args.depth);
  if (status == cudaSuccess) status = make_tensor_map(&maps.out, args.out, args.rows, kWidth, kWidth);
  if (status != cudaSuccess) return status;
  const int tiles = static_cast<int>(ceil_div<std::int64_t>(args.rows, kRows));
  const int steps = static_cast<int>(ceil_div<std::int64_t>(args.depth, kDepth));
  LaunchShape shape{dim3(static_cast<unsigned>(tiles < multiprocessors() ? tiles : multiprocessors())), dim3(kThreads),
                    kSharedBytes};
  shape.shared_limit = kSm90aSharedBytes;
  return launch(multiply_and_normalize<T>, shape, stream, maps, args, tiles, steps);
}

}  // namespace

cudaError_t linear_add_layer_norm_sm90a(const LinearAddLayerNorm& args, cudaStream_t stream) {
  return args.dtype == Dtype::bfloat16 ? start<__nv_bfloat16>(args, stream) : start<__half>(args, stream);
}

}  // namespace sentcore
