// embedding_layer_norm: total = word[token_ids] + token_type[token_type_ids] + position[position_ids], out =
// LayerNorm(total); and the gradient of a table. Every tensor is contiguous. Arithmetic and `stat` are float32
// (float64 when dtype is float64); total is rounded to dtype before it is normalized. On CUDA an id outside its table
// gives a row of NaN, or adds to no row; the CPU kernels are given none. Pointers marked "or null" leave their term
// out.
#pragma once

#include <cstdint>

#include "common/portable.h"
#if defined(SENTCORE_WITH_CUDA) || defined(__CUDACC__)
#include "common/device.cuh"
#endif

namespace sentcore {

struct EmbeddingTable {
  const std::int64_t* ids;  // [T] int64, or null
  const void* table;        // [rows, H] dtype, or null
  std::int64_t rows;
};

struct EmbeddingLayerNorm {
  std::int64_t tokens;  // T
  std::int64_t hidden;  // H
  Dtype dtype;
  Dtype weight_dtype;  // dtype, or float32
  double eps;
  EmbeddingTable tables[3];  // word, token type, position: added in this order
  const void* weight;        // [H] weight_dtype
  const void* norm_bias;     // [H] weight_dtype, or null
  void* out;                 // [T, H] dtype
  void* total;               // [T, H] dtype, or null; with mean and rstd, for the backward
  void* mean;                // [T] stat, or null
  void* rstd;                // [T] stat, or null
};

// Row r of table = the sum of the rows of grad whose id is r, in the order of their places.
struct EmbeddingGradient {
  std::int64_t tokens;  // T
  std::int64_t hidden;  // H
  std::int64_t rows;    // of the table
  Dtype dtype;
  const void* grad;           // [T, H] dtype
  const std::int64_t* ids;    // [T] int64
  const std::int64_t* order;  // [T] int64, on CUDA: the places, sorted by id, equal ids in their order
  float* partial;             // [embedding_chunks(T), 2, H] float32, scratch on CUDA
  void* table;                // [rows, H] dtype, on CUDA zero on entry: rows that no id names are not written
};

void embedding_layer_norm_cpu(const EmbeddingLayerNorm& args);
void embedding_gradient_cpu(const EmbeddingGradient& args);

#if defined(SENTCORE_WITH_CUDA) || defined(__CUDACC__)
std::int64_t embedding_chunks(std::int64_t tokens);
cudaError_t embedding_layer_norm_cuda(const EmbeddingLayerNorm& args, cudaStream_t stream);
cudaError_t embedding_gradient_cuda(const EmbeddingGradient& args, cudaStream_t stream);
#endif

}  // namespace sentcore
