// varlen_attention and varlen_attention_backward as torch calls them: checks, outputs, and the kernel of the device.
// The schemas are in sentcore/ops/varlen_attention/register.py.

#include "ops/varlen_attention/varlen_attention.h"

#include <algorithm>
#include <tuple>

#include "common/register.h"
#include "ops/varlen_attention/call.h"
#ifdef SENTCORE_WITH_CUDA
#include "common/stream.h"
#endif

namespace sentcore {
namespace attention {
namespace {

// Scores, their sums and lse are of this type.
ScalarType wide_type(const Tensor& q) {
  return q.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// bias_slices: how many times [N, Sq, Sk] of wide_type the sums of the bias' gradient need beside it.
#ifdef SENTCORE_CPU_OPS
void run(Cpu, const VarlenAttentionForward& args, const Tensor&) { varlen_attention_forward_cpu(args); }
void run(Cpu, const VarlenAttentionBackward& args, const Tensor&) { varlen_attention_backward_cpu(args); }
std::int64_t bias_slices(Cpu, const Call& call) { return call.bias->scalar_type() == wide_type(call.q) ? 0 : 1; }
#endif

#ifdef SENTCORE_WITH_CUDA
void run(Cuda, const VarlenAttentionForward& args, const Tensor& q) {
  const OnDeviceOf guard(q);
  check_launch("varlen_attention", varlen_attention_forward_cuda(args, current_stream(q)));
}
void run(Cuda, const VarlenAttentionBackward& args, const Tensor& q) {
  const OnDeviceOf guard(q);
  check_launch("varlen_attention_backward", varlen_attention_backward_cuda(args, current_stream(q)));
}
std::int64_t bias_slices(Cuda, const Call& call) {
  const auto sizes = call.bias->sizes();
  const std::int64_t groups = varlen_attention_bias_groups_cuda(call.sentences(), call.heads(), sizes[1], sizes[2]);
  return groups > 1 ? groups : 0;
}
#endif

// ---- forward ----

// q [Tq,N,D] and kv [Tk,2,N,D], or qkv [T,3,N,D] and no kv; cu_seqlens_* [B+1] int32; bias [N,Sq,Sk];
// alibi_slopes [N] float32; seed [2] int64 -> out [Tq,N,D], lse [Tq,N] float32 ([0,0] unless save_for_backward; float64
// of a float64 q).
template <typename Device>
std::tuple<Tensor, Tensor> forward(const Tensor& q, const OptionalTensor& kv, const Tensor& cu_seqlens_q,
                                   const Tensor& cu_seqlens_k, std::int64_t max_seqlen_q, std::int64_t max_seqlen_k,
                                   std::optional<double> scale, const OptionalTensor& bias,
                                   const OptionalTensor& alibi_slopes, std::int64_t window_left,
                                   std::int64_t window_right, bool causal, double dropout_p, const OptionalTensor& seed,
                                   bool save_for_backward) {
  const Checks check("varlen_attention");
  const Call call{q,    kv,           cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, scale,
                  bias, alibi_slopes, window_left,  window_right, causal,       dropout_p,    seed};
  check_call<Device>(check, call);

  Tensor out = new_output(q, {call.tokens_q(), call.heads(), call.size()}, q.scalar_type());
  const std::int64_t saved = save_for_backward ? call.tokens_q() : 0;
  Tensor lse = new_output(q, {saved, save_for_backward ? call.heads() : 0}, wide_type(q));
  if (call.tokens_q() == 0) return {out, lse};

  const Inputs inputs(call);
  VarlenAttentionForward args{};
  args.given = given_of(call, inputs);
  args.out = out.mutable_data_ptr();
  if (save_for_backward) args.lse = static_cast<float*>(lse.mutable_data_ptr());
  run(Device{}, args, q);
  return {out, lse};
}

// ---- backward ----

// grad_out [Tq,N,D], out [Tq,N,D], lse [Tq,N] float32 (float64 of a float64 q), the rest as in the forward
// -> grad_q as q (as qkv without kv), grad_kv as kv ([0] without), grad_bias as bias ([0] without).
template <typename Device>
std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_out, const Tensor& q, const OptionalTensor& kv,
                                            const Tensor& out, const Tensor& lse, const Tensor& cu_seqlens_q,
                                            const Tensor& cu_seqlens_k, std::int64_t max_seqlen_q,
                                            std::int64_t max_seqlen_k, std::optional<double> scale,
                                            const OptionalTensor& bias, const OptionalTensor& alibi_slopes,
                                            std::int64_t window_left, std::int64_t window_right, bool causal,
                                            double dropout_p, const OptionalTensor& seed) {
  const Checks check("varlen_attention_backward");
  const Call call{q,    kv,           cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, scale,
                  bias, alibi_slopes, window_left,  window_right, causal,       dropout_p,    seed};
  check_call<Device>(check, call);
  const auto check_rows = [&](const char* name, const Tensor& tensor) {
    check.same_device(name, tensor, call.q_name(), q);
    check.dtype(name, tensor, {q.scalar_type()}, "Convert it to the dtype of q");
    check.shape(name, tensor, {call.tokens_q(), call.heads(), call.size()}, "[Tq, N, D]");
  };
  check_rows("grad_out", grad_out);
  check_rows("out", out);
  check.same_device("lse", lse, call.q_name(), q);
  check.dtype("lse", lse, {wide_type(q)}, "Pass what the forward saved");
  check.shape("lse", lse, {call.tokens_q(), call.heads()}, "[Tq, N]");

  const ScalarType dtype = q.scalar_type();
  const std::int64_t tokens_q = call.tokens_q(), tokens_k = call.tokens_k(), heads = call.heads(), size = call.size();
  Tensor grad_q = kv ? new_output(q, {tokens_q, heads, size}, dtype) : new_output(q, {tokens_q, 3, heads, size}, dtype);
  Tensor grad_kv = kv ? new_output(q, {tokens_k, 2, heads, size}, dtype) : new_output(q, {0}, dtype);
  const std::int64_t bias_rows = bias ? bias->sizes()[1] : 0, bias_columns = bias ? bias->sizes()[2] : 0;
  const std::int64_t bias_elements = heads * bias_rows * bias_columns;
  Tensor grad_bias =
      bias ? new_output(q, {heads, bias_rows, bias_columns}, bias->scalar_type()) : new_output(q, {0}, dtype);
  if (tokens_q == 0 && tokens_k == 0 && bias_elements == 0) return {grad_q, grad_kv, grad_bias};
  const std::int64_t slices = bias_elements > 0 ? bias_slices(Device{}, call) : 0;
  const Tensor delta = new_output(q, {Device::kIsCpu ? 0 : tokens_q, heads}, ScalarType::Float);
  const Tensor partial = new_output(q, {slices * bias_elements}, wide_type(q));

  const Inputs inputs(call);
  const Tensor grad_out_in = as_packs(grad_out), out_in = as_packs(out), lse_in = as_contiguous(lse);
  VarlenAttentionBackward args{};
  args.given = given_of(call, inputs);
  args.grad_out = grad_out_in.const_data_ptr();
  args.out = out_in.const_data_ptr();
  args.lse = static_cast<const float*>(lse_in.const_data_ptr());
  args.delta = static_cast<float*>(delta.mutable_data_ptr());
  const auto at = places(static_cast<char*>(grad_q.mutable_data_ptr()), static_cast<char*>(grad_kv.mutable_data_ptr()),
                         kv.has_value(), bytes_of_row(call));
  args.grad_q = at.q;
  args.grad_k = at.k;
  args.grad_v = at.v;
  if (bias_elements > 0) {
    args.grad_bias = grad_bias.mutable_data_ptr();
    args.bias_rows = static_cast<int>(bias_rows);
    args.bias_columns = static_cast<int>(bias_columns);
    args.bias_groups = static_cast<int>(std::max<std::int64_t>(slices, 1));
    if (slices > 0) args.partial = static_cast<float*>(partial.mutable_data_ptr());
  }
  run(Device{}, args, q);
  return {grad_q, grad_kv, grad_bias};
}

}  // namespace
}  // namespace attention

#ifdef SENTCORE_CPU_OPS
SENTCORE_CPU_OPS(m) {
  m.impl("varlen_attention", TORCH_BOX(&attention::forward<attention::Cpu>));
  m.impl("varlen_attention_backward", TORCH_BOX(&attention::backward<attention::Cpu>));
}
#endif

#ifdef SENTCORE_WITH_CUDA
SENTCORE_CUDA_OPS(m) {
  m.impl("varlen_attention", TORCH_BOX(&attention::forward<attention::Cuda>));
  m.impl("varlen_attention_backward", TORCH_BOX(&attention::backward<attention::Cuda>));
}
#endif

}  // namespace sentcore
