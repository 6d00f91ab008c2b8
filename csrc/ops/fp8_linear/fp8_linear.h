// fp8_linear: out = act(x W^T + b) for inference, W and x in e4m3: W with a scale for each output, given; x with a
// scale for each token, rounded here. T tokens, K inputs, P = K rounded up to 16, R outputs. CUDA, sm_89 and later.
//
//   q = e4m3(x * 448 / max|x|) for each row; out = act(sum(q * w) * max|x| / 448 * scale + bias)
//
// A row's maximum, rounding and order of addition depend on the row alone, so its bits do not depend on the others.
#pragma once

#include <cstdint>

#include "common/e4m3.h"
#if defined(SENTCORE_WITH_CUDA) || defined(__CUDACC__)
#include "common/activations.cuh"

namespace sentcore {

constexpr std::int64_t kFp8Depth = 16;        // rows of e4m3 are padded with zeros to whole 16 bytes
constexpr float kLeastFp8Maximum = 0x1p-60f;  // of a row; smaller ones, and zero, are scaled as if this were theirs

// Rows in 8 bits. Every element of both outputs is overwritten.
struct Fp8Rows {
  std::int64_t rows;   // T
  std::int64_t depth;  // K
  std::int64_t pitch;  // P
  Dtype dtype;         // float32, bfloat16 or float16
  const void* x;       // [T, K] dtype
  E4m3* values;        // [T, P] e4m3, zero beyond K; aligned to 16 bytes
  float* scale;        // [T] float32: x is about values * scale. NaN, beside zeros, for a row with NaN or infinity
};

struct Fp8Linear {
  std::int64_t rows;          // T
  std::int64_t pitch;         // P
  std::int64_t columns;       // R
  Dtype dtype;                // of out
  Activation activation;      // a gated one takes columns j and R/2 + j to column j
  const E4m3* x;              // [T, P] e4m3, aligned to 16 bytes
  const float* x_scale;       // [T] float32
  const E4m3* weight;         // [R, P] e4m3, aligned to 16 bytes
  const float* weight_scale;  // [R] float32
  const float* bias;          // [R] float32, or null
  void* out;                  // [T, R] dtype ([T, R/2] after a gated activation), aligned to 16 bytes
};

cudaError_t fp8_rows_cuda(const Fp8Rows& args, cudaStream_t stream);
cudaError_t fp8_linear_cuda(const Fp8Linear& args, cudaStream_t stream);
// By sm_90a's kernel; out in bfloat16 or float16.
cudaError_t fp8_linear_sm90a(const Fp8Linear& args, cudaStream_t stream);

}  // namespace sentcore
#endif
