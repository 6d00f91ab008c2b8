// From integer sums to results; included by the kernels of int8_linear, which all give the same bits by it.

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

// A panel's columns: their scales and biases, zeros beyond the weight's.
struct PanelColumns {
  float scale[kInt8Columns];
  float bias[kInt8Columns];
};

// The weights of input `place` in a panel's columns from `first` on.
SENTCORE_INLINE Vec<float> column_of(const std::uint8_t* panel, std::int32_t place, std::int64_t first) {
  IntVector words;
  __builtin_memcpy(&words, panel + (place / kInt8Depth * kInt8Columns + first) * kInt8Depth, sizeof(words));
  const IntVector bytes = (words >> (8 * (place % static_cast<std::int32_t>(kInt8Depth)))) & splat_int(255);
  return __builtin_convertvector(bytes - splat_int(128), Vec<float>);
}

// Of the columns from `first` on, of which `inside` are the weight's.
inline PanelColumns columns_of(const Int8Linear& args, std::int64_t first, std::int64_t inside) {
  PanelColumns columns = {};
  for (std::int64_t j = 0; j < inside; ++j) {
    columns.scale[j] = args.scale[first + j];
    if (args.bias != nullptr) columns.bias[j] = args.bias[first + j];
  }
  return columns;
}

// Row `row` of `rows` with the columns of a panel from `first` on, a vector of them, by their sums of rounded products.
template <typename T, Int8Activation activation>
SENTCORE_INLINE Vec<float> result_of(IntVector sums, const Int8Rows& rows, std::int64_t row, const std::uint8_t* panel,
                                     std::int64_t first, Vec<float> scale, Vec<float> bias) {
  Vec<float> sum = __builtin_convertvector(sums - splat_int(rows.sums[row]), Vec<float>) * rows.scales[row];
  if (rows.apart[row] != 0) sum += rows.apart[row] * column_of(panel, rows.places[row], first);
  return activated<activation, T>(sum * scale + bias);
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
