// How the kernels of varlen_attention are chosen and launched. There are two of each: on tensor cores (mma) for half
// precision and a D that is a multiple of 8 up to 128, with plain arithmetic (fma) for everything else. The forward has
// a third for short sentences, and a fourth for long ones on sm_90a.
#pragma once

#include <cstdint>

#include "common/dtypes.cuh"
#include "common/reduce.cuh"
#include "ops/varlen_attention/mma_tiles.cuh"
#include "ops/varlen_attention/varlen_attention.h"

namespace sentcore {

cudaError_t varlen_attention_forward_mma(const VarlenAttentionForward& args, cudaStream_t stream);
cudaError_t varlen_attention_forward_short(const VarlenAttentionForward& args,
                                           cudaStream_t stream);  // where has_short
// On sm_90a, of sentences of `keys_from` keys or more; what fits_sm90a alone.
cudaError_t varlen_attention_forward_sm90a(const VarlenAttentionForward& args, int keys_from, cudaStream_t stream);
cudaError_t varlen_attention_forward_fma(const VarlenAttentionForward& args, cudaStream_t stream);

// The parts of the backward, in this order: the first leaves delta for the others.
cudaError_t varlen_attention_query_gradients_mma(const VarlenAttentionBackward& args, cudaStream_t stream);
cudaError_t varlen_attention_query_gradients_fma(const VarlenAttentionBackward& args, cudaStream_t stream);
cudaError_t varlen_attention_key_gradients_mma(const VarlenAttentionBackward& args, cudaStream_t stream);
cudaError_t varlen_attention_key_gradients_fma(const VarlenAttentionBackward& args, cudaStream_t stream);
cudaError_t varlen_attention_bias_gradient_mma(const VarlenAttentionBackward& args, cudaStream_t stream);
cudaError_t varlen_attention_bias_gradient_fma(const VarlenAttentionBackward& args, cudaStream_t stream);

namespace attention {

inline bool uses_mma(const VarlenAttention& args) {
  return (args.dtype == Dtype::bfloat16 || args.dtype == Dtype::float16) && args.size % 8 == 0 && args.size <= 128;
}

// Anything beyond softmax(scale * q k^T) v. Kernels are compiled with and without, as the options need registers.
inline bool has_options(const VarlenAttention& args) {
  return args.bias != nullptr || args.alibi_slopes != nullptr || args.seed != nullptr || args.window_left >= 0 ||
         args.window_right >= 0;
}

constexpr int kShortRows = 64;     // queries and keys, at most, of a sentence that the kernel for short ones takes
constexpr int kManySentences = 8;  // with fewer, the other one's four warps a head should be done sooner; not measured

// Whether that kernel is launched: there are sentences for it where the mean is that short. It gives the bits of the
// other one on tensor cores, so it matters to nobody that the batch decides.
inline bool has_short(const VarlenAttention& args) {
  return uses_mma(args) && args.size <= 64 && !has_options(args) && args.sentences >= kManySentences &&
         args.tokens_q <= kShortRows * args.sentences;
}

// Whether nothing is left for the other one.
inline bool is_short(const VarlenAttention& args) {
  return args.max_seqlen_q <= kShortRows && args.max_seqlen_k <= kShortRows;
}

// Whether there is a kernel of sm_90a for it.
inline bool fits_sm90a(const VarlenAttention& args) {
  return uses_mma(args) && (args.size == 64 || args.size == 128) && !has_options(args) && args.scale > 0.0f;
}

// Rows of a streamed tile: those of the longest sentence, whole chunks of 16, at most `most`.
inline int tile_rows(int longest, int most) {
  return longest > most ? most : longest <= 16 ? 16 : (longest + 15) / 16 * 16;
}

// As few warps a head as the longest sentence needs, so that short sentences leave no warp idle; head_bytes(warps) is
// the shared memory of a head.
template <typename HeadBytes>
BlockShape block_shape(int heads, int longest, int rows, const HeadBytes& head_bytes) {
  constexpr int kMostBytes = 44 << 10;  // of the 48 kB that every block may have; some kernels have static ones too
  int shift = 0;
  while (1 << shift < kWarps &&
         (longest > kRowsPerWarp << shift || (kWarps >> shift) * head_bytes(1 << shift) > kMostBytes)) {
    ++shift;
  }
  const int block_rows = kRowsPerWarp << shift, block_heads = kWarps >> shift;
  return {shift, (heads + block_heads - 1) / block_heads, (longest + block_rows - 1) / block_rows, rows,
          block_heads * head_bytes(1 << shift)};
}

// A grid's first dimension; more than it holds becomes a launch that CUDA refuses.
inline unsigned grid_x(std::int64_t blocks) {
  return blocks > 0x7fffffff ? 0xffffffffu : static_cast<unsigned>(blocks);
}

inline LaunchShape launch_shape(const VarlenAttention& args, const BlockShape& shape) {
  return {dim3(grid_x(args.sentences * shape.tiles * shape.head_groups)), dim3(kWarps * kWarpSize),
          static_cast<std::size_t>(shape.shared_bytes)};
}

template <typename Launch, typename T, typename... Args>
cudaError_t for_mma_size(int size, const Args&... args) {
  if (size <= 16) return Launch::template run<T, 16>(args...);
  if (size <= 32) return Launch::template run<T, 32>(args...);
  if (size <= 64) return Launch::template run<T, 64>(args...);
  if (size <= 80) return Launch::template run<T, 80>(args...);
  if (size <= 96) return Launch::template run<T, 96>(args...);
  if (size <= 128) return Launch::template run<T, 128>(args...);
  return cudaErrorInvalidValue;
}

// Calls Launch::run<T, kD>(args...) for the dtype and the smallest kD of at least D.
template <typename Launch, typename... Args>
cudaError_t for_mma(const VarlenAttention& given, const Args&... args) {
  if (given.dtype == Dtype::bfloat16) return for_mma_size<Launch, __nv_bfloat16>(given.size, args...);
  if (given.dtype == Dtype::float16) return for_mma_size<Launch, __half>(given.size, args...);
  return cudaErrorInvalidValue;
}

template <typename Launch, typename T, typename... Args>
cudaError_t for_fma_size(int size, const Args&... args) {
  if (size <= 32) return Launch::template run<T, 32>(args...);
  if (size <= 64) return Launch::template run<T, 64>(args...);
  if (size <= 128) return Launch::template run<T, 128>(args...);
  if (size <= kMaxHeadSize) return Launch::template run<T, kMaxHeadSize>(args...);
  return cudaErrorInvalidValue;
}

// The same for the kernels of plain arithmetic, of any dtype.
template <typename Launch, typename... Args>
cudaError_t for_fma(const VarlenAttention& given, const Args&... args) {
  switch (given.dtype) {
    case Dtype::float32:
      return for_fma_size<Launch, float>(given.size, args...);
    case Dtype::bfloat16:
      return for_fma_size<Launch, __nv_bfloat16>(given.size, args...);
    case Dtype::float16:
      return for_fma_size<Launch, __half>(given.size, args...);
    case Dtype::float64:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace attention
}  // namespace sentcore
