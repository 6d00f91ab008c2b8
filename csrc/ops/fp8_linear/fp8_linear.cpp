// fp8_linear and fp8_rows as torch calls them: checks, outputs, and the kernels on CUDA. The schemas are in
// sentcore/ops/fp8_linear/register.py.

#include "ops/fp8_linear/fp8_linear.h"

#include <string>
#include <tuple>

#include "common/checks.h"
#include "common/register.h"
#ifdef SENTCORE_WITH_CUDA
#include "common/gemm/operands.h"
#include "common/stream.h"

namespace sentcore {
namespace {

using OptionalTensor = std::optional<Tensor>;

// Call it with x's device as the current one.
void check_gpu([[maybe_unused]] const Checks& check, [[maybe_unused]] const Tensor& x) {
#ifndef SENTCORE_EMULATE
  const int device = x.get_device_index();
  int major = 0, minor = 0;
  check_launch("fp8_linear", cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  check_launch("fp8_linear", cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  if (major < 8 || (major == 8 && minor < 9)) {
    check.fail("x is on " + device_text(x) + ", of compute capability " + std::to_string(major) + "." +
               std::to_string(minor) + "; accepted: 8.9 and later, which multiply e4m3. Use dtype='bfloat16' there");
  }
#endif
}

void check_rows(const Checks& check, const Tensor& x) {
  check.dtype("x", x, {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half}, "Convert it, e.g. with .float()");
  check.dimensions("x", x, 2, "[T, K]");
  check_sizes(check, "x", x);
  if (x.sizes()[1] < 1) check.fail("x has shape " + shape_text(x.sizes()) + "; accepted: [T, K] with K of at least 1");
}

std::int64_t padded(std::int64_t depth) { return ceil_div(depth, kFp8Depth) * kFp8Depth; }

// Both outputs for x [T,K]: values [T,P] e4m3, scale [T] float32; launches nothing where there is no row.
std::tuple<Tensor, Tensor> round_rows(const char* op, const Tensor& x) {
  const std::int64_t rows = x.sizes()[0], depth = x.sizes()[1];
  Tensor values = new_output(x, {rows, padded(depth)}, ScalarType::Float8_e4m3fn);
  Tensor scale = new_output(x, {rows}, ScalarType::Float);
  if (rows == 0) return {values, scale};
  const Tensor x_in = as_contiguous(x);
  Fp8Rows args{};
  args.rows = rows;
  args.depth = depth;
  args.pitch = padded(depth);
  args.dtype = dtype_of(x);
  args.x = x_in.const_data_ptr();
  args.values = static_cast<E4m3*>(values.mutable_data_ptr());
  args.scale = static_cast<float*>(scale.mutable_data_ptr());
  check_launch(op, fp8_rows_cuda(args, current_stream(x)));
  return {values, scale};
}

// x [T,K] -> values [T,P] e4m3, scale [T] float32.
std::tuple<Tensor, Tensor> rows(const Tensor& x) {
  const Checks check("fp8_rows");
  check_rows(check, x);
  const OnDeviceOf guard(x);
  check_gpu(check, x);
  return round_rows("fp8_rows", x);
}

// x [T,K], weight [R,P] e4m3, scale [R] float32, bias [R] float32 -> out [T,F] in x's dtype.
Tensor forward(const Tensor& x, const Tensor& weight, const Tensor& scale, const OptionalTensor& bias,
               std::string activation_name) {
  const Checks check("fp8_linear");
  const Activation activation = activation_of(check, activation_name);
  check_rows(check, x);
  const std::int64_t tokens = x.sizes()[0], pitch = padded(x.sizes()[1]);
  check.dtype("scale", scale, {ScalarType::Float}, "Pass what quantize_weight_fp8 gave");
  check.dimensions("scale", scale, 1, "[R]");
  check.same_device("scale", scale, "x", x);
  const std::int64_t columns = scale.sizes()[0];
  if (columns < 1 || (is_gated(activation) && columns % 2 != 0)) {
    check.fail("scale has shape " + shape_text(scale.sizes()) +
               "; accepted: [R], not empty, R even for a gated activation. Check the model's sizes");
  }
  check.dtype("weight", weight, {ScalarType::Float8_e4m3fn}, "Pass what quantize_weight_fp8 gave");
  check.same_device("weight", weight, "x", x);
  check.shape("weight", weight, {columns, pitch}, "[R, P] with scale's R and x's K rounded up to 16");
  check_sizes(check, "weight", weight);
  if (bias) {
    check.dtype("bias", *bias, {ScalarType::Float}, "Convert it to float32");
    check.same_device("bias", *bias, "x", x);
    check.shape("bias", *bias, {columns}, "the R of scale");
  }
  const OnDeviceOf guard(x);
  check_gpu(check, x);
  Tensor out = new_output(x, {tokens, is_gated(activation) ? columns / 2 : columns}, x.scalar_type());
  if (tokens == 0) return out;

  const auto [values, x_scale] = round_rows("fp8_linear", x);
  const Tensor weight_in = as_packs(weight), scale_in = as_contiguous(scale);
  const OptionalTensor bias_in = as_contiguous(bias);
  Fp8Linear args{};
  args.rows = tokens;
  args.pitch = pitch;
  args.columns = columns;
  args.dtype = dtype_of(x);
  args.activation = activation;
  args.x = static_cast<const E4m3*>(values.const_data_ptr());
  args.x_scale = static_cast<const float*>(x_scale.const_data_ptr());
  args.weight = static_cast<const E4m3*>(weight_in.const_data_ptr());
  args.weight_scale = static_cast<const float*>(scale_in.const_data_ptr());
  args.bias = static_cast<const float*>(data_of(bias_in));
  args.out = out.mutable_data_ptr();
  check_launch("fp8_linear", fp8_linear_cuda(args, current_stream(x)));
  return out;
}

}  // namespace

SENTCORE_CUDA_OPS(m) {
  m.impl("fp8_rows", TORCH_BOX(&rows));
  m.impl("fp8_linear", TORCH_BOX(&forward));
}

}  // namespace sentcore
#endif
