// packed_linear as torch calls it: checks, output, dispatch. The schema is in sentcore/ops/packed_linear/register.py.

#include "ops/packed_linear/packed_linear.h"

#include <string>

#include "common/checks.h"
#include "common/register.h"

#ifdef SENTCORE_CPU_OPS
namespace sentcore {
namespace {

using OptionalTensor = std::optional<Tensor>;

PackedActivation activation_of(const Checks& check, const std::string& name) {
  if (name == "none") return PackedActivation::none;
  if (name == "relu") return PackedActivation::relu;
  if (name == "gelu") return PackedActivation::gelu;
  if (name == "gelu_tanh") return PackedActivation::gelu_tanh;
  check.fail("activation is '" + name + "'; accepted: none, relu, gelu, gelu_tanh. Apply it outside");
}

// x [T,K] float32 | bfloat16, weight as packed_linear.h says, bias [R] as x -> out [T,R] as x.
Tensor forward(const Tensor& x, const Tensor& weight, std::int64_t out_features, const OptionalTensor& bias,
               std::string activation) {
  const Checks check("packed_linear");
  PackedLinear args{};
  args.activation = activation_of(check, activation);
  check.dtype("x", x, {ScalarType::Float, ScalarType::BFloat16}, "Convert it, e.g. with .float()");
  check.dimensions("x", x, 2, "[T, K]");
  check.dtype("weight", weight, {x.scalar_type()}, "Pack it from the dtype of x");
  args.rows = x.sizes()[0], args.depth = x.sizes()[1], args.columns = out_features;
  if (args.depth < 1 || args.columns < 1) check.fail("x or weight is empty; accepted: K and R of at least 1");
  const std::int64_t panels = ceil_div(args.columns, kPanelColumns);
  if (x.scalar_type() == ScalarType::Float) {
    check.shape("weight", weight, {panels, args.depth, kPanelColumns}, "what pack_weight gives for x's K");
  } else {
    if (args.depth % 2 != 0) check.fail("x has an odd K in bfloat16; accepted: an even one. Add a column of zeros");
    check.shape("weight", weight, {panels, args.depth / 2, kPanelColumns, 2}, "what pack_weight gives for x's K");
  }
  if (bias) {
    check.dtype("bias", *bias, {x.scalar_type()}, "Convert it to the dtype of x");
    check.shape("bias", *bias, {args.columns}, "out_features");
  }
  Tensor out = new_output(x, {args.rows, args.columns}, x.scalar_type());
  if (args.rows == 0) return out;
  const Tensor x_in = as_contiguous(x), weight_in = as_contiguous(weight);
  const OptionalTensor bias_in = as_contiguous(bias);
  args.dtype = dtype_of(x);
  args.x = x_in.const_data_ptr();
  args.weight = weight_in.const_data_ptr();
  args.bias = data_of(bias_in);
  args.out = out.mutable_data_ptr();
  packed_linear_cpu(args);
  return out;
}

}  // namespace

SENTCORE_CPU_OPS(m) { m.impl("packed_linear", TORCH_BOX(&forward)); }

}  // namespace sentcore
#endif
