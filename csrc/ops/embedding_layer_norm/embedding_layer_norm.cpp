// embedding_layer_norm and embedding_gradient as torch calls them: checks, outputs, and the kernel of the
// device. The schemas are in sentcore/ops/embedding_layer_norm/register.py.

#include "ops/embedding_layer_norm/embedding_layer_norm.h"

#include <algorithm>
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
  static constexpr bool kHasFloat64 = true, kReadsIds = true;
  static std::int64_t chunks(std::int64_t) { return 0; }
  static void run(const EmbeddingLayerNorm& args, const Tensor&) { embedding_layer_norm_cpu(args); }
  static void run(const EmbeddingGradient& args, const Tensor&) { embedding_gradient_cpu(args); }
};
#endif

#ifdef SENTCORE_WITH_CUDA
struct Cuda {
  static constexpr bool kHasFloat64 = false, kReadsIds = false;  // it would wait for the device
  static std::int64_t chunks(std::int64_t tokens) { return embedding_chunks(tokens); }
  static void run(const EmbeddingLayerNorm& args, const Tensor& word) {
    const OnDeviceOf guard(word);
    check_launch("embedding_layer_norm", embedding_layer_norm_cuda(args, current_stream(word)));
  }
  static void run(const EmbeddingGradient& args, const Tensor& grad) {
    const OnDeviceOf guard(grad);
    check_launch("embedding_gradient", embedding_gradient_cuda(args, current_stream(grad)));
  }
};
#endif

// ---- checks ----

constexpr std::int64_t kMaxTokens = 65535 * 64;  // the grid's second dimension counts chunks of 64 in the gradient

void check_ids(const Checks& check, const char* name, const Tensor& ids, const Tensor& like, std::int64_t tokens) {
  check.same_device(name, ids, "the table", like);
  check.dtype(name, ids, {ScalarType::Long}, "Convert it with .long()");
  check.shape(name, ids, {tokens}, "[T]");
}

// The ids are on the CPU and contiguous, and rows of `table_name` are read or written by them.
void check_known(const Checks& check, const char* name, const Tensor& ids, const char* table_name, std::int64_t rows) {
  const std::int64_t* values = static_cast<const std::int64_t*>(ids.const_data_ptr());
  const std::int64_t count = ids.sizes()[0];
  bool known = true;
  for (std::int64_t i = 0; i < count; ++i)
    known &= static_cast<std::uint64_t>(values[i]) < static_cast<std::uint64_t>(rows);
  if (known) return;
  const std::int64_t* const unknown =
      std::find_if(values, values + count, [&](std::int64_t id) { return id < 0 || id >= rows; });
  check.fail(std::string(name) + " holds " + std::to_string(*unknown) + "; accepted: 0 to " + std::to_string(rows - 1) +
             ", the rows of " + table_name + ". The ids come from another model's tokenizer");
}

template <typename Device>
void check_float(const Checks& check, const char* name, const Tensor& tensor) {
  check.floating<Device>(name, tensor);
  check.dimensions(name, tensor, 2, "[rows, H]");
}

// ---- forward, and the gradient of a table ----

// token_ids, position_ids, token_type_ids [T] int64, word [V,H], position [P,H], token_type [Y,H], weight, norm_bias
// [H] -> out [T,H], total [T,H], mean [T], rstd [T]; the last three without rows unless save_for_backward.
template <typename Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> forward(const Tensor& token_ids, const OptionalTensor& position_ids,
                                                   const OptionalTensor& token_type_ids, const Tensor& word,
                                                   const OptionalTensor& position, const OptionalTensor& token_type,
                                                   const Tensor& weight, const OptionalTensor& norm_bias, double eps,
                                                   bool save_for_backward) {
  const Checks check("embedding_layer_norm");
  check_float<Device>(check, "word", word);
  check.has_columns("word", word, "[V, H]");
  check.dimensions("token_ids", token_ids, 1, "[T]");
  const std::int64_t tokens = token_ids.sizes()[0], hidden = word.sizes()[1];
  check_ids(check, "token_ids", token_ids, word, tokens);
  const auto check_table = [&](const char* ids_name, const OptionalTensor& ids, const char* name,
                               const OptionalTensor& table) {
    if (ids.has_value() != table.has_value()) {
      check.fail(std::string(ids_name) + " and " + name + " are not both given; accepted: both, or neither. Pass both");
    }
    if (!table) return;
    check_ids(check, ids_name, *ids, word, tokens);
    check.same_device(name, *table, "word", word);
    check.dtype(name, *table, {word.scalar_type()}, "Convert it to the dtype of word");
    check.dimensions(name, *table, 2, "[rows, H]");
    check.shape(name, *table, {table->sizes()[0], hidden}, "[rows, H] with word's H");
  };
  check_table("position_ids", position_ids, "position", position);
  check_table("token_type_ids", token_type_ids, "token_type", token_type);
  check.same_device("weight", weight, "word", word);
  check.dtype("weight", weight, {word.scalar_type(), ScalarType::Float},
              "Convert it to the dtype of word or to float32");
  check.shape("weight", weight, {hidden}, "[H], the last dimension of word");
  if (norm_bias) {
    check.same_device("norm_bias", *norm_bias, "word", word);
    check.dtype("norm_bias", *norm_bias, {weight.scalar_type()}, "Convert it to the dtype of weight");
    check.shape("norm_bias", *norm_bias, {hidden}, "the shape of weight");
  }
  const std::int64_t saved = save_for_backward ? tokens : 0;
  Tensor out = new_output(word, {tokens, hidden}, word.scalar_type());
  Tensor total = new_output(word, {saved, hidden}, word.scalar_type());
  Tensor mean = new_output(word, {saved}, sum_dtype(word));
  Tensor rstd = new_output(word, {saved}, sum_dtype(word));

  const Tensor token_ids_in = as_contiguous(token_ids), word_in = as_contiguous(word),
               weight_in = as_contiguous(weight);
  const OptionalTensor ids_in[2] = {as_contiguous(token_type_ids), as_contiguous(position_ids)};
  const OptionalTensor tables_in[2] = {as_contiguous(token_type), as_contiguous(position)};
  const OptionalTensor norm_bias_in = as_contiguous(norm_bias);
  if constexpr (Device::kReadsIds) {
    check_known(check, "token_ids", token_ids_in, "word", word.sizes()[0]);
    if (ids_in[0]) check_known(check, "token_type_ids", *ids_in[0], "token_type", token_type->sizes()[0]);
    if (ids_in[1]) check_known(check, "position_ids", *ids_in[1], "position", position->sizes()[0]);
  }
  EmbeddingLayerNorm args{};
  args.tokens = tokens;
  args.hidden = hidden;
  args.dtype = dtype_of(word);
  args.weight_dtype = dtype_of(weight);
  args.eps = eps;
  args.tables[0] = {static_cast<const std::int64_t*>(token_ids_in.const_data_ptr()), word_in.const_data_ptr(),
                    word.sizes()[0]};
  for (int i = 0; i < 2; ++i) {
    if (!tables_in[i]) continue;
    args.tables[i + 1] = {static_cast<const std::int64_t*>(ids_in[i]->const_data_ptr()), tables_in[i]->const_data_ptr(),
                          tables_in[i]->sizes()[0]};
  }
  args.weight = weight_in.const_data_ptr();
  args.norm_bias = data_of(norm_bias_in);
  args.out = out.mutable_data_ptr();
  if (save_for_backward) {
    args.total = total.mutable_data_ptr();
    args.mean = mean.mutable_data_ptr();
    args.rstd = rstd.mutable_data_ptr();
  }
  Device::run(args, word);
  return {out, total, mean, rstd};
}

// grad [T,H], ids [T] int64, order [T] int64 (ids sorted, stable; on CUDA) -> [num_rows,H].
template <typename Device>
Tensor gradient(const Tensor& grad, const Tensor& ids, const OptionalTensor& order, std::int64_t num_rows) {
  const Checks check("embedding_gradient");
  check_float<Device>(check, "grad", grad);
  const std::int64_t tokens = grad.sizes()[0], hidden = grad.sizes()[1];
  check_ids(check, "ids", ids, grad, tokens);
  if (num_rows < 0 || (!Device::kReadsIds && tokens > kMaxTokens)) {
    check.fail("num_rows is " + std::to_string(num_rows) + " and grad has " + std::to_string(tokens) +
               " rows; accepted: num_rows of at least 0, at most " + std::to_string(kMaxTokens) +
               " rows of grad. Split the batch");
  }
  Tensor table = new_output(grad, {num_rows, hidden}, grad.scalar_type());
  const Tensor grad_in = as_contiguous(grad), ids_in = as_contiguous(ids);
  if constexpr (Device::kReadsIds) {
    check_known(check, "ids", ids_in, "the table", num_rows);
    if (num_rows == 0 || hidden == 0) return table;
  } else {
    if (!order) check.fail("order is None; accepted on CUDA: ids.argsort(stable=True). Pass it");
    check_ids(check, "order", *order, grad, tokens);
    torch::stable::fill_(table, 0.0);
    if (tokens == 0) return table;
  }
  const OptionalTensor order_in = as_contiguous(order);
  Tensor partial = new_output(grad, {Device::chunks(tokens), 2, hidden}, ScalarType::Float);
  EmbeddingGradient args{};
  args.tokens = tokens;
  args.hidden = hidden;
  args.rows = num_rows;
  args.dtype = dtype_of(grad);
  args.grad = grad_in.const_data_ptr();
  args.ids = static_cast<const std::int64_t*>(ids_in.const_data_ptr());
  args.order = static_cast<const std::int64_t*>(data_of(order_in));
  args.partial = static_cast<float*>(partial.mutable_data_ptr());
  args.table = table.mutable_data_ptr();
  Device::run(args, grad);
  return table;
}

}  // namespace

#ifdef SENTCORE_CPU_OPS
SENTCORE_CPU_OPS(m) {
  m.impl("embedding_layer_norm", TORCH_BOX(&forward<Cpu>));
  m.impl("embedding_gradient", TORCH_BOX(&gradient<Cpu>));
}
#endif

#ifdef SENTCORE_WITH_CUDA
SENTCORE_CUDA_OPS(m) {
  m.impl("embedding_layer_norm", TORCH_BOX(&forward<Cuda>));
  m.impl("embedding_gradient", TORCH_BOX(&gradient<Cuda>));
}
#endif

}  // namespace sentcore
