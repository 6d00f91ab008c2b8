// Matrix products of the linear layers: out = epilogue(A * B), A [M, K] and B [K, N] in any of the layouts that forward
// and backward of y = x W^T need, both in `dtype`, sums in float32 and in an order that neither M nor the GPU decides.
//
//   forward   y  [T, N] = x  [T, K]       * W^T          a = x,            b = W, b_by_column
//   backward  dx [T, K] = dy [T, N]       * W            a = dy,           b = W
//             dW [N, K] = dy^T [N, T]     * x [T, K]     a = dy, a_by_column,  b = x
#pragma once

#include <cstdint>

#include "common/activations.cuh"
#include "common/device.cuh"

namespace sentcore {

// Up to three tensors of `rows_of_part` rows, each contiguous with `width` columns, read as if they lay one below the
// other.
struct StackedRows {
  const void* part[3];
  std::int64_t rows_of_part;
  std::int64_t width;
};

// What becomes of a row of sums before it is stored.
struct Epilogue {
  const void* bias[3];  // [bias_part] dtype each, side by side as columns; null for none
  std::int64_t bias_part;
  Activation activation;  // a gated one takes columns j and N/2 + j to column j
  void* pre;              // [M, N] dtype, or null: the sum with bias, before the activation
  const void* cos;        // [M, head_size / 2] float32 or dtype, or null: no rotation
  const void* sin;        // likewise
  bool rotary_is_float32;
  int head_size;                // divides the columns of a tile
  std::int64_t rotary_columns;  // the columns before this one are turned
  // Of a product of e4m3 by sm_90a's kernel alone, whose bias is float32: sums are multiplied by both, then the bias is
  // added.
  const float* row_scale;     // [M] float32
  const float* column_scale;  // [N] float32
};

struct Gemm {
  Dtype dtype;
  std::int64_t rows;     // M
  std::int64_t columns;  // N
  std::int64_t depth;    // K
  StackedRows a;         // [M, K], or [K, M] with a_by_column
  bool a_by_column;
  StackedRows b;  // [K, N], or [N, K] with b_by_column
  bool b_by_column;
  Epilogue epilogue;
  void* out;       // [M, N] dtype ([M, N/2] after a gated activation)
  float* partial;  // [slices, M, N] float32, scratch where gemm_slices gives more than 1: no epilogue then
};

// Into how many slices of K the product is cut so that a GPU has enough to do: 1 for forward and dx, more for dW. From
// the shape alone.
std::int64_t gemm_slices(std::int64_t rows, std::int64_t columns, std::int64_t depth, bool a_by_column);

// Columns that a tile covers: heads that divide it can be rotated by the epilogue.
constexpr int kGemmTileColumns = 128;
// Whether the tile kernels take this dtype's product with a rotation; otherwise it is a pass of its own.
inline bool gemm_rotates(int head_size) { return head_size > 0 && 64 % head_size == 0; }

cudaError_t gemm_cuda(const Gemm& gemm, cudaStream_t stream);

// The two products of a backward, of y [T, N] = x [T, K] * W^T with W [N, K] stacked:
// dx [T, K] = dy * W; dW [N, K] = dy^T * x, with `partial` as in Gemm for gemm_slices(N, K, T, true) slices.
cudaError_t input_gradient_cuda(const StackedRows& dy, const StackedRows& weight, std::int64_t rows_of_weight,
                                Dtype dtype, void* dx, cudaStream_t stream);
cudaError_t weight_gradient_cuda(const StackedRows& dy, const StackedRows& x, Dtype dtype, float* partial, void* dw,
                                 cudaStream_t stream);

}  // namespace sentcore
