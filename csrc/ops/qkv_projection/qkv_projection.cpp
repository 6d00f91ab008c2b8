// qkv_projection and qkv_projection_backward as torch calls them: checks, outputs, and the products on CUDA. The
// schemas are in sentcore/ops/qkv_projection/register.py.

#include "ops/qkv_projection/qkv_projection.h"

#include <tuple>

#include "common/checks.h"
#include "common/register.h"
#ifdef SENTCORE_WITH_CUDA
#include "common/gemm/operands.h"
#include "common/stream.h"
#include "common/sums/sums.h"

namespace sentcore {
namespace {

using OptionalTensor = std::optional<Tensor>;

// ---- checks ----

// The weights: one [3·N·D, H], or three [N·D, H].
struct Weights {
  const Tensor& first;
  const OptionalTensor& second;
  const OptionalTensor& third;

  bool stacked() const { return !second.has_value(); }
  std::int64_t rows_of_part() const { return first.sizes()[0]; }
  std::int64_t rows() const { return rows_of_part() * (stacked() ? 1 : 3); }
};

void check_all(const Checks& check, const Tensor& x, const Weights& weights) {
  check.dtype("x", x, {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half},
              "Convert it, e.g. with .float(); float64 runs on the CPU alone");
  check.dimensions("x", x, 2, "[T, H]");
  check_sizes(check, "x", x);
  check.dimensions("weight", weights.first, 2, "[3·N·D, H], or three of [N·D, H]");
  if (weights.second.has_value() != weights.third.has_value()) {
    check.fail(
        "weight_k and weight_v are not both given; accepted: both, or neither with all rows in weight. Pass both");
  }
  const auto check_one = [&](const char* name, const Tensor& weight) {
    check.same_device(name, weight, "x", x);
    check.dtype(name, weight, {x.scalar_type()}, "Convert it to the dtype of x");
    check.shape(name, weight, {weights.rows_of_part(), x.sizes()[1]}, "the rows of weight and the columns of x");
    check_sizes(check, name, weight);
  };
  check_one("weight", weights.first);
  if (!weights.stacked()) {
    check_one("weight_k", *weights.second);
    check_one("weight_v", *weights.third);
  }
  if (x.sizes()[1] < 1 || weights.rows() < 1) {
    check.fail("x has shape " + shape_text(x.sizes()) + " and weight " + shape_text(weights.first.sizes()) +
               "; accepted: no empty dimension but T. Check the model's sizes");
  }
}

void check_heads(const Checks& check, const Weights& weights, std::int64_t num_heads) {
  if (num_heads >= 1 && weights.rows() % (3 * num_heads) == 0) return;
  check.fail("num_heads is " + std::to_string(num_heads) + "; accepted: a number that divides the " +
             std::to_string(weights.rows() / 3) + " rows of each projection. Check the model's sizes");
}

void check_bias(const Checks& check, const char* name, const OptionalTensor& bias, const Weights& weights) {
  if (!bias) return;
  check.same_device(name, *bias, "weight", weights.first);
  check.dtype(name, *bias, {weights.first.scalar_type()}, "Convert it to the dtype of weight");
  check.shape(name, *bias, {weights.rows_of_part()}, "the rows of weight");
}

void check_angles(const Checks& check, const Tensor& x, const OptionalTensor& cos, const OptionalTensor& sin,
                  std::int64_t head_size) {
  if (cos.has_value() != sin.has_value()) {
    check.fail("cos and sin are not both given; accepted: both, or neither. Pass both");
  }
  if (!cos) return;
  const auto check_one = [&](const char* name, const Tensor& table) {
    check.same_device(name, table, "x", x);
    check.dtype(name, table, {ScalarType::Float, x.scalar_type()}, "Convert it with .float()");
    check.shape(name, table, {x.sizes()[0], head_size / 2}, "[T, D/2]");
  };
  check_one("cos", *cos);
  check_one("sin", *sin);
  check.dtype("sin", *sin, {cos->scalar_type()}, "Convert it to the dtype of cos");
  if (head_size % 2 != 0) {
    check.fail("the head size is " + std::to_string(head_size) + "; accepted with cos and sin: an even one");
  }
}

// ---- what the kernels are given ----

// Contiguous weights, held until the launches.
struct HeldWeights {
  Tensor first;
  OptionalTensor second, third;

  explicit HeldWeights(const Weights& weights)
      : first(as_contiguous(weights.first)),
        second(as_contiguous(weights.second)),
        third(as_contiguous(weights.third)) {}
  StackedRows rows() const {
    StackedRows rows = rows_of(first);
    rows.part[1] = data_of(second);
    rows.part[2] = data_of(third);
    return rows;
  }
};

Rotation rotation_of(const Tensor& qkv, std::int64_t heads, const Tensor& cos, const Tensor& sin, bool inverse) {
  Rotation rotation{};
  rotation.tokens = qkv.sizes()[0];
  rotation.heads = heads;
  rotation.size = 2 * cos.sizes()[1];
  rotation.dtype = dtype_of(qkv);
  rotation.cos = cos.const_data_ptr();
  rotation.sin = sin.const_data_ptr();
  rotation.angles_are_float32 = cos.scalar_type() == ScalarType::Float;
  rotation.inverse = inverse;
  return rotation;
}

// ---- forward ----

// x [T,H], weight [3·N·D,H] or three [N·D,H], bias [3·N·D] or three [N·D], cos and sin [T,D/2] -> qkv [T,3,N,D].
Tensor forward(const Tensor& x, const Tensor& weight, const OptionalTensor& weight_k, const OptionalTensor& weight_v,
               const OptionalTensor& bias, const OptionalTensor& bias_k, const OptionalTensor& bias_v,
               std::int64_t num_heads, const OptionalTensor& cos, const OptionalTensor& sin) {
  const Checks check("qkv_projection");
  const Weights weights{weight, weight_k, weight_v};
  check_all(check, x, weights);
  check_heads(check, weights, num_heads);
  check_bias(check, "bias", bias, weights);
  check_bias(check, "bias_k", bias_k, weights);
  check_bias(check, "bias_v", bias_v, weights);
  const int given = bias.has_value() + bias_k.has_value() + bias_v.has_value();
  if (given != 0 && given != (weights.stacked() ? 1 : 3)) {
    check.fail("bias does not come in the form of weight; accepted: one tensor each, three each, or no bias");
  }
  const std::int64_t tokens = x.sizes()[0], size = weights.rows() / (3 * num_heads);
  check_angles(check, x, cos, sin, size);

  Tensor out = new_output(x, {tokens, 3, num_heads, size}, x.scalar_type());
  if (tokens == 0) return out;
  const Tensor x_in = as_contiguous(x);
  const HeldWeights held(weights);
  const OptionalTensor biases[3] = {as_contiguous(bias), as_contiguous(bias_k), as_contiguous(bias_v)};
  const OptionalTensor cos_in = as_contiguous(cos), sin_in = as_contiguous(sin);
  Gemm gemm{};
  gemm.dtype = dtype_of(x);
  gemm.rows = tokens;
  gemm.columns = weights.rows();
  gemm.depth = x.sizes()[1];
  gemm.a = rows_of(x_in);
  gemm.b = held.rows();
  gemm.b_by_column = true;
  for (int i = 0; i < 3; ++i) gemm.epilogue.bias[i] = data_of(biases[i]);
  gemm.epilogue.bias_part = weights.rows_of_part();
  gemm.out = out.mutable_data_ptr();
  const bool on_the_way = cos_in && gemm_rotates(static_cast<int>(size));
  if (on_the_way) {
    gemm.epilogue.cos = cos_in->const_data_ptr();
    gemm.epilogue.sin = sin_in->const_data_ptr();
    gemm.epilogue.rotary_is_float32 = cos_in->scalar_type() == ScalarType::Float;
    gemm.epilogue.head_size = static_cast<int>(size);
    gemm.epilogue.rotary_columns = weights.rows() / 3 * 2;
  }
  const OnDeviceOf guard(x);
  check_launch("qkv_projection", gemm_cuda(gemm, current_stream(x)));
  if (cos_in && !on_the_way) {
    Rotation rotation = rotation_of(out, num_heads, *cos_in, *sin_in, false);
    rotation.in = out.const_data_ptr();
    rotation.out = out.mutable_data_ptr();
    check_launch("qkv_projection", rotate_cuda(rotation, current_stream(x)));
  }
  return out;
}

// ---- backward ----

// grad_qkv [T,3,N,D], x [T,H], weights as above -> grad_x [T,H], grad_weight [3·N·D,H], grad_bias [3·N·D] ([0] without
// one).
std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_qkv, const Tensor& x, const Tensor& weight,
                                            const OptionalTensor& weight_k, const OptionalTensor& weight_v,
                                            bool has_bias, const OptionalTensor& cos, const OptionalTensor& sin) {
  const Checks check("qkv_projection_backward");
  const Weights weights{weight, weight_k, weight_v};
  check_all(check, x, weights);
  const std::int64_t tokens = x.sizes()[0], hidden = x.sizes()[1], rows = weights.rows();
  check.same_device("grad_qkv", grad_qkv, "x", x);
  check.dtype("grad_qkv", grad_qkv, {x.scalar_type()}, "Convert it to the dtype of x");
  check.dimensions("grad_qkv", grad_qkv, 4, "[T, 3, N, D]");
  const std::int64_t heads = grad_qkv.sizes()[2], size = grad_qkv.sizes()[3];
  check.shape("grad_qkv", grad_qkv, {tokens, 3, heads, size}, "[T, 3, N, D]");
  if (3 * heads * size != rows) {
    check.fail("grad_qkv has shape " + shape_text(grad_qkv.sizes()) +
               "; accepted: [T, 3, N, D] with 3·N·D = " + std::to_string(rows) + ", the rows of weight");
  }
  check_angles(check, x, cos, sin, size);

  const Dtype dtype = dtype_of(x);
  Tensor grad_x = new_output(x, {tokens, hidden}, x.scalar_type());
  Tensor grad_weight = new_output(x, {rows, hidden}, x.scalar_type());
  Tensor grad_bias = new_output(x, {has_bias ? rows : 0}, x.scalar_type());
  const OnDeviceOf guard(x);
  const cudaStream_t stream = current_stream(x);
  const Tensor x_in = as_contiguous(x);
  const HeldWeights held(weights);
  const OptionalTensor cos_in = as_contiguous(cos), sin_in = as_contiguous(sin);
  Tensor grad = as_contiguous(grad_qkv);
  if (cos_in && tokens > 0) {
    Tensor turned = new_output(x, {tokens, 3, heads, size}, x.scalar_type());
    Rotation rotation = rotation_of(grad, heads, *cos_in, *sin_in, true);
    rotation.in = grad.const_data_ptr();
    rotation.out = turned.mutable_data_ptr();
    check_launch("qkv_projection_backward", rotate_cuda(rotation, stream));
    grad = turned;
  }
  const StackedRows grad_rows{{grad.const_data_ptr(), nullptr, nullptr}, tokens, rows};

  check_launch("qkv_projection_backward",
               input_gradient_cuda(grad_rows, held.rows(), rows, dtype, grad_x.mutable_data_ptr(), stream));
  const std::int64_t slices = gemm_slices(rows, hidden, tokens, true);
  Tensor partial = new_output(x, {slices > 1 ? slices : 0, rows, hidden}, ScalarType::Float);
  check_launch("qkv_projection_backward",
               weight_gradient_cuda(grad_rows, rows_of(x_in), dtype,
                                    slices > 1 ? static_cast<float*>(partial.mutable_data_ptr()) : nullptr,
                                    grad_weight.mutable_data_ptr(), stream));
  if (has_bias) {
    Tensor sums = new_output(x, {sum_groups(tokens), rows}, ScalarType::Float);
    check_launch("qkv_projection_backward",
                 column_sums_cuda(dtype, grad.const_data_ptr(), tokens, rows,
                                  static_cast<float*>(sums.mutable_data_ptr()), grad_bias.mutable_data_ptr(), stream));
  }
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace

SENTCORE_CUDA_OPS(m) {
  m.impl("qkv_projection", TORCH_BOX(&forward));
  m.impl("qkv_projection_backward", TORCH_BOX(&backward));
}

}  // namespace sentcore
#endif
