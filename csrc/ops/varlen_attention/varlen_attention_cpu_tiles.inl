// The forward of one (sentence, head) in bfloat16 by matrix tiles; varlen_attention_cpu.cpp compiles it. As the other
// instruction sets do it, with 16 rows of q at a time.

// clang-format off: in this order
#include "common/simd.inl"
#include "common/rows.inl"
#include "common/product.inl"
#include "common/tiles.inl"
#include "ops/varlen_attention/varlen_attention_cpu_options.inl"
#include "ops/varlen_attention/varlen_attention_cpu_dropout.inl"
#include "ops/varlen_attention/varlen_attention_cpu_softmax.inl"
#include "ops/varlen_attention/varlen_attention_cpu_operands.inl"
// clang-format on

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

constexpr std::int64_t kTileKeys = 512;  // of a block; what is packed of them fits in L2

SENTCORE_INLINE std::int64_t in_blocks(std::int64_t count, std::int64_t block) {
  return (count + block - 1) / block * block;
}

// Room for one item. S: max_seqlen_q; D: the head size, W: rounded up to two tiles of float32, 32.
struct TileBuffers {
  std::int32_t* keys;           // [W / 2, key_stride] pairs, transposed
  std::int32_t* values;         // [kTileKeys / 2, W] pairs
  std::int32_t* queries;        // [16, W / 2] pairs
  std::int32_t* probabilities;  // [16, key_stride / 2] pairs
  float* scores;                // [16, key_stride]
  float* block;                 // [16, W]: of probability * value
  float* sums;                  // [S, W]: of those of all blocks
  float* maxima;                // [S]
  float* totals;                // [S]: of probabilities
};

inline std::int64_t tile_width(const VarlenAttention& given) { return in_blocks(given.size, kBlockColumns); }

// Bytes of memory for one thread's buffers.
inline std::int64_t tile_memory_of(const VarlenAttention& given) {
  const std::int64_t width = tile_width(given), stride = key_stride<float>(kTileKeys);
  const std::int64_t packed = width / 2 * stride + kTileKeys / 2 * width;
  const std::int64_t of_tile = kRowsOfTile * (width / 2 + stride / 2 + stride + width);
  return (packed + of_tile + given.max_seqlen_q * (width + 2)) * 4;
}

inline TileBuffers cut_tile_buffers(const VarlenAttention& given, void* memory) {
  const std::int64_t width = tile_width(given), stride = key_stride<float>(kTileKeys);
  TileBuffers b;
  b.keys = static_cast<std::int32_t*>(memory);
  b.values = b.keys + width / 2 * stride;
  b.queries = b.values + kTileKeys / 2 * width;
  b.probabilities = b.queries + kRowsOfTile * width / 2;
  b.scores = reinterpret_cast<float*>(b.probabilities + kRowsOfTile * stride / 2);
  b.block = b.scores + kRowsOfTile * stride;
  b.sums = b.block + kRowsOfTile * width;
  b.maxima = b.sums + given.max_seqlen_q * width;
  b.totals = b.maxima + given.max_seqlen_q;
  return b;
}

// Rows [row, row + rows) of q as [16, width / 2] pairs, zeros beyond.
inline void copy_tile_queries(const cpu::BFloat16* q, std::int64_t q_stride, std::int64_t rows, std::int64_t size,
                              std::int64_t width, std::int32_t* queries) {
  char* target = reinterpret_cast<char*>(queries);
  for (std::int64_t r = 0; r < kRowsOfTile; ++r, target += 2 * width) {
    const std::int64_t copied = r < rows ? size * 2 : 0;
    if (copied > 0) __builtin_memcpy(target, q + r * q_stride, static_cast<std::size_t>(copied));
    __builtin_memset(target + copied, 0, static_cast<std::size_t>(2 * width - copied));
  }
}

// A block of keys and values, zeros up to whole tiles.
inline void pack_tile_block(const cpu::BFloat16* k, const cpu::BFloat16* v, std::int64_t kv_stride, std::int64_t count,
                            std::int64_t columns, std::int64_t size, std::int64_t width, const TileBuffers& b) {
  const std::int64_t stride = key_stride<float>(columns), units = size / 2;
  pack_keys<Pairs>(k, kv_stride, count, columns, size, b.keys, stride);
  __builtin_memset(b.keys + units * stride, 0, static_cast<std::size_t>((width / 2 - units) * stride) * 4);
  pack_values<Pairs>(v, kv_stride, count, size, width, b.values);
  const std::int64_t pairs = (count + 1) / 2;
  __builtin_memset(b.values + pairs * width, 0, static_cast<std::size_t>((columns / 2 - pairs) * width) * 4);
}

// c [16, columns] = a [16, 32 * steps] * b [16 * steps, columns], columns a multiple of 32; strides in bytes.
SENTCORE_INLINE void multiply_rows_of_tile(const void* a, std::int64_t a_stride, const std::int32_t* b,
                                           std::int64_t b_stride, std::int64_t steps, std::int64_t columns, float* c,
                                           std::int64_t c_stride) {
  Nothing nothing;
  tiles_meet_memory();
  for (std::int64_t j = 0; j < columns; j += kBlockColumns) {
    clear_sums();
    multiply_tiles<BFloatTiles, 1>(a, a_stride, b + j, b_stride, steps, nothing);
    store_sums<1>(c + j, c_stride);
  }
}

// softmax_row of scores that are needed no more, straight to pairs of bfloat16.
SENTCORE_INLINE void probabilities_of_row(const float* scores, std::int64_t count, std::int64_t columns, float factor,
                                          float* sums, std::int64_t size, float& maximum, float& total,
                                          std::int32_t* pairs) {
  const std::int64_t whole = count / 16 * 16;
  const Vec<float> last = lanes_before<float>(load(scores + whole), whole, count, -__builtin_inff());
  Vec<float> top = larger<float>(splat(maximum), last);
  for (std::int64_t j = 0; j < whole; j += 16) top = larger<float>(top, load(scores + j));
  const float reached = largest_of<float>(top);
  // Nothing was seen yet: exp(-inf - -inf) would be no number.
  const float from = reached == -__builtin_inff() ? 0.0f : reached;
  Vec<float> sum = probability<Pairs, float>(last, from, factor);
  for (std::int64_t j = whole; j < columns; j += 16)
    store_probabilities(j == whole ? sum : Vec<float>{}, pairs + j / 2);
  for (std::int64_t j = 0; j < whole; j += 16) {
    const Vec<float> p = probability<Pairs, float>(load(scores + j), from, factor);
    store_probabilities(p, pairs + j / 2);
    sum += p;
  }
  if (reached > maximum) {
    if (maximum != -__builtin_inff()) {
      const float scale = exp_of(splat((maximum - reached) * factor))[0];
      for (std::int64_t d = 0; d < size; d += 16) store(sums + d, load(sums + d) * scale);
      total *= scale;
    }
    maximum = reached;
  }
  total += sum_of<float>(sum);
}

// out [rows, size] = sums [rows, W] / totals.
SENTCORE_INLINE void write_rows(const float* sums, std::int64_t width, const float* totals, std::int64_t rows,
                                std::int64_t size, cpu::BFloat16* out, std::int64_t out_stride) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const float inverse = totals[r] != 0 ? 1.0f / totals[r] : 0.0f;  // NaN of NaN
    for (std::int64_t d = 0; d < size; d += kLanes<float>) {
      store_at(out + r * out_stride + d, load(sums + r * width + d) * inverse, size - d);
    }
  }
}

inline void attend(const VarlenAttentionForward& args, const Sentence& s, std::int64_t head, const TileBuffers& b) {
  typedef cpu::BFloat16 T;
  const VarlenAttention& given = args.given;
  const std::int64_t size = given.size, width = tile_width(given);
  const T* q = static_cast<const T*>(given.q) + s.first_q * given.q_stride + head * size;
  const T* k = static_cast<const T*>(given.k) + s.first_k * given.kv_stride + head * size;
  const T* v = static_cast<const T*>(given.v) + s.first_k * given.kv_stride + head * size;
  const std::int64_t out_stride = given.heads * size;
  T* const out = static_cast<T*>(args.out) + s.first_q * out_stride + head * size;
  const bool options = has_options(given);                                   // their pass scales the scores itself
  const bool alone = s.length_k > 0 && s.length_k <= kTileKeys && !options;  // every row sees the only block
  const float factor = options ? 1.0f : static_cast<float>(given.exact_scale);
  for (std::int64_t i = 0; i < s.length_q; ++i) b.maxima[i] = -__builtin_inff(), b.totals[i] = 0;
  if (!alone) __builtin_memset(b.sums, 0, static_cast<std::size_t>(s.length_q * width) * 4);

  for (std::int64_t first = 0; first < s.length_k; first += kTileKeys) {
    const std::int64_t count = s.length_k - first < kTileKeys ? s.length_k - first : kTileKeys;
    const std::int64_t columns = in_blocks(count, kBlockColumns), stride = key_stride<float>(columns);
    pack_tile_block(k + first * given.kv_stride, v + first * given.kv_stride, given.kv_stride, count, columns, size,
                    width, b);
    for (std::int64_t row = 0; row < s.length_q; row += kRowsOfTile) {
      const std::int64_t rows = s.length_q - row < kRowsOfTile ? s.length_q - row : kRowsOfTile;
      if (options) {  // does any row of these see a key of this block?
        const Range top = seen(given, s, row, first, first + count);
        const Range bottom = seen(given, s, row + rows - 1, first, first + count);
        if (top.begin >= first + count || bottom.end <= first) continue;
      }
      if (first == 0 && head + 1 < given.heads) prefetch_next_head(given, s, q, k, v, row, kRowsOfTile);
      copy_tile_queries(q + row * given.q_stride, given.q_stride, rows, size, width, b.queries);
      multiply_rows_of_tile(b.queries, 2 * width, b.keys, 4 * stride, width / 32, columns, b.scores, 4 * stride);
      for (std::int64_t r = 0; r < rows; ++r) {
        float* const scores = b.scores + r * stride;
        if (options) apply_options(given, s, head, row + r, first, count, scores);
        float &maximum = b.maxima[row + r], &total = b.totals[row + r];
        float* const sums = b.sums + (row + r) * width;
        std::int32_t* const pairs = b.probabilities + r * stride / 2;
        if (given.seed == nullptr) {
          probabilities_of_row(scores, count, columns, factor, sums, alone ? 0 : width, maximum, total, pairs);
          continue;
        }
        for (std::int64_t j = count; j < columns; ++j) scores[j] = -__builtin_inff();
        softmax_row<Pairs>(scores, count, columns, factor, sums, alone ? 0 : width, maximum, total);
        apply_dropout(given, s, head, row + r, first, count, scores);
        narrow_row(scores, columns, pairs);
      }
      multiply_rows_of_tile(b.probabilities, 2 * stride, b.values, 4 * width, columns / 32, width, b.block, 4 * width);
      if (alone) {
        write_rows(b.block, width, b.totals + row, rows, size, out + row * out_stride, out_stride);
      } else {
        float* const sums = b.sums + row * width;
        for (std::int64_t j = 0; j < rows * width; j += 16) store(sums + j, load(sums + j) + load(b.block + j));
      }
    }
  }

  if (!alone) write_rows(b.sums, width, b.totals, s.length_q, size, out, out_stride);
  if (args.lse == nullptr) return;
  float* const lse = static_cast<float*>(args.lse) + s.first_q * given.heads + head;
  for (std::int64_t i = 0; i < s.length_q; ++i) {
    const bool seen = b.totals[i] != 0;
    lse[i * given.heads] =
        seen ? b.maxima[i] * factor + static_cast<float>(__builtin_log(b.totals[i])) : -__builtin_inff();
  }
}

// The units from, from + step, ... of all: unit u is the u % groups-th share of the heads of sentence u / groups.
inline void run_tiles(const VarlenAttentionForward& args, std::int64_t groups, std::int64_t from, std::int64_t step,
                      void* memory) {
  const VarlenAttention& given = args.given;
  const TileBuffers buffers = cut_tile_buffers(given, memory);
  const Tiles tiles;
  for (std::int64_t unit = from; unit < given.sentences * groups; unit += step) {
    const Sentence s = sentence_of(given, unit / groups);
    const std::int64_t share = unit % groups, last = (share + 1) * given.heads / groups;
    for (std::int64_t head = share * given.heads / groups; head < last; ++head) attend(args, s, head, buffers);
  }
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
