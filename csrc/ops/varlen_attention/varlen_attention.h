// varlen_attention: softmax(scale * q k^T + bias - slope * distance) v inside each sentence of a packed batch.
//
// Tq query tokens and Tk key tokens in B sentences, N heads of size D; any of them but N and D may be 0. Sentence b has
// the query rows cu_seqlens_q[b] .. cu_seqlens_q[b + 1] and the key rows likewise; its last query stands beside its
// last key. `dtype` is the type of q, k, v, the outputs and their gradients; arithmetic and lse are float32. All
// pointers to q, k, v, grad_out, out and to outputs are aligned to 16 bytes. Pointers marked "or null" leave their term
// out.
#pragma once

#include <cstdint>

#include "common/portable.h"
#if defined(SENTCORE_WITH_CUDA) || defined(__CUDACC__)
#include "common/device.cuh"
#endif

namespace sentcore {

constexpr int kMaxHeadSize = 256;  // of D, on CUDA

// What the forward and the backward are both given.
struct VarlenAttention {
  std::int64_t sentences;  // B
  std::int64_t tokens_q;   // Tq
  std::int64_t tokens_k;   // Tk
  int heads;               // N
  int size;                // D
  int max_seqlen_q;        // no sentence is longer; what lies beyond is neither read nor written
  int max_seqlen_k;
  std::int64_t dropout_columns;  // max_seqlen_k of the call, rounded up to a multiple of 4: it numbers the elements
  Dtype dtype;
  float scale;
  double exact_scale;  // the same, for the CPU's float64
  int window_left;     // keys seen on the left of a query's place; -1 for all
  int window_right;    // and on its right; causal is 0
  const void* q;       // [Tq, N, D] dtype, its tokens q_stride elements apart
  const void* k;       // [Tk, N, D] dtype, its tokens kv_stride elements apart
  const void* v;       // [Tk, N, D] dtype, likewise
  std::int64_t q_stride;
  std::int64_t kv_stride;
  const std::int32_t* cu_seqlens_q;  // [B + 1] int32
  const std::int32_t* cu_seqlens_k;  // [B + 1] int32
  const void* bias;                  // [N, >= max_seqlen_q, >= max_seqlen_k] dtype | float32, of any strides, or null
  bool bias_is_float32;
  std::int64_t bias_strides[3];  // in elements
  const float* alibi_slopes;     // [N] float32, or null
  const std::int64_t* seed;      // [2] int64 (seed, offset), or null: no dropout; read on the device
  std::uint32_t dropout_threshold;
  float keep_scale;  // 1 / (1 - dropout_p)
  double exact_keep_scale;
};

// A query that sees no key gets zeros, and -inf as its lse.
struct VarlenAttentionForward {
  VarlenAttention given;
  void* out;                       // [Tq, N, D] dtype
  float* lse;                      // [Tq, N] float32, or null: the logarithm of the sum of exp(score)
  int left_out_from = 0x7fffffff;  // CUDA's alone: sentences of so many keys are left to another kernel,
  int left_out_to = 0;             // and those of at most so many queries and keys to a third
};

// Every output is overwritten. Sums run in a fixed order, so that they repeat bit for bit.
struct VarlenAttentionBackward {
  VarlenAttention given;
  const void* grad_out;  // [Tq, N, D] dtype
  const void* out;       // [Tq, N, D] dtype, as the forward gave it
  const float* lse;      // [Tq, N] float32, as the forward saved it
  float* delta;          // [Tq, N] float32, scratch: the sum over D of grad_out * out; CUDA's alone
  void* grad_q;          // as q, with q's stride
  void* grad_k;          // as k, with k's stride
  void* grad_v;          // as v, with v's stride
  void* grad_bias;       // [N, Sq, Sk] of bias' type, contiguous, or null
  int bias_rows;         // Sq
  int bias_columns;      // Sk
  int bias_groups;       // G, of varlen_attention_bias_groups_cuda; 1 on the CPU
  float* partial;        // [G, N, Sq, Sk] float32, scratch: each group's sum over its sentences. Null where G is 1, on
                         // the CPU where grad_bias has the sums' own type
};

// On the CPU dtype may be float64 too, and lse and partial are then of float64; D and N are free.
void varlen_attention_forward_cpu(const VarlenAttentionForward& args);
void varlen_attention_backward_cpu(const VarlenAttentionBackward& args);

#if defined(SENTCORE_WITH_CUDA) || defined(__CUDACC__)
cudaError_t varlen_attention_forward_cuda(const VarlenAttentionForward& args, cudaStream_t stream);
cudaError_t varlen_attention_backward_cuda(const VarlenAttentionBackward& args, cudaStream_t stream);
std::int64_t varlen_attention_bias_groups_cuda(std::int64_t sentences, std::int64_t heads, std::int64_t bias_rows,
                                               std::int64_t bias_columns);
#endif

}  // namespace sentcore
