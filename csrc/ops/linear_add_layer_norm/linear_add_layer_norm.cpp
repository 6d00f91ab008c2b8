// linear_add_layer_norm as torch calls it: checks, output, and the kernel on CUDA. The schema is in
// sentcore/ops/linear_add_layer_norm/register.py.

#include "ops/linear_add_layer_norm/linear_add_layer_norm.h"

#include <string>

#include "common/checks.h"
#include "common/register.h"
#ifdef SENTCORE_WITH_CUDA
#include "common/choices/choices.h"
#include "common/gemm/operands.h"
#include "common/stream.h"

namespace sentcore {
namespace {

using OptionalTensor = std::optional<Tensor>;

void check_vector(const Checks& check, const char* name, const Tensor& vector, const Tensor& x) {
  check.same_device(name, vector, "x", x);
  check.dtype(name, vector, {x.scalar_type()}, "Convert it to the dtype of x");
  check.shape(name, vector, {kNormedWidth}, "[H], the rows of weight");
}

// x [T,K], weight [H,K], bias [H], residual [T,H], norm_weight [H], norm_bias [H] -> out [T,H].
Tensor forward(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, const Tensor& residual,
               const Tensor& norm_weight, const OptionalTensor& norm_bias, double eps) {
  const Checks check("linear_add_layer_norm");
  check.dtype("x", x, {ScalarType::BFloat16, ScalarType::Half}, "Use linear and add_layer_norm");
  check.dimensions("x", x, 2, "[T, K]");
  check_sizes(check, "x", x);
  const std::int64_t tokens = x.sizes()[0], depth = x.sizes()[1];
  check.same_device("weight", weight, "x", x);
  check.dtype("weight", weight, {x.scalar_type()}, "Convert it to the dtype of x");
  check.shape("weight", weight, {kNormedWidth, depth}, "[384, K] with x's K. Use linear and add_layer_norm for others");
  if (depth % 8 != 0 || depth < 8) {
    check.fail("x has shape " + shape_text(x.sizes()) +
               "; accepted: [T, K], K a multiple of 8. Use linear and add_layer_norm");
  }
  if (bias) check_vector(check, "bias", *bias, x);
  check.same_device("residual", residual, "x", x);
  check.dtype("residual", residual, {x.scalar_type()}, "Convert it to the dtype of x");
  check.shape("residual", residual, {tokens, kNormedWidth}, "[T, H] with x's T and the rows of weight");
  check_vector(check, "weight of the norm", norm_weight, x);
  if (norm_bias) check_vector(check, "norm_bias", *norm_bias, x);
  const OnDeviceOf guard(x);
  if (!is_sm90()) {
    check.fail("x is on " + device_text(x) +
               "; accepted: a GPU of compute capability 9.0. Use linear and add_layer_norm");
  }
  Tensor out = new_output(x, {tokens, kNormedWidth}, x.scalar_type());
  if (tokens == 0) return out;
  const Tensor x_in = as_packs(x), weight_in = as_packs(weight), residual_in = as_packs(residual);
  const Tensor norm_weight_in = as_contiguous(norm_weight);
  const OptionalTensor bias_in = as_contiguous(bias), norm_bias_in = as_contiguous(norm_bias);
  LinearAddLayerNorm args{};
  args.rows = tokens;
  args.depth = depth;
  args.dtype = dtype_of(x);
  args.x = x_in.const_data_ptr();
  args.weight = weight_in.const_data_ptr();
  args.bias = data_of(bias_in);
  args.residual = residual_in.const_data_ptr();
  args.norm_weight = norm_weight_in.const_data_ptr();
  args.norm_bias = data_of(norm_bias_in);
  args.eps = static_cast<float>(eps);
  args.out = out.mutable_data_ptr();
  check_launch("linear_add_layer_norm", linear_add_layer_norm_sm90a(args, current_stream(x)));
  return out;
}

}  // namespace

SENTCORE_CUDA_OPS(m) { m.impl("linear_add_layer_norm", TORCH_BOX(&forward)); }

}  // namespace sentcore
#endif
