// bias_gelu and bias_gelu_backward as torch calls them: checks, outputs, and the kernel of the device. The schemas are
// in sentcore/ops/bias_gelu/register.py.

#include "ops/bias_gelu/bias_gelu.h"

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
  static constexpr bool kHasFloat64 = true;
  static std::int64_t groups(std::int64_t rows) { return bias_gelu_groups_cpu(rows); }
  static void run(const BiasGeluForward& args, const Tensor&) { bias_gelu_forward_cpu(args); }
  static void run(const BiasGeluBackward& args, const Tensor&) { bias_gelu_backward_cpu(args); }
};
#endif

#ifdef SENTCORE_WITH_CUDA
struct Cuda {
  static constexpr bool kHasFloat64 = false;
  static std::int64_t groups(std::int64_t rows) { return bias_gelu_groups_cuda(rows); }
  static void run(const BiasGeluForward& args, const Tensor& x) {
    const OnDeviceOf guard(x);
    check_launch("bias_gelu", bias_gelu_forward_cuda(args, current_stream(x)));
  }
  static void run(const BiasGeluBackward& args, const Tensor& x) {
    const OnDeviceOf guard(x);
    check_launch("bias_gelu_backward", bias_gelu_backward_cuda(args, current_stream(x)));
  }
};
#endif

// ---- checks, forward, backward ----

template <typename Device>
void check_x_and_bias(const Checks& check, const Tensor& x, const OptionalTensor& bias,
                      const std::string& approximate) {
  check.floating<Device>("x", x);
  check.dimensions("x", x, 2, "[T, F]");
  if (approximate != "none" && approximate != "tanh") {
    check.fail("approximate is '" + approximate + "'; accepted: none (erf) or tanh. Choose one");
  }
  if (!bias) return;
  check.same_device("bias", *bias, "x", x);
  check.dtype("bias", *bias, {x.scalar_type(), ScalarType::Float}, "Convert it to the dtype of x or to float32");
  check.shape("bias", *bias, {x.sizes()[1]}, "[F], the last dimension of x");
}

// x [T,F], bias [F] -> [T,F].
template <typename Device>
Tensor forward(const Tensor& x, const OptionalTensor& bias, std::string approximate) {
  const Checks check("bias_gelu");
  check_x_and_bias<Device>(check, x, bias, approximate);
  Tensor out = new_output(x, {x.sizes()[0], x.sizes()[1]}, x.scalar_type());
  const Tensor x_in = as_contiguous(x);
  const OptionalTensor bias_in = as_contiguous(bias);
  BiasGeluForward args{};
  args.rows = x.sizes()[0];
  args.width = x.sizes()[1];
  args.dtype = dtype_of(x);
  args.bias_dtype = bias ? dtype_of(*bias) : args.dtype;
  args.tanh = approximate == "tanh";
  args.x = x_in.const_data_ptr();
  args.bias = data_of(bias_in);
  args.out = out.mutable_data_ptr();
  Device::run(args, x);
  return out;
}

// grad_out [T,F], x [T,F], bias [F] -> grad_x [T,F], grad_bias [F] ([0] without a bias).
template <typename Device>
std::tuple<Tensor, Tensor> backward(const Tensor& grad_out, const Tensor& x, const OptionalTensor& bias,
                                    std::string approximate) {
  const Checks check("bias_gelu_backward");
  check_x_and_bias<Device>(check, x, bias, approximate);
  const std::int64_t rows = x.sizes()[0], width = x.sizes()[1];
  check.same_device("grad_out", grad_out, "x", x);
  check.dtype("grad_out", grad_out, {x.scalar_type()}, "Convert it to the dtype of x");
  check.shape("grad_out", grad_out, {rows, width}, "the shape of x");
  Tensor grad_x = new_output(x, {rows, width}, x.scalar_type());
  Tensor grad_bias = new_output(x, {bias ? width : 0}, bias ? bias->scalar_type() : x.scalar_type());
  const std::int64_t groups = Device::groups(rows);
  Tensor partial = new_output(x, {bias ? groups : 0, width}, sum_dtype(x));
  if (width == 0) return {grad_x, grad_bias};
  const Tensor grad_out_in = as_contiguous(grad_out), x_in = as_contiguous(x);
  const OptionalTensor bias_in = as_contiguous(bias);
  BiasGeluBackward args{};
  args.rows = rows;
  args.width = width;
  args.groups = groups;
  args.dtype = dtype_of(x);
  args.bias_dtype = bias ? dtype_of(*bias) : args.dtype;
  args.tanh = approximate == "tanh";
  args.grad_out = grad_out_in.const_data_ptr();
  args.x = x_in.const_data_ptr();
  args.bias = data_of(bias_in);
  args.grad_x = grad_x.mutable_data_ptr();
  if (bias) {
    args.grad_bias = grad_bias.mutable_data_ptr();
    args.partial = partial.mutable_data_ptr();
  }
  Device::run(args, x);
  return {grad_x, grad_bias};
}

}  // namespace

#ifdef SENTCORE_CPU_OPS
SENTCORE_CPU_OPS(m) {
  m.impl("bias_gelu", TORCH_BOX(&forward<Cpu>));
  m.impl("bias_gelu_backward", TORCH_BOX(&backward<Cpu>));
}
#endif

#ifdef SENTCORE_WITH_CUDA
SENTCORE_CUDA_OPS(m) {
  m.impl("bias_gelu", TORCH_BOX(&forward<Cuda>));
  m.impl("bias_gelu_backward", TORCH_BOX(&backward<Cuda>));
}
#endif

}  // namespace sentcore
