// segment_pooling: one row [H] for each of B sentences, out of its tokens' rows of x [T, H]; then, if asked, scaled to
// length 1. Every tensor is contiguous. Arithmetic and `wide` are float32 (float64 when dtype is float64); the order of
// additions depends on the sentence alone.
#pragma once

#include <cstdint>

#include "common/portable.h"
#if defined(SENTCORE_WITH_CUDA) || defined(__CUDACC__)
#include "common/device.cuh"
#endif

namespace sentcore {

enum class PoolingMode : std::int32_t { cls, max, mean, mean_sqrt_len_tokens, weightedmean, lasttoken };

struct SegmentPooling {
  std::int64_t sentences;  // B
  std::int64_t hidden;     // H
  Dtype dtype;
  PoolingMode mode;
  std::int64_t skip;  // tokens left out at the start of each sentence
  bool normalize;
  const void* x;                   // [T, H] dtype
  const std::int32_t* cu_seqlens;  // [B + 1] int32
  void* out;                       // [B, H] wide; zeros for a sentence without tokens
  void* norm;                      // [B] wide, a row's length before it was scaled; null unless normalize
};

// Every row of a sentence is overwritten, with zeros where its token was left out.
struct SegmentPoolingBackward {
  SegmentPooling given;  // as the forward wrote them; out is read where normalize
  const void* grad_out;  // [B, H] wide
  void* grad_x;          // [T, H] dtype
};

// ---- pooled rows as they leave the device: [scaled][cut][scaled][quantized] ----

enum class RowPrecision : std::int32_t { float32, int8, uint8, binary, ubinary };

// Pooled columns that a block keeps in shared memory; four blocks of them fit a multiprocessor of sm_80.
constexpr std::int64_t kMostColumnsInShared = 8192;

struct SegmentPoolingQuantized {
  SegmentPooling given;   // normalize: of the first `width` columns; out and norm are not used
  bool normalize_before;  // of all columns, before they are cut
  std::int64_t width;     // W, 1 to H: the columns that are kept
  RowPrecision precision;
  const float* ranges;  // [2, W], least and largest value of each column; null unless int8 or uint8
  void* out;            // [B, W] float32, int8 or uint8; binary [B, ceil(W / 8)] int8, ubinary the same uint8
  bool* finite;         // [B], whether a row held finite numbers alone before it was quantized
  void* rows;           // [B, pooled_columns] float32 scratch; null where that many fit kMostColumnsInShared
};

// Those that are computed at all.
SENTCORE_HD std::int64_t pooled_columns(const SegmentPoolingQuantized& args) {
  return args.normalize_before ? args.given.hidden : args.width;
}

void segment_pooling_cpu(const SegmentPooling& args);
void segment_pooling_backward_cpu(const SegmentPoolingBackward& args);

#if defined(SENTCORE_WITH_CUDA) || defined(__CUDACC__)
cudaError_t segment_pooling_cuda(const SegmentPooling& args, cudaStream_t stream);
cudaError_t segment_pooling_backward_cuda(const SegmentPoolingBackward& args, cudaStream_t stream);
cudaError_t segment_pooling_quantized_cuda(const SegmentPoolingQuantized& args, cudaStream_t stream);
#endif

}  // namespace sentcore
