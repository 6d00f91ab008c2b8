// bias_gelu_layer_norm and its backward as torch calls them: checks, outputs, and the kernel of the device. The
// schemas are in sentcore/ops/bias_gelu_layer_norm/register.py.

#include "ops/bias_gelu_layer_norm/bias_gelu_layer_norm.h"

#include <string>
#include <tuple>

#include "common/checks.h"
#include "common/register.h"
#ifdef SENTCORE_WITH_CUDA
#include "common/stream.h"
#endif

namespace sentcore {
namespace {

using OptionalTensor = std::optional<Tensor>;

// ---- the two devices ----

#ifdef SENTCORE_CPU_OPS
struct Cpu {
  static constexpr bool kHasFloat64 = true, kKeepsStats = false;
  static std::int64_t groups(std::int64_t rows) { return bias_gelu_layer_norm_groups_cpu(rows); }
  static void run(const BiasGeluLayerNormForward& args, const Tensor&) { bias_gelu_layer_norm_forward_cpu(args); }
  static void run(const BiasGeluLayerNormBackward& args, const Tensor&) { bias_gelu_layer_norm_backward_cpu(args); }
};
#endif

#ifdef SENTCORE_WITH_CUDA
struct Cuda {
  static constexpr bool kHasFloat64 = false, kKeepsStats = true;
  static std::int64_t groups(std::int64_t rows) { return bias_gelu_layer_norm_groups_cuda(rows); }
  static void run(const BiasGeluLayerNormForward& args, const Tensor& x) {
    const OnDeviceOf guard(x);
    check_launch("bias_gelu_layer_norm", bias_gelu_layer_norm_forward_cuda(args, current_stream(x)));
  }
  static void run(const BiasGeluLayerNormBackward& args, const Tensor& x) {
    const OnDeviceOf guard(x);
    check_launch("bias_gelu_layer_norm_backward", bias_gelu_layer_norm_backward_cuda(args, current_stream(x)));
  }
};
#endif

// ---- checks, forward, backward ----

template <typename Device>
void check_inputs(const Checks& check, const Tensor& x, const OptionalTensor& bias, const Tensor& weight,
                  const OptionalTensor& norm_bias) {
  check.floating<Device>("x", x);
  check.dimensions("x", x, 2, "[T, H]");
  check.has_columns("x", x, "[T, H]");
  check.same_device("weight", weight, "x", x);
  check.dtype("weight", weight, {x.scalar_type(), ScalarType::Float}, "Convert it to the dtype of x or to float32");
  check.shape("weight", weight, {x.sizes()[1]}, "[H], the last dimension of x");
  const auto check_bias = [&](const char* name, const OptionalTensor& value) {
    if (!value) return;
    check.same_device(name, *value, "x", x);
    check.dtype(name, *value, {weight.scalar_type()}, "Convert it to the dtype of weight");
    check.shape(name, *value, {x.sizes()[1]}, "[H], the last dimension of x");
  };
  check_bias("bias", bias);
  check_bias("norm_bias", norm_bias);
}

// x [T,H], bias [H], weight [H], norm_bias [H] -> [T,H].
template <typename Device>
Tensor forward(const Tensor& x, const OptionalTensor& bias, const Tensor& weight, const OptionalTensor& norm_bias,
               double eps) {
  const Checks check("bias_gelu_layer_norm");
  check_inputs<Device>(check, x, bias, weight, norm_bias);
  Tensor out = new_output(x, {x.sizes()[0], x.sizes()[1]}, x.scalar_type());
  const Tensor x_in = as_contiguous(x), weight_in = as_contiguous(weight);
  const OptionalTensor bias_in = as_contiguous(bias), norm_bias_in = as_contiguous(norm_bias);
  BiasGeluLayerNormForward args{};
  args.rows = x.sizes()[0];
  args.hidden = x.sizes()[1];
  args.dtype = dtype_of(x);
  args.weight_dtype = dtype_of(weight);
  args.eps = eps;
  args.x = x_in.const_data_ptr();
  args.bias = data_of(bias_in);
  args.weight = weight_in.const_data_ptr();
  args.norm_bias = data_of(norm_bias_in);
  args.out = out.mutable_data_ptr();
  Device::run(args, x);
  return out;
}

// grad_out [T,H], x [T,H], bias [H], weight [H] -> grad_x [T,H], grad_bias [H], grad_weight [H], grad_norm_bias [H]
// (the biases' [0] where the forward had none).
template <typename Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad_out, const Tensor& x, const OptionalTensor& bias,
                                                    const Tensor& weight, bool has_norm_bias, double eps) {
  const Checks check("bias_gelu_layer_norm_backward");
  check_inputs<Device>(check, x, bias, weight, std::nullopt);
  const std::int64_t rows = x.sizes()[0], hidden = x.sizes()[1];
  check.same_device("grad_out", grad_out, "x", x);
  check.dtype("grad_out", grad_out, {x.scalar_type()}, "Convert it to the dtype of x");
  check.shape("grad_out", grad_out, {rows, hidden}, "the shape of x");
  Tensor grad_x = new_output(x, {rows, hidden}, x.scalar_type());
  Tensor grad_bias = new_output(x, {bias ? hidden : 0}, weight.scalar_type());
  Tensor grad_weight = new_output(x, {hidden}, weight.scalar_type());
  Tensor grad_norm_bias = new_output(x, {has_norm_bias ? hidden : 0}, weight.scalar_type());
  const std::int64_t groups = Device::groups(rows);
  Tensor stats = new_output(x, {Device::kKeepsStats ? rows : 0, 4}, ScalarType::Float);
  Tensor partial = new_output(x, {3, groups, hidden}, sum_dtype(x));
  const Tensor grad_out_in = as_contiguous(grad_out), x_in = as_contiguous(x), weight_in = as_contiguous(weight);
  const OptionalTensor bias_in = as_contiguous(bias);
  BiasGeluLayerNormBackward args{};
  args.rows = rows;
  args.hidden = hidden;
  args.groups = groups;
  args.dtype = dtype_of(x);
  args.weight_dtype = dtype_of(weight);
  args.eps = eps;
  args.grad_out = grad_out_in.const_data_ptr();
  args.x = x_in.const_data_ptr();
  args.bias = data_of(bias_in);
  args.weight = weight_in.const_data_ptr();
  args.grad_x = grad_x.mutable_data_ptr();
  args.grad_bias = bias ? grad_bias.mutable_data_ptr() : nullptr;
  args.grad_weight = grad_weight.mutable_data_ptr();
  args.grad_norm_bias = has_norm_bias ? grad_norm_bias.mutable_data_ptr() : nullptr;
  args.stats = static_cast<float*>(stats.mutable_data_ptr());
  args.partial = partial.mutable_data_ptr();
  Device::run(args, x);
  return {grad_x, grad_bias, grad_weight, grad_norm_bias};
}

}  // namespace

#ifdef SENTCORE_CPU_OPS
SENTCORE_CPU_OPS(m) {
  m.impl("bias_gelu_layer_norm", TORCH_BOX(&forward<Cpu>));
  m.impl("bias_gelu_layer_norm_backward", TORCH_BOX(&backward<Cpu>));
}
#endif

#ifdef SENTCORE_WITH_CUDA
SENTCORE_CUDA_OPS(m) {
  m.impl("bias_gelu_layer_norm", TORCH_BOX(&forward<Cuda>));
  m.impl("bias_gelu_layer_norm_backward", TORCH_BOX(&backward<Cuda>));
}
#endif

}  // namespace sentcore
