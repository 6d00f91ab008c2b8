// add_layer_norm and add_layer_norm_backward as torch calls them: checks, outputs, and the kernel of the device.
// The schemas are in sentcore/ops/add_layer_norm/register.py.

#include "ops/add_layer_norm/add_layer_norm.h"

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
  static std::int64_t groups(std::int64_t rows) { return add_layer_norm_groups_cpu(rows); }
  static void run(const AddLayerNormForward& args, const Tensor&) { add_layer_norm_forward_cpu(args); }
  static void run(const AddLayerNormBackward& args, const Tensor&) { add_layer_norm_backward_cpu(args); }
};
#endif

#ifdef SENTCORE_WITH_CUDA
struct Cuda {
  static constexpr bool kHasFloat64 = false;
  static std::int64_t groups(std::int64_t rows) { return add_layer_norm_groups_cuda(rows); }
  static void run(const AddLayerNormForward& args, const Tensor& x) {
    const OnDeviceOf guard(x);
    check_launch("add_layer_norm", add_layer_norm_forward_cuda(args, current_stream(x)));
  }
  static void run(const AddLayerNormBackward& args, const Tensor& x) {
    const OnDeviceOf guard(x);
    check_launch("add_layer_norm_backward", add_layer_norm_backward_cuda(args, current_stream(x)));
  }
};
#endif

// ---- checks shared by forward and backward ----

template <typename Device>
void check_input(const Checks& check, const char* name, const Tensor& tensor) {
  if (Device::kHasFloat64) {
    check.dtype(name, tensor, {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half, ScalarType::Double},
                "Convert it, e.g. with .float()");
  } else {
    check.dtype(name, tensor, {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half},
                "Convert it, e.g. with .float(); float64 runs on the CPU alone");
  }
  check.dimensions(name, tensor, 2, "[T, H]");
  check.has_columns(name, tensor, "[T, H]");
}

void check_like(const Checks& check, const char* name, const Tensor& tensor, const char* input_name,
                const Tensor& input) {
  check.same_device(name, tensor, input_name, input);
  check.dtype(name, tensor, {input.scalar_type()}, "Convert it to the dtype of the input");
  check.shape(name, tensor, {input.sizes()[0], input.sizes()[1]}, "the shape of the input");
}

// weight decides: the same dtype as the input, or float32 beside a half-precision one.
void check_weight(const Checks& check, const Tensor& weight, const char* input_name, const Tensor& input) {
  check.same_device("weight", weight, input_name, input);
  const ScalarType dtype = input.scalar_type();
  const bool half = dtype == ScalarType::BFloat16 || dtype == ScalarType::Half;
  if (half) {
    check.dtype("weight", weight, {dtype, ScalarType::Float}, "Convert it to the dtype of the input or to float32");
  } else {
    check.dtype("weight", weight, {dtype}, "Convert it to the dtype of the input");
  }
  check.shape("weight", weight, {input.sizes()[1]}, "[H], the last dimension of the input");
}

void check_bias(const Checks& check, const char* name, const OptionalTensor& bias, const Tensor& weight) {
  if (!bias) return;
  check.same_device(name, *bias, "weight", weight);
  check.dtype(name, *bias, {weight.scalar_type()}, "Convert it to the dtype of weight");
  check.shape(name, *bias, {weight.sizes()[0]}, "the shape of weight");
}

ScalarType stat_dtype(const Tensor& input) {
  return input.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

const std::int64_t* seed_of(const OptionalTensor& seed) { return static_cast<const std::int64_t*>(data_of(seed)); }

// ---- forward ----

// x [T,H], residual [T,H], weight [H], norm_bias [H], x_bias [H], seed [2] int64
// -> out [T,H], total [T,H], mean [T], rstd [T]; the last three without rows unless save_for_backward.
template <typename Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> forward(const Tensor& x, const OptionalTensor& residual,
                                                   const Tensor& weight, const OptionalTensor& norm_bias,
                                                   const OptionalTensor& x_bias, double dropout_p,
                                                   const OptionalTensor& seed, double eps, bool save_for_backward) {
  const Checks check("add_layer_norm");
  check_input<Device>(check, "x", x);
  if (residual) check_like(check, "residual", *residual, "x", x);
  check_weight(check, weight, "x", x);
  check_bias(check, "norm_bias", norm_bias, weight);
  check_bias(check, "x_bias", x_bias, weight);
  check.dropout(dropout_p, seed, "x", x);

  const std::int64_t rows = x.sizes()[0];
  const std::int64_t hidden = x.sizes()[1];
  const std::int64_t saved_rows = save_for_backward ? rows : 0;
  Tensor out = new_output(x, {rows, hidden}, x.scalar_type());
  Tensor total = new_output(x, {saved_rows, hidden}, x.scalar_type());
  Tensor mean = new_output(x, {saved_rows}, stat_dtype(x));
  Tensor rstd = new_output(x, {saved_rows}, stat_dtype(x));
  if (rows == 0) return {out, total, mean, rstd};

  // Held until the kernel has been launched: a copy made here is freed in stream order after it.
  const Tensor x_in = as_contiguous(x), weight_in = as_contiguous(weight);
  const OptionalTensor residual_in = as_contiguous(residual), norm_bias_in = as_contiguous(norm_bias);
  const OptionalTensor x_bias_in = as_contiguous(x_bias), seed_in = as_contiguous(seed);
  AddLayerNormForward args{};
  args.rows = rows;
  args.hidden = hidden;
  args.dtype = dtype_of(x);
  args.weight_dtype = dtype_of(weight);
  args.dropout_p = dropout_p;
  args.eps = eps;
  args.x = x_in.const_data_ptr();
  args.residual = data_of(residual_in);
  args.weight = weight_in.const_data_ptr();
  args.norm_bias = data_of(norm_bias_in);
  args.x_bias = data_of(x_bias_in);
  args.seed = dropout_p > 0.0 ? seed_of(seed_in) : nullptr;
  args.out = out.mutable_data_ptr();
  if (save_for_backward) {
    args.total = total.mutable_data_ptr();
    args.mean = mean.mutable_data_ptr();
    args.rstd = rstd.mutable_data_ptr();
  }
  Device::run(args, x);
  return {out, total, mean, rstd};
}

// ---- backward ----

// grad_out [T,H], grad_total [T,H], total [T,H], mean [T], rstd [T], weight [H], seed [2] int64
// -> grad_x [T,H] ([0,H] without dropout), grad_residual [T,H], grad_weight [H], grad_norm_bias [H], grad_x_bias [H]
//    (the last two [0] where the forward had no such bias).
template <typename Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad_out, const OptionalTensor& grad_total,
                                                            const Tensor& total, const Tensor& mean, const Tensor& rstd,
                                                            const Tensor& weight, bool has_norm_bias, bool has_x_bias,
                                                            double dropout_p, const OptionalTensor& seed) {
  const Checks check("add_layer_norm_backward");
  check_input<Device>(check, "total", total);
  check_like(check, "grad_out", grad_out, "total", total);
  if (grad_total) check_like(check, "grad_total", *grad_total, "total", total);
  const std::int64_t rows = total.sizes()[0];
  const std::int64_t hidden = total.sizes()[1];
  const auto check_stat = [&](const char* name, const Tensor& stat) {
    check.same_device(name, stat, "total", total);
    check.dtype(name, stat, {stat_dtype(total)}, "Pass what the forward saved");
    check.shape(name, stat, {rows}, "[T], the first dimension of total");
  };
  check_stat("mean", mean);
  check_stat("rstd", rstd);
  check_weight(check, weight, "total", total);
  check.dropout(dropout_p, seed, "total", total);

  const bool dropped = dropout_p > 0.0;
  Tensor grad_x = new_output(total, {dropped ? rows : 0, hidden}, total.scalar_type());
  Tensor grad_residual = new_output(total, {rows, hidden}, total.scalar_type());
  Tensor grad_weight = new_output(total, {hidden}, weight.scalar_type());
  Tensor grad_norm_bias = new_output(total, {has_norm_bias ? hidden : 0}, weight.scalar_type());
  Tensor grad_x_bias = new_output(total, {has_x_bias ? hidden : 0}, weight.scalar_type());
  const std::int64_t groups = Device::groups(rows);
  const Tensor partial = new_output(total, {3, groups, hidden}, stat_dtype(total));

  const Tensor grad_out_in = as_contiguous(grad_out), total_in = as_contiguous(total);
  const Tensor mean_in = as_contiguous(mean), rstd_in = as_contiguous(rstd), weight_in = as_contiguous(weight);
  const OptionalTensor grad_total_in = as_contiguous(grad_total), seed_in = as_contiguous(seed);
  AddLayerNormBackward args{};
  args.rows = rows;
  args.hidden = hidden;
  args.groups = groups;
  args.dtype = dtype_of(total);
  args.weight_dtype = dtype_of(weight);
  args.dropout_p = dropout_p;
  args.grad_out = grad_out_in.const_data_ptr();
  args.grad_total = data_of(grad_total_in);
  args.total = total_in.const_data_ptr();
  args.mean = mean_in.const_data_ptr();
  args.rstd = rstd_in.const_data_ptr();
  args.weight = weight_in.const_data_ptr();
  args.seed = dropped ? seed_of(seed_in) : nullptr;
  args.grad_x = dropped ? grad_x.mutable_data_ptr() : nullptr;
  args.grad_residual = grad_residual.mutable_data_ptr();
  args.grad_weight = grad_weight.mutable_data_ptr();
  args.grad_norm_bias = has_norm_bias ? grad_norm_bias.mutable_data_ptr() : nullptr;
  args.grad_x_bias = has_x_bias ? grad_x_bias.mutable_data_ptr() : nullptr;
  args.partial = partial.mutable_data_ptr();
  Device::run(args, total);
  return {grad_x, grad_residual, grad_weight, grad_norm_bias, grad_x_bias};
}

}  // namespace

#ifdef SENTCORE_CPU_OPS
SENTCORE_CPU_OPS(m) {
  m.impl("add_layer_norm", TORCH_BOX(&forward<Cpu>));
  m.impl("add_layer_norm_backward", TORCH_BOX(&backward<Cpu>));
}
#endif

#ifdef SENTCORE_WITH_CUDA
SENTCORE_CUDA_OPS(m) {
  m.impl("add_layer_norm", TORCH_BOX(&forward<Cuda>));
  m.impl("add_layer_norm_backward", TORCH_BOX(&backward<Cuda>));
}
#endif

}  // namespace sentcore
