// linear and linear_backward as torch calls them: checks, outputs, and the products on CUDA. The schemas are in
// sentcore/ops/linear/register.py.

#include "ops/linear/linear.h"

#include <string>
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

void check_product(const Checks& check, const Tensor& x, const Tensor& weight, Activation activation) {
  check.dtype("x", x, {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half},
              "Convert it, e.g. with .float(); float64 runs on the CPU alone");
  check.dimensions("x", x, 2, "[T, K]");
  check.dimensions("weight", weight, 2, "[R, K]");
  check.same_device("weight", weight, "x", x);
  check.dtype("weight", weight, {x.scalar_type()}, "Convert it to the dtype of x");
  check.shape("weight", weight, {weight.sizes()[0], x.sizes()[1]}, "[R, K] with x's K");
  check_sizes(check, "x", x);
  check_sizes(check, "weight", weight);
  const std::int64_t rows = weight.sizes()[0];
  if (x.sizes()[1] < 1 || rows < 1 || (is_gated(activation) && rows % 2 != 0)) {
    check.fail("weight has shape " + shape_text(weight.sizes()) +
               "; accepted: [R, K], neither empty, R even for a gated activation. Check the model's sizes");
  }
}

// x [T,K], weight [R,K], bias [R] -> out [T,F], pre [T,R] ([0,R] unless save_for_backward and an activation ask for
// it).
std::tuple<Tensor, Tensor> forward(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                                   std::string activation_name, bool save_for_backward) {
  const Checks check("linear");
  const Activation activation = activation_of(check, activation_name);
  check_product(check, x, weight, activation);
  const std::int64_t tokens = x.sizes()[0], rows = weight.sizes()[0];
  if (bias) {
    check.same_device("bias", *bias, "x", x);
    check.dtype("bias", *bias, {x.scalar_type()}, "Convert it to the dtype of x");
    check.shape("bias", *bias, {rows}, "the rows of weight");
  }
  const bool saved = save_for_backward && activation != Activation::none;
  Tensor out = new_output(x, {tokens, is_gated(activation) ? rows / 2 : rows}, x.scalar_type());
  Tensor pre = new_output(x, {saved ? tokens : 0, rows}, x.scalar_type());
  if (tokens == 0) return {out, pre};

  const Tensor x_in = as_contiguous(x), weight_in = as_contiguous(weight);
  const OptionalTensor bias_in = as_contiguous(bias);
  Gemm gemm{};
  gemm.dtype = dtype_of(x);
  gemm.rows = tokens;
  gemm.columns = rows;
  gemm.depth = x.sizes()[1];
  gemm.a = rows_of(x_in);
  gemm.b = rows_of(weight_in);
  gemm.b_by_column = true;
  gemm.epilogue.bias[0] = data_of(bias_in);
  gemm.epilogue.bias_part = rows;
  gemm.epilogue.activation = activation;
  if (saved) gemm.epilogue.pre = pre.mutable_data_ptr();
  gemm.out = out.mutable_data_ptr();
  const OnDeviceOf guard(x);
  check_launch("linear", gemm_cuda(gemm, current_stream(x)));
  return {out, pre};
}

// grad_out [T,F], x [T,K], weight [R,K], pre as the forward gave it -> grad_x [T,K], grad_weight [R,K], grad_bias [R]
// ([0] without a bias).
std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_out, const Tensor& x, const Tensor& weight,
                                            const Tensor& pre, bool has_bias, std::string activation_name) {
  const Checks check("linear_backward");
  const Activation activation = activation_of(check, activation_name);
  check_product(check, x, weight, activation);
  const std::int64_t tokens = x.sizes()[0], depth = x.sizes()[1], rows = weight.sizes()[0];
  check.same_device("grad_out", grad_out, "x", x);
  check.dtype("grad_out", grad_out, {x.scalar_type()}, "Convert it to the dtype of x");
  check.shape("grad_out", grad_out, {tokens, is_gated(activation) ? rows / 2 : rows}, "the shape of out");

  const OnDeviceOf guard(x);
  const cudaStream_t stream = current_stream(x);
  const Tensor grad_out_in = as_contiguous(grad_out), x_in = as_contiguous(x), weight_in = as_contiguous(weight);
  Tensor grad_pre = grad_out_in;
  if (activation != Activation::none && tokens > 0) {
    check.same_device("pre", pre, "x", x);
    check.dtype("pre", pre, {x.scalar_type()}, "Pass what the forward saved");
    check.shape("pre", pre, {tokens, rows}, "what the forward saved");
    const Tensor pre_in = as_contiguous(pre);
    grad_pre = new_output(x, {tokens, rows}, x.scalar_type());
    LinearBackward args{};
    args.tokens = tokens;
    args.columns = rows;
    args.dtype = dtype_of(x);
    args.activation = activation;
    args.grad_out = grad_out_in.const_data_ptr();
    args.pre = pre_in.const_data_ptr();
    args.grad_pre = grad_pre.mutable_data_ptr();
    check_launch("linear_backward", linear_backward_cuda(args, stream));
  }
  Tensor grad_x = new_output(x, {tokens, depth}, x.scalar_type());
  Tensor grad_weight = new_output(x, {rows, depth}, x.scalar_type());
  Tensor grad_bias = new_output(x, {has_bias ? rows : 0}, x.scalar_type());
  const StackedRows grad_rows{{grad_pre.const_data_ptr(), nullptr, nullptr}, tokens, rows};
  check_launch("linear_backward", input_gradient_cuda(grad_rows, rows_of(weight_in), rows, dtype_of(x),
                                                      grad_x.mutable_data_ptr(), stream));
  const std::int64_t slices = gemm_slices(rows, depth, tokens, true);
  Tensor partial = new_output(x, {slices > 1 ? slices : 0, rows, depth}, ScalarType::Float);
  check_launch("linear_backward",
               weight_gradient_cuda(grad_rows, rows_of(x_in), dtype_of(x),
                                    slices > 1 ? static_cast<float*>(partial.mutable_data_ptr()) : nullptr,
                                    grad_weight.mutable_data_ptr(), stream));
  if (has_bias) {
    Tensor sums = new_output(x, {sum_groups(tokens), rows}, ScalarType::Float);
    check_launch("linear_backward",
                 column_sums_cuda(dtype_of(x), grad_pre.const_data_ptr(), tokens, rows,
                                  static_cast<float*>(sums.mutable_data_ptr()), grad_bias.mutable_data_ptr(), stream));
  }
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace

SENTCORE_CUDA_OPS(m) {
  m.impl("linear", TORCH_BOX(&forward));
  m.impl("linear_backward", TORCH_BOX(&backward));
}

}  // namespace sentcore
#endif
