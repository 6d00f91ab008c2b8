// The gradient of a table; embedding_layer_norm.h says what each tensor is.
//
// The tokens are sorted by id, so a row of the table is the sum over a run of them. Blocks take chunks of equal size,
// whatever the runs: token types and [CLS] have runs as long as the batch. A run that lies in one chunk is written at
// once; the pieces of a longer one go to `partial`, and the chunk in which it begins adds them in order.

#include "common/dispatch.cuh"
#include "ops/embedding_layer_norm/embedding_layer_norm.h"

namespace sentcore {
namespace {

constexpr int kThreads = 128;
constexpr std::int64_t kChunk = 64;  // tokens

__device__ __forceinline__ std::int64_t id_at(const EmbeddingGradient& args, std::int64_t sorted) {
  return args.ids[args.order[sorted]];
}

__device__ __forceinline__ float* piece(const EmbeddingGradient& args, std::int64_t chunk, int which) {
  return args.partial + (2 * chunk + which) * args.hidden;
}

template <typename T>
__device__ __forceinline__ void store_row(const EmbeddingGradient& args, std::int64_t id, std::int64_t column,
                                          float sum) {
  if (id >= 0 && id < args.rows) static_cast<T*>(args.table)[id * args.hidden + column] = from_float<T>(sum);
}

// A thread a column. Grid: columns, chunks. Piece 0 of a chunk: of the run that came in from the chunk before; piece 1:
// of the run that begins here and goes on into the next.
template <typename T>
__global__ void __launch_bounds__(kThreads) sum_chunks(const EmbeddingGradient args) {
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x, chunk = blockIdx.y;
  if (column >= args.hidden) return;
  const std::int64_t begin = chunk * kChunk, end = begin + kChunk < args.tokens ? begin + kChunk : args.tokens;
  const T* const grad = static_cast<const T*>(args.grad) + column;
  bool came_in = begin > 0 && id_at(args, begin - 1) == id_at(args, begin);
  float sum = 0.0f;
  for (std::int64_t i = begin; i < end; ++i) {
    const std::int64_t id = id_at(args, i);
    sum += to_float(grad[args.order[i] * args.hidden]);
    const bool ends = i + 1 == args.tokens || id_at(args, i + 1) != id;
    if (!ends && i + 1 < end) continue;
    if (came_in) {
      piece(args, chunk, 0)[column] = sum;
    } else if (ends) {
      store_row<T>(args, id, column, sum);
    } else {
      piece(args, chunk, 1)[column] = sum;
    }
    came_in = false;
    sum = 0.0f;
  }
}

// The same grid: a chunk in which a run begins that goes on into the next adds that run's pieces.
template <typename T>
__global__ void __launch_bounds__(kThreads) join_runs(const EmbeddingGradient args) {
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x, chunk = blockIdx.y;
  const std::int64_t begin = chunk * kChunk, next = begin + kChunk;
  if (column >= args.hidden || next >= args.tokens) return;
  const std::int64_t id = id_at(args, next - 1);
  if (id_at(args, next) != id) return;                                                // no run goes on
  if (begin > 0 && id_at(args, begin) == id && id_at(args, begin - 1) == id) return;  // nor begins here
  // Where the run ends is bisected, so that the additions need not wait for ids: token types make runs of many chunks.
  std::int64_t last = chunk + 1, beyond = ceil_div(args.tokens, kChunk);
  while (beyond - last > 1) {
    const std::int64_t middle = last + (beyond - last) / 2;
    (id_at(args, middle * kChunk) == id ? last : beyond) = middle;
  }
  float sum = piece(args, chunk, 1)[column];
#pragma unroll 8
  for (std::int64_t other = chunk + 1; other <= last; ++other) sum += piece(args, other, 0)[column];
  store_row<T>(args, id, column, sum);
}

template <typename T>
cudaError_t start(const EmbeddingGradient& args, cudaStream_t stream) {
  const LaunchShape shape{dim3(static_cast<unsigned>(ceil_div<std::int64_t>(args.hidden, kThreads)),
                               static_cast<unsigned>(embedding_chunks(args.tokens))),
                          dim3(kThreads)};
  const cudaError_t status = launch(sum_chunks<T>, shape, stream, args);
  return status == cudaSuccess ? launch(join_runs<T>, shape, stream, args) : status;
}

}  // namespace

std::int64_t embedding_chunks(std::int64_t tokens) { return ceil_div(tokens, kChunk); }

cudaError_t embedding_gradient_cuda(const EmbeddingGradient& args, cudaStream_t stream) {
  return for_dtypes(args.dtype, args.dtype,
                    [&](auto element, auto) { return start<typename decltype(element)::type>(args, stream); });
}

}  // namespace sentcore
