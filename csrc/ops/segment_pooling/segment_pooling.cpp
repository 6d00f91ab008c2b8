// segment_pooling, its backward and segment_pooling_quantized as torch calls them: checks, outputs, and the kernel of
// the device. The schemas are in sentcore/ops/segment_pooling/register.py.

#include "ops/segment_pooling/segment_pooling.h"

#include <string>
#include <tuple>

#include "common/checks.h"
#include "common/register.h"
#ifdef SENTCORE_WITH_CUDA
#include "common/stream.h"
#endif

namespace sentcore {
namespace {

// ---- the two devices ----

#ifdef SENTCORE_CPU_OPS
struct Cpu {
  static constexpr bool kHasFloat64 = true, kReadsLengths = true;
  static void run(const SegmentPooling& args, const Tensor&) { segment_pooling_cpu(args); }
  static void run(const SegmentPoolingBackward& args, const Tensor&) { segment_pooling_backward_cpu(args); }
};
#endif

#ifdef SENTCORE_WITH_CUDA
struct Cuda {
  static constexpr bool kHasFloat64 = false, kReadsLengths = false;  // it would wait for the device
  static void run(const SegmentPooling& args, const Tensor& x) {
    const OnDeviceOf guard(x);
    check_launch("segment_pooling", segment_pooling_cuda(args, current_stream(x)));
  }
  static void run(const SegmentPoolingBackward& args, const Tensor& x) {
    const OnDeviceOf guard(x);
    check_launch("segment_pooling_backward", segment_pooling_backward_cuda(args, current_stream(x)));
  }
  static void run(const SegmentPoolingQuantized& args, const Tensor& x) {
    const OnDeviceOf guard(x);
    check_launch("segment_pooling_quantized", segment_pooling_quantized_cuda(args, current_stream(x)));
  }
};
#endif

// ---- checks ----

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

#ifdef SENTCORE_WITH_CUDA
RowPrecision precision_of(const Checks& check, const std::string& name) {
  if (name == "float32") return RowPrecision::float32;
  if (name == "int8") return RowPrecision::int8;
  if (name == "uint8") return RowPrecision::uint8;
  if (name == "binary") return RowPrecision::binary;
  if (name == "ubinary") return RowPrecision::ubinary;
  check.fail("precision is '" + name + "'; accepted: float32, int8, uint8, binary, ubinary. Choose one of these");
}
#endif

// The lengths are on the CPU and contiguous.
void check_lengths(const Checks& check, const std::int32_t* cu_seqlens, std::int64_t sentences, std::int64_t tokens) {
  bool rises = cu_seqlens[0] == 0 && cu_seqlens[sentences] == tokens;
  for (std::int64_t i = 0; i < sentences; ++i) rises &= cu_seqlens[i] <= cu_seqlens[i + 1];
  if (rises) return;
  check.fail("cu_seqlens goes from " + std::to_string(cu_seqlens[0]) + " to " + std::to_string(cu_seqlens[sentences]) +
             ", or falls in between; accepted: from 0 to " + std::to_string(tokens) +
             ", the rows of x, without falling. Pass the batch's own");
}

// The tensors are contiguous and outlive the launch; out and norm are filled in by the caller.
template <typename Device>
SegmentPooling given_of(const Checks& check, const Tensor& x, const Tensor& cu_seqlens, const std::string& mode,
                        std::int64_t skip, bool normalize) {
  check.floating<Device>("x", x);
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

// ---- forward and backward ----

// x [T,H], cu_seqlens [B+1] int32 -> out [B,H], norm [B] ([0] unless normalize), both float32 (float64).
template <typename Device>
std::tuple<Tensor, Tensor> forward(const Tensor& x, const Tensor& cu_seqlens, std::string mode, std::int64_t skip,
                                   bool normalize) {
  const Checks check("segment_pooling");
  SegmentPooling args = given_of<Device>(check, x, cu_seqlens, mode, skip, normalize);
  Tensor out = new_output(x, {args.sentences, args.hidden}, sum_dtype(x));
  Tensor norm = new_output(x, {normalize ? args.sentences : 0}, sum_dtype(x));
  const Tensor x_in = as_contiguous(x), cu_in = as_contiguous(cu_seqlens);
  args.x = x_in.const_data_ptr();
  args.cu_seqlens = static_cast<const std::int32_t*>(cu_in.const_data_ptr());
  args.out = out.mutable_data_ptr();
  if (normalize) args.norm = norm.mutable_data_ptr();
  if (Device::kReadsLengths) check_lengths(check, args.cu_seqlens, args.sentences, x.sizes()[0]);
  Device::run(args, x);
  return {out, norm};
}

// grad_out [B,H] float32 (float64), x [T,H], cu_seqlens [B+1] int32, out and norm as the forward gave them -> grad_x
// [T,H].
template <typename Device>
Tensor backward(const Tensor& grad_out, const Tensor& x, const Tensor& cu_seqlens, const Tensor& out,
                const Tensor& norm, std::string mode, std::int64_t skip, bool normalize) {
  const Checks check("segment_pooling_backward");
  SegmentPoolingBackward args{};
  args.given = given_of<Device>(check, x, cu_seqlens, mode, skip, normalize);
  const std::int64_t sentences = args.given.sentences, hidden = args.given.hidden;
  const auto check_rows = [&](const char* name, const Tensor& tensor) {
    check.same_device(name, tensor, "x", x);
    check.dtype(name, tensor, {sum_dtype(x)}, "Convert it to float32, beside a float64 x to float64");
    check.shape(name, tensor, {sentences, hidden}, "[B, H]");
  };
  check_rows("grad_out", grad_out);
  check_rows("out", out);
  if (normalize) {
    check.dtype("norm", norm, {sum_dtype(x)}, "Pass what the forward gave");
    check.shape("norm", norm, {sentences}, "what the forward gave");
  }
  Tensor grad_x = new_output(x, {x.sizes()[0], hidden}, x.scalar_type());
  const Tensor grad_out_in = as_contiguous(grad_out), x_in = as_contiguous(x), cu_in = as_contiguous(cu_seqlens);
  const Tensor out_in = as_contiguous(out), norm_in = as_contiguous(norm);
  args.given.x = x_in.const_data_ptr();
  args.given.cu_seqlens = static_cast<const std::int32_t*>(cu_in.const_data_ptr());
  args.given.out = const_cast<void*>(out_in.const_data_ptr());  // read only
  if (normalize) args.given.norm = const_cast<void*>(norm_in.const_data_ptr());
  args.grad_out = grad_out_in.const_data_ptr();
  args.grad_x = grad_x.mutable_data_ptr();
  if (Device::kReadsLengths) check_lengths(check, args.given.cu_seqlens, sentences, x.sizes()[0]);
  Device::run(args, x);
  return grad_x;
}

#ifdef SENTCORE_WITH_CUDA
// x [T,H], cu_seqlens [B+1] int32, ranges [2,W] float32 for int8 and uint8 -> rows [B,W] float32, int8 or uint8, or
// bits [B,ceil(W/8)] int8 (binary) or uint8 (ubinary); finite [B] bool.
template <typename Device>
std::tuple<Tensor, Tensor> quantized(const Tensor& x, const Tensor& cu_seqlens, std::string mode, std::int64_t skip,
                                     bool normalize_before, std::int64_t width, bool normalize, std::string precision,
                                     std::optional<Tensor> ranges) {
  const Checks check("segment_pooling_quantized");
  SegmentPoolingQuantized args{};
  args.given = given_of<Device>(check, x, cu_seqlens, mode, skip, normalize);
  const std::int64_t sentences = args.given.sentences, hidden = args.given.hidden;
  if (width < 1 || width > hidden) {
    check.fail("width is " + std::to_string(width) + "; accepted: 1 to " + std::to_string(hidden) +
               ", the columns of x. Pass how many of them to keep");
  }
  args.normalize_before = normalize_before;
  args.width = width;
  args.precision = precision_of(check, precision);
  const bool in_steps = args.precision == RowPrecision::int8 || args.precision == RowPrecision::uint8;
  if (in_steps != ranges.has_value()) {
    check.fail(std::string("ranges are ") + (ranges ? "given" : "None") + " with precision '" + precision +
               "'; accepted: [2, W] with int8 and uint8, None with others. Pass calibrated ones, or none");
  }
  if (ranges) {
    check.same_device("ranges", *ranges, "x", x);
    check.dtype("ranges", *ranges, {ScalarType::Float}, "Convert them with .float()");
    check.shape("ranges", *ranges, {2, width}, "least and largest value of each column");
  }
  const bool bits = args.precision == RowPrecision::binary || args.precision == RowPrecision::ubinary;
  const bool is_signed = args.precision == RowPrecision::int8 || args.precision == RowPrecision::binary;
  const ScalarType dtype = args.precision == RowPrecision::float32 ? ScalarType::Float
                           : is_signed                             ? ScalarType::Char
                                                                   : ScalarType::Byte;
  Tensor out = new_output(x, {sentences, bits ? ceil_div<std::int64_t>(width, 8) : width}, dtype);
  Tensor finite = new_output(x, {sentences}, ScalarType::Bool);
  const std::int64_t pooled = pooled_columns(args);
  Tensor rows = new_output(x, {pooled > kMostColumnsInShared ? sentences : 0, pooled}, ScalarType::Float);
  const Tensor x_in = as_contiguous(x), cu_in = as_contiguous(cu_seqlens);
  const std::optional<Tensor> ranges_in = as_contiguous(ranges);
  args.given.x = x_in.const_data_ptr();
  args.given.cu_seqlens = static_cast<const std::int32_t*>(cu_in.const_data_ptr());
  args.ranges = static_cast<const float*>(data_of(ranges_in));
  args.out = out.mutable_data_ptr();
  args.finite = static_cast<bool*>(finite.mutable_data_ptr());
  if (pooled > kMostColumnsInShared) args.rows = rows.mutable_data_ptr();
  Device::run(args, x);
  return {out, finite};
}
#endif

}  // namespace

#ifdef SENTCORE_CPU_OPS
SENTCORE_CPU_OPS(m) {
  m.impl("segment_pooling", TORCH_BOX(&forward<Cpu>));
  m.impl("segment_pooling_backward", TORCH_BOX(&backward<Cpu>));
}
#endif

#ifdef SENTCORE_WITH_CUDA
SENTCORE_CUDA_OPS(m) {
  m.impl("segment_pooling", TORCH_BOX(&forward<Cuda>));
  m.impl("segment_pooling_backward", TORCH_BOX(&backward<Cuda>));
  m.impl("segment_pooling_quantized", TORCH_BOX(&quantized<Cuda>));
}
#endif

}  // namespace sentcore
