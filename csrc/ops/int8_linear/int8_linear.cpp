// int8_linear as torch calls it: checks, output, dispatch. The schema is in sentcore/ops/int8_linear/register.py.

#include "ops/int8_linear/int8_linear.h"

#include <string>

#include "common/checks.h"
#include "common/register.h"

#ifdef SENTCORE_CPU_OPS
namespace sentcore {
namespace {

using OptionalTensor = std::optional<Tensor>;

Int8Activation activation_of(const Checks& check, const std::string& name) {
  if (name == "none") return Int8Activation::none;
  if (name == "relu") return Int8Activation::relu;
  if (name == "gelu") return Int8Activation::gelu;
  if (name == "gelu_tanh") return Int8Activation::gelu_tanh;
  check.fail("activation is '" + name + "'; accepted: none, relu, gelu, gelu_tanh. Apply it outside");
}

// x [T,K] float32 | bfloat16, weight [R/32, K/4, 32, 4] uint8, scale [R] float32, bias [R] float32 -> out [T,R] as x.
Tensor forward(const Tensor& x, const Tensor& weight, const Tensor& scale, const OptionalTensor& bias,
               std::string activation) {
  const Checks check("int8_linear");
  Int8Linear args{};
  args.activation = activation_of(check, activation);
  check.dtype("x", x, {ScalarType::Float, ScalarType::BFloat16}, "Convert it, e.g. with .bfloat16()");
  check.dimensions("x", x, 2, "[T, K]");
  check.dtype("scale", scale, {ScalarType::Float}, "Pass what quantize_weight gave");
  check.dimensions("scale", scale, 1, "[R]");
  args.rows = x.sizes()[0], args.depth = x.sizes()[1], args.columns = scale.sizes()[0];
  if (args.depth < 1 || args.columns < 1) check.fail("x or weight is empty; accepted: K and R of at least 1");
  check.dtype("weight", weight, {ScalarType::Byte}, "Pass what quantize_weight gave");
  check.shape("weight", weight,
              {ceil_div(args.columns, kInt8Columns), ceil_div(args.depth, kInt8Depth), kInt8Columns, kInt8Depth},
              "what quantize_weight gives for scale's R and x's K");
  if (bias) {
    check.dtype("bias", *bias, {ScalarType::Float}, "Convert it to float32");
    check.shape("bias", *bias, {args.columns}, "the R of scale");
  }
  Tensor out = new_output(x, {args.rows, args.columns}, x.scalar_type());
  if (args.rows == 0) return out;
  const Tensor x_in = as_contiguous(x), weight_in = as_contiguous(weight), scale_in = as_contiguous(scale);
  const OptionalTensor bias_in = as_contiguous(bias);
  args.dtype = dtype_of(x);
  args.x = x_in.const_data_ptr();
  args.weight = static_cast<const std::uint8_t*>(weight_in.const_data_ptr());
  args.scale = static_cast<const float*>(scale_in.const_data_ptr());
  args.bias = static_cast<const float*>(data_of(bias_in));
  args.out = out.mutable_data_ptr();
  int8_linear_cpu(args);
  return out;
}

}  // namespace

SENTCORE_CPU_OPS(m) { m.impl("int8_linear", TORCH_BOX(&forward)); }

}  // namespace sentcore
#endif
