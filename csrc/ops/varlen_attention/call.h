// The arguments that varlen_attention and its backward have in common: their checks, and their way to the kernels.
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "common/checks.h"
#include "common/philox.cuh"
#include "ops/varlen_attention/varlen_attention.h"

namespace sentcore {
namespace attention {

using OptionalTensor = std::optional<Tensor>;

// The two devices an entry is compiled for.
struct Cpu {
  static constexpr bool kIsCpu = true;
};
struct Cuda {
  static constexpr bool kIsCpu = false;
};

// ---- checks ----

// The options and what they come with; also what both entries have in common.
struct Call {
  const Tensor& q;
  const OptionalTensor& kv;
  const Tensor& cu_seqlens_q;
  const Tensor& cu_seqlens_k;
  std::int64_t max_seqlen_q;
  std::int64_t max_seqlen_k;
  std::optional<double> scale;
  const OptionalTensor& bias;
  const OptionalTensor& alibi_slopes;
  std::int64_t window_left;
  std::int64_t window_right;
  bool causal;
  double dropout_p;
  const OptionalTensor& seed;

  const char* q_name() const { return kv ? "q" : "qkv"; }
  std::int64_t tokens_q() const { return q.sizes()[0]; }
  std::int64_t tokens_k() const { return kv ? kv->sizes()[0] : tokens_q(); }
  std::int64_t heads() const { return q.sizes()[q.dim() - 2]; }
  std::int64_t size() const { return q.sizes()[q.dim() - 1]; }
  std::int64_t sentences() const { return cu_seqlens_q.sizes()[0] - 1; }
};

constexpr std::int64_t kMaxInt = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kMaxTokens = kMaxInt / 2;  // positions and their differences are int32
constexpr std::int64_t kMaxHeads = 65535;         // the grid's second dimension

template <typename Device>
void check_q_and_kv(const Checks& check, const Call& call) {
  if (Device::kIsCpu) {
    check.dtype(call.q_name(), call.q, {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half, ScalarType::Double},
                "Convert it, e.g. with .float()");
  } else {
    check.dtype(call.q_name(), call.q, {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half},
                "Convert it, e.g. with .float(); float64 runs on the CPU alone");
  }
  if (!call.kv) {
    check.dimensions("qkv", call.q, 4, "[T, 3, N, D]");
    if (call.q.sizes()[1] != 3) {
      check.fail("qkv has shape " + shape_text(call.q.sizes()) +
                 "; accepted: [T, 3, N, D], queries, keys and values of every token. Stack them along dimension 1");
    }
  } else {
    check.dimensions("q", call.q, 3, "[Tq, N, D]");
    check.same_device("kv", *call.kv, "q", call.q);
    check.dtype("kv", *call.kv, {call.q.scalar_type()}, "Convert it to the dtype of q");
    check.dimensions("kv", *call.kv, 4, "[Tk, 2, N, D]");
    check.shape("kv", *call.kv, {call.kv->sizes()[0], 2, call.heads(), call.size()}, "[Tk, 2, N, D] with q's N and D");
  }
  const std::string found = std::string(call.q_name()) + " has shape " + shape_text(call.q.sizes());
  if (call.size() < 1 || call.heads() < 1) {
    check.fail(found + "; accepted: at least one head of at least one column. Check the order of the dimensions");
  }
  if (!Device::kIsCpu && call.size() > kMaxHeadSize) {
    check.fail(found + "; accepted: a head size D of 1 to " + std::to_string(kMaxHeadSize) +
               " on CUDA. Use another number of heads, or the plain backend");
  }
  if (!Device::kIsCpu && call.heads() > kMaxHeads) {
    check.fail(found + "; accepted: 1 to " + std::to_string(kMaxHeads) + " heads. Check the order of the dimensions");
  }
  if (call.tokens_q() > kMaxTokens || call.tokens_k() > kMaxTokens) {
    check.fail(found + "; accepted: at most " + std::to_string(kMaxTokens) + " tokens. Split the batch");
  }
}

inline void check_lengths(const Checks& check, const Call& call) {
  const auto check_one = [&](const char* name, const Tensor& cu, const char* max_name, std::int64_t longest) {
    check.same_device(name, cu, call.q_name(), call.q);
    check.dtype(name, cu, {ScalarType::Int}, "Convert it with .int()");
    check.dimensions(name, cu, 1, "[B+1]");
    if (cu.sizes()[0] < 1) check.fail(std::string(name) + " is empty; accepted: [B+1] lengths that begin with 0");
    if (longest < 0 || longest > kMaxTokens) {
      check.fail(std::string(max_name) + " is " + std::to_string(longest) +
                 "; accepted: the longest sentence's length. Take it from the packed batch");
    }
  };
  check_one("cu_seqlens_q", call.cu_seqlens_q, "max_seqlen_q", call.max_seqlen_q);
  check_one("cu_seqlens_k", call.cu_seqlens_k, "max_seqlen_k", call.max_seqlen_k);
  check.shape("cu_seqlens_k", call.cu_seqlens_k, {call.cu_seqlens_q.sizes()[0]}, "the shape of cu_seqlens_q");
}

inline void check_options(const Checks& check, const Call& call) {
  if (call.bias) {
    const Tensor& bias = *call.bias;
    check.same_device("bias", bias, call.q_name(), call.q);
    check.dtype("bias", bias, {call.q.scalar_type(), ScalarType::Float}, "Convert it to the dtype of q or to float32");
    check.dimensions("bias", bias, 3, "[N, Sq, Sk]");
    const auto sizes = bias.sizes();
    if (sizes[0] != call.heads() || sizes[1] < call.max_seqlen_q || sizes[2] < call.max_seqlen_k ||
        sizes[1] > kMaxTokens || sizes[2] > kMaxTokens) {
      check.fail("bias has shape " + shape_text(sizes) + "; accepted: [" + std::to_string(call.heads()) +
                 ", at least " + std::to_string(call.max_seqlen_q) + ", at least " + std::to_string(call.max_seqlen_k) +
                 "], one score for every pair of positions. Make it larger");
    }
  }
  if (call.alibi_slopes) {
    check.same_device("alibi_slopes", *call.alibi_slopes, call.q_name(), call.q);
    check.dtype("alibi_slopes", *call.alibi_slopes, {ScalarType::Float}, "Convert it with .float()");
    check.shape("alibi_slopes", *call.alibi_slopes, {call.heads()}, "[N], one slope a head");
  }
  if (call.window_left < -1 || call.window_right < -1) {
    check.fail("window is (" + std::to_string(call.window_left) + ", " + std::to_string(call.window_right) +
               "); accepted: (left, right) of at least 0, or -1 for all keys on that side. Use -1 to switch it off");
  }
  if (call.scale && !std::isfinite(*call.scale)) {
    check.fail("scale is " + std::to_string(*call.scale) + "; accepted: a finite factor. Use None for 1 / sqrt(D)");
  }
  check.dropout(call.dropout_p, call.seed, call.q_name(), call.q);
}

// What only a CPU can look at without waiting: the lengths themselves, which the kernels rely on.
inline void check_length_values(const Checks& check, const Call& call) {
  const auto check_one = [&](const char* name, const Tensor& lengths, std::int64_t tokens, std::int64_t longest) {
    const Tensor whole = as_contiguous(lengths);
    const auto* cu = static_cast<const std::int32_t*>(whole.const_data_ptr());
    const std::int64_t count = lengths.sizes()[0];
    bool good = cu[0] == 0 && cu[count - 1] == tokens;
    for (std::int64_t i = 1; i < count && good; ++i) good = cu[i] >= cu[i - 1] && cu[i] - cu[i - 1] <= longest;
    if (good) return;
    std::string values;
    for (std::int64_t i = 0; i < std::min<std::int64_t>(count, 8); ++i)
      values += (i ? ", " : "") + std::to_string(cu[i]);
    check.fail(std::string(name) + " is [" + values + (count > 8 ? ", ..." : "") +
               "]; accepted: lengths summed up from 0 to the " + std::to_string(tokens) +
               " tokens, no sentence longer than the given maximum of " + std::to_string(longest) +
               ". Take both from one packed batch");
  };
  check_one("cu_seqlens_q", call.cu_seqlens_q, call.tokens_q(), call.max_seqlen_q);
  check_one("cu_seqlens_k", call.cu_seqlens_k, call.tokens_k(), call.max_seqlen_k);
}

template <typename Device>
void check_call(const Checks& check, const Call& call) {
  check_q_and_kv<Device>(check, call);
  check_lengths(check, call);
  if (Device::kIsCpu) check_length_values(check, call);
  check_options(check, call);
}

// ---- what the kernels are given ----

// Holds what was copied until the kernels have been launched: it is freed in stream order after them.
struct Inputs {
  Tensor q;
  OptionalTensor kv;
  Tensor cu_seqlens_q;
  Tensor cu_seqlens_k;
  OptionalTensor alibi_slopes;
  OptionalTensor seed;

  explicit Inputs(const Call& call)
      : q(as_packs(call.q)),
        kv(call.kv ? OptionalTensor(as_packs(*call.kv)) : std::nullopt),
        cu_seqlens_q(as_contiguous(call.cu_seqlens_q)),
        cu_seqlens_k(as_contiguous(call.cu_seqlens_k)),
        alibi_slopes(as_contiguous(call.alibi_slopes)),
        seed(as_contiguous(call.seed)) {}
};

// Where queries, keys and values lie in q [Tq, N, D] and kv [Tk, 2, N, D], or in qkv [T, 3, N, D] without kv.
template <typename Pointer>
struct Places {
  Pointer q;
  Pointer k;
  Pointer v;
};

template <typename Pointer>  // const char*, or char*
Places<Pointer> places(Pointer q, Pointer kv, bool cross, std::int64_t bytes_of_row) {
  if (cross) return {q, kv, kv + bytes_of_row};
  return {q, q + bytes_of_row, q + 2 * bytes_of_row};
}

inline std::int64_t bytes_of_row(const Call& call) {
  const ScalarType dtype = call.q.scalar_type();
  return call.heads() * call.size() * (dtype == ScalarType::Double ? 8 : dtype == ScalarType::Float ? 4 : 2);
}

inline int clamped(std::int64_t window) { return static_cast<int>(std::min(window, kMaxTokens)); }

inline VarlenAttention given_of(const Call& call, const Inputs& inputs) {
  const std::int64_t row = call.heads() * call.size();
  VarlenAttention given{};
  given.sentences = call.sentences();
  given.tokens_q = call.tokens_q();
  given.tokens_k = call.tokens_k();
  given.heads = static_cast<int>(call.heads());
  given.size = static_cast<int>(call.size());
  // No sentence can be longer than the batch, and less shared memory may do.
  given.max_seqlen_q = static_cast<int>(std::min(call.max_seqlen_q, call.tokens_q()));
  given.max_seqlen_k = static_cast<int>(std::min(call.max_seqlen_k, call.tokens_k()));
  given.dropout_columns = ceil_div<std::int64_t>(call.max_seqlen_k, 4) * 4;
  given.dtype = dtype_of(call.q);
  given.exact_scale = call.scale.value_or(1.0 / std::sqrt(static_cast<double>(call.size())));
  given.scale = static_cast<float>(given.exact_scale);
  given.window_left = clamped(call.window_left);
  given.window_right = call.causal ? 0 : clamped(call.window_right);
  const auto at = places(static_cast<const char*>(inputs.q.const_data_ptr()),
                         static_cast<const char*>(data_of(inputs.kv)), call.kv.has_value(), bytes_of_row(call));
  given.q = at.q;
  given.k = at.k;
  given.v = at.v;
  given.q_stride = call.kv ? row : 3 * row;
  given.kv_stride = call.kv ? 2 * row : 3 * row;
  given.cu_seqlens_q = static_cast<const std::int32_t*>(inputs.cu_seqlens_q.const_data_ptr());
  given.cu_seqlens_k = static_cast<const std::int32_t*>(inputs.cu_seqlens_k.const_data_ptr());
  if (call.bias) {
    given.bias = call.bias->const_data_ptr();
    given.bias_is_float32 = call.bias->scalar_type() == ScalarType::Float;
    for (int i = 0; i < 3; ++i) given.bias_strides[i] = call.bias->strides()[i];
  }
  given.alibi_slopes = static_cast<const float*>(data_of(inputs.alibi_slopes));
  if (call.dropout_p > 0.0) given.seed = static_cast<const std::int64_t*>(data_of(inputs.seed));
  given.dropout_threshold = dropout_threshold(call.dropout_p);
  given.exact_keep_scale = 1.0 / (1.0 - call.dropout_p);
  given.keep_scale = static_cast<float>(given.exact_keep_scale);
  return given;
}

}  // namespace attention
}  // namespace sentcore
