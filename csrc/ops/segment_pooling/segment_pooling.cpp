// segment_pooling and its backward as torch calls them: checks, outputs, and the kernels on CUDA. The schemas are in
// sentcore/ops/segment_pooling/register.py.

#include "ops/segment_pooling/segment_pooling.h"

#include <string>
#include <tuple>

#include "common/checks.h"
#include "common/register.h"
#ifdef SENTCORE_WITH_CUDA
#include "common/stream.h"

namespace sentcore {
namespace {

PoolingMode mode_of(const Checks& check, const std::string& name) {
  if (name == "cls") return PoolingMode::cls;
  if (name == "max") return PoolingMode::max;
  if (name == "mean") return PoolingMode::mean;
  if (name == "mean_sqrt_len_tokens") return PoolingMode::mean_sqrt_len_tokens;
  if (name == "weightedmean") return PoolingMode::weightedmean;
  if (name == "lasttoken") return PoolingMode::lasttoken;
  check.fail("mode is '" + name +
             "'; accepted: cls, max, mean, mean_sqrt_len_tokens, weightedmean, lasttoken. Choose one of these");
}

// The tensors are contiguous and outlive the launch; out and norm are filled in by the caller.
SegmentPooling given_of(const Checks& check, const Tensor& x, const Tensor& cu_seqlens, const std::string& mode,
                        std::int64_t skip, bool normalize) {
  check.dtype("x", x, {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half},
              "Convert it, e.g. with .float(); float64 runs on the CPU alone");
  check.dimensions("x", x, 2, "[T, H]");
  check.same_device("cu_seqlens", cu_seqlens, "x", x);
  check.dtype("cu_seqlens", cu_seqlens, {ScalarType::Int}, "Convert it with .int()");
  check.dimensions("cu_seqlens", cu_seqlens, 1, "[B+1]");
  if (cu_seqlens.sizes()[0] < 1) check.fail("cu_seqlens is empty; accepted: [B+1] lengths that begin with 0");
  if (skip < 0) check.fail("skip is " + std::to_string(skip) + "; accepted: at least 0. Use 0 to leave nothing out");
  SegmentPooling given{};
  given.sentences = cu_seqlens.sizes()[0] - 1;
  given.hidden = x.sizes()[1];
  given.dtype = dtype_of(x);
  given.mode = mode_of(check, mode);
  given.skip = skip;
  given.normalize = normalize;
  return given;
}

// x [T,H], cu_seqlens [B+1] int32 -> out [B,H] float32, norm [B] float32 ([0] unless normalize).
std::tuple<Tensor, Tensor> forward(const Tensor& x, const Tensor& cu_seqlens, std::string mode, std::int64_t skip,
                                   bool normalize) {
  const Checks check("segment_pooling");
  SegmentPooling args = given_of(check, x, cu_seqlens, mode, skip, normalize);
  Tensor out = new_output(x, {args.sentences, args.hidden}, ScalarType::Float);
  Tensor norm = new_output(x, {normalize ? args.sentences : 0}, ScalarType::Float);
  const Tensor x_in = as_contiguous(x), cu_in = as_contiguous(cu_seqlens);
  args.x = x_in.const_data_ptr();
  args.cu_seqlens = static_cast<const std::int32_t*>(cu_in.const_data_ptr());
  args.out = static_cast<float*>(out.mutable_data_ptr());
  if (normalize) args.norm = static_cast<float*>(norm.mutable_data_ptr());
  const OnDeviceOf guard(x);
  check_launch("segment_pooling", segment_pooling_cuda(args, current_stream(x)));
  return {out, norm};
}

// grad_out [B,H] float32, x [T,H], cu_seqlens [B+1] int32, out and norm as the forward gave them -> grad_x [T,H].
Tensor backward(const Tensor& grad_out, const Tensor& x, const Tensor& cu_seqlens, const Tensor& out,
                const Tensor& norm, std::string mode, std::int64_t skip, bool normalize) {
  const Checks check("segment_pooling_backward");
  SegmentPoolingBackward args{};
  args.given = given_of(check, x, cu_seqlens, mode, skip, normalize);
  const std::int64_t sentences = args.given.sentences, hidden = args.given.hidden;
  const auto check_rows = [&](const char* name, const Tensor& tensor) {
    check.same_device(name, tensor, "x", x);
    check.dtype(name, tensor, {ScalarType::Float}, "Convert it with .float()");
    check.shape(name, tensor, {sentences, hidden}, "[B, H]");
  };
  check_rows("grad_out", grad_out);
  check_rows("out", out);
  if (normalize) {
    check.dtype("norm", norm, {ScalarType::Float}, "Pass what the forward gave");
    check.shape("norm", norm, {sentences}, "what the forward gave");
  }
  Tensor grad_x = new_output(x, {x.sizes()[0], hidden}, x.scalar_type());
  const Tensor grad_out_in = as_contiguous(grad_out), x_in = as_contiguous(x), cu_in = as_contiguous(cu_seqlens);
  const Tensor out_in = as_contiguous(out), norm_in = as_contiguous(norm);
  args.given.x = x_in.const_data_ptr();
  args.given.cu_seqlens = static_cast<const std::int32_t*>(cu_in.const_data_ptr());
  args.given.out = static_cast<float*>(const_cast<void*>(out_in.const_data_ptr()));  // read only
  if (normalize) args.given.norm = static_cast<float*>(const_cast<void*>(norm_in.const_data_ptr()));
  args.grad_out = static_cast<const float*>(grad_out_in.const_data_ptr());
  args.grad_x = grad_x.mutable_data_ptr();
  const OnDeviceOf guard(x);
  check_launch("segment_pooling_backward", segment_pooling_backward_cuda(args, current_stream(x)));
  return grad_x;
}

}  // namespace

SENTCORE_CUDA_OPS(m) {
  m.impl("segment_pooling", TORCH_BOX(&forward));
  m.impl("segment_pooling_backward", TORCH_BOX(&backward));
}

}  // namespace sentcore
#endif
