// Rows times panels of 32 columns by matrix tiles, as packed_linear and int8_linear want it; included after tiles.inl.

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

// Between rows that tiles read: whole steps, and never so many lines that rows share cache sets.
SENTCORE_INLINE std::int64_t tile_stride(std::int64_t bytes) {
  const std::int64_t whole = (bytes + kTileBytes - 1) / kTileBytes * kTileBytes;
  return whole + (whole / kTileBytes % 2 == 0 ? kTileBytes : 0);
}
SENTCORE_INLINE std::int64_t whole_tiles(std::int64_t rows) {
  return (rows + kRowsOfTile - 1) / kRowsOfTile * kRowsOfTile;
}

// `count` rows and the panels that they are multiplied with; `memory` begins on a cache line.
class TilePanels {
 public:
  std::int64_t count;        // of rows
  std::int64_t depth_bytes;  // of a row
  std::int64_t panels;
  const char* weight;    // [panels, depth_bytes / 4 rounded up, 32, 4] bytes
  std::int64_t padding;  // the byte that stands for zero in the weight

  static SENTCORE_INLINE std::int64_t bytes_of(std::int64_t count, std::int64_t depth_bytes) {
    return whole_tiles(count) * tile_stride(depth_bytes) + kBlockBytes + kStepBytes;
  }
  // [whole_tiles(count)] at multiples of tile_stride(depth_bytes)
  SENTCORE_INLINE char* rows() const { return memory; }
  // [32, 32] sums of a block
  SENTCORE_INLINE char* sums() const { return memory + whole_tiles(count) * tile_stride(depth_bytes); }
  // The last step of a panel, where the depth is no multiple of a step's.
  SENTCORE_INLINE char* last() const { return sums() + kBlockBytes; }

  char* memory;
};

// The sums of rows [row, row + 16 * A) with a panel, beside which the block before is finished.
template <typename P, int A, typename Finish>
SENTCORE_INLINE void multiply_block(const TilePanels& all, const char* panel, std::int64_t row, Finish& finish) {
  const std::int64_t stride = tile_stride(all.depth_bytes), whole = all.depth_bytes / kTileBytes;
  const char* const rows = all.rows() + row * stride;
  clear_sums();
  multiply_tiles<P, A>(rows, stride, panel, kBlockColumns * 4, whole, finish);
  if (all.depth_bytes % kTileBytes != 0) {
    multiply_tiles<P, A>(rows + whole * kTileBytes, stride, all.last(), kBlockColumns * 4, 1, finish);
  }
  finish.rest();  // it reads the sums that are replaced next
  store_sums<A>(all.sums(), kBlockColumns * 4);
}

// The products of all rows with all panels. For each panel and block of rows, finish.begin(panel, row, rows, each,
// sums) is told where the sums are; finish.step() is called beside the next block's products and may turn `each` rows
// into results, finish.rest() when the others have to be.
template <typename P, typename Finish>
SENTCORE_INLINE void multiply_panels(const TilePanels& all, Finish& finish) {
  const std::int64_t panel_bytes = (all.depth_bytes + 3) / 4 * 4 * kBlockColumns;
  const std::int64_t whole_bytes = all.depth_bytes / kTileBytes * kStepBytes, rest_bytes = panel_bytes - whole_bytes;
  const std::int64_t steps = (all.depth_bytes + kTileBytes - 1) / kTileBytes;
  const Tiles tiles;
  for (std::int64_t p = 0; p < all.panels; ++p) {
    const char* const panel = all.weight + p * panel_bytes;
    if (rest_bytes > 0) {
      __builtin_memcpy(all.last(), panel + whole_bytes, static_cast<std::size_t>(rest_bytes));
      __builtin_memset(all.last() + rest_bytes, static_cast<int>(all.padding),
                       static_cast<std::size_t>(kStepBytes - rest_bytes));
    }
    tiles_meet_memory();
    for (std::int64_t row = 0; row < all.count; row += kBlockRows) {
      const std::int64_t rows = all.count - row < kBlockRows ? all.count - row : kBlockRows;
      if (rows > kRowsOfTile) {
        multiply_block<P, 2>(all, panel, row, finish);
      } else {
        multiply_block<P, 1>(all, panel, row, finish);
      }
      finish.begin(p, row, rows, (rows + steps - 1) / steps, all.sums());
    }
  }
  finish.rest();
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
