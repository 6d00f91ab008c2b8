// segment_pooling_quantized: pooling, both scalings and quantizing in one launch; segment_pooling.h says what each
// tensor is. A block a sentence: its row stays in shared memory until the bytes are written. The values are those of
// segment_pooling's kernels, bit for bit.

#include <cfloat>
#include <type_traits>

#include "common/dispatch.cuh"
#include "ops/segment_pooling/segment.cuh"

namespace sentcore {
namespace {

// The row's first `columns` to length 1, each column by the thread that takes it below. All threads call this.
__device__ __forceinline__ void scale_row(float* row, std::int64_t columns) {
  float squares[1] = {0.0f};
  for (std::int64_t c = threadIdx.x; c < columns; c += kThreads) squares[0] += row[c] * row[c];
  block_sum(squares);
  const float divisor = divisor_of(sqrtf(squares[0]));
  for (std::int64_t c = threadIdx.x; c < columns; c += kThreads) row[c] /= divisor;
}

// Which of 256 even steps between low and high `value` is on; NaN stays.
__device__ __forceinline__ float level_of(float value, float low, float high) {
  const float step = (high - low) / 255.0f;
  const float level = floorf((value - low) / (step == 0.0f ? 1.0f : step));  // a constant column has one level
  return level < 0.0f ? 0.0f : level > 255.0f ? 255.0f : level;
}

// The columns 8 * byte to 8 * byte + 7 as bits, the first one the highest; those past `width` are 0.
__device__ __forceinline__ int bits_of(const float* row, std::int64_t width, std::int64_t byte) {
  int bits = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const std::int64_t c = byte * 8 + i;
    if (c < width && row[c] > 0.0f) bits |= 0x80 >> i;
  }
  return bits;
}

// Grid: B sentences.
template <typename T, int N>
__global__ void __launch_bounds__(kThreads, 4) quantized(const SegmentPoolingQuantized args) {
  SENTCORE_DYNAMIC_SHARED(float, shared_row);
  constexpr int kColumns = kWarpSize * N;
  const std::int64_t sentence = blockIdx.x, width = args.width, pooled = pooled_columns(args);
  const int thread = static_cast<int>(threadIdx.x);
  float* const row = args.rows == nullptr ? shared_row : static_cast<float*>(args.rows) + sentence * pooled;
  const Segment segment(args.given, sentence);
  for (std::int64_t first = 0; first < pooled; first += kColumns) {
    const float value = pool_columns<T, N>(args.given, segment, first);
    if (thread < kColumns && first + thread < pooled) row[first + thread] = value;
    __syncthreads();  // these columns are written, and the warps' sums of them read
  }
  if (args.normalize_before) scale_row(row, pooled);
  if (args.given.normalize) scale_row(row, width);

  float not_finite[1] = {0.0f};
  for (std::int64_t c = thread; c < width; c += kThreads) not_finite[0] += fabsf(row[c]) <= FLT_MAX ? 0.0f : 1.0f;
  block_sum(not_finite);  // beyond it every thread sees every column
  if (thread == 0) args.finite[sentence] = not_finite[0] == 0.0f;

  switch (args.precision) {
    case RowPrecision::float32:
      for (std::int64_t c = thread; c < width; c += kThreads) {
        static_cast<float*>(args.out)[sentence * width + c] = row[c];
      }
      break;
    case RowPrecision::int8:
    case RowPrecision::uint8:
      for (std::int64_t c = thread; c < width; c += kThreads) {
        const float level = level_of(row[c], args.ranges[c], args.ranges[width + c]);
        const int shift = args.precision == RowPrecision::int8 ? 128 : 0;
        const int value = level == level ? static_cast<int>(level) - shift : 0;  // no number: 0
        static_cast<std::uint8_t*>(args.out)[sentence * width + c] = static_cast<std::uint8_t>(value);
      }
      break;
    case RowPrecision::binary:
    case RowPrecision::ubinary: {
      const std::int64_t bytes = ceil_div<std::int64_t>(width, 8);
      for (std::int64_t byte = thread; byte < bytes; byte += kThreads) {
        const int shift = args.precision == RowPrecision::binary ? 128 : 0;
        static_cast<std::uint8_t*>(args.out)[sentence * bytes + byte] =
            static_cast<std::uint8_t>(bits_of(row, width, byte) - shift);
      }
      break;
    }
  }
}

}  // namespace

cudaError_t segment_pooling_quantized_cuda(const SegmentPoolingQuantized& args, cudaStream_t stream) {
  const std::size_t shared_bytes =
      args.rows == nullptr ? static_cast<std::size_t>(pooled_columns(args)) * sizeof(float) : 0;
  const LaunchShape shape{dim3(static_cast<unsigned>(args.given.sentences)), dim3(kThreads), shared_bytes};
  return for_dtypes(args.given.dtype, args.given.dtype, [&](auto element, auto) {
    using T = typename decltype(element)::type;
    constexpr int N = kPackSize<T>;
    return packs_fit({args.given.x}) && args.given.hidden % N == 0 ? launch(quantized<T, N>, shape, stream, args)
                                                                   : launch(quantized<T, 1>, shape, stream, args);
  });
}

}  // namespace sentcore
