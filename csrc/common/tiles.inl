// Products by matrix tiles (AMX); included after simd.inl by a file that for_amx.h compiles. A tile has 16 rows of 64
// bytes. Two of rows (a) are multiplied with two of columns (b) into four of sums (c), 32 rows x 32 columns; a row's
// sums are the same bits whatever rows are computed beside it.
//
// A tile's number is part of an instruction: sums are 0 to 3 (0 and 1: the upper rows), rows 4 and 5, columns 6 and 7.

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

constexpr std::int64_t kRowsOfTile = 16, kTileBytes = 64;
constexpr std::int64_t kBlockRows = 2 * kRowsOfTile, kBlockColumns = 32;
constexpr std::int64_t kBlockBytes = kBlockRows * kBlockColumns * 4;  // of sums
constexpr std::int64_t kStepBytes = kRowsOfTile * kBlockColumns * 4;  // of a panel's weights that a step multiplies

// Instructions know nothing of C++'s memory: what is written before must be there, what is read after is new.
SENTCORE_INLINE void tiles_meet_memory() { __asm__ volatile("" ::: "memory"); }

// What stands in the tiles, from construction on in this thread; they are given back at the end, for a thread that
// holds tiles is slower to change.
class Tiles {
 public:
  inline Tiles() {
    struct __attribute__((packed)) {
      std::uint8_t palette = 1, start = 0, reserved[14] = {};
      std::uint16_t bytes[16] = {};
      std::uint8_t rows[16] = {};
    } config;
    for (int i = 0; i < 8; ++i) config.bytes[i] = kTileBytes, config.rows[i] = kRowsOfTile;
    __asm__ volatile("ldtilecfg %0" ::"m"(config));  // all of it: the intrinsic names 8 bytes, and loses the others
  }
  inline ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

// What is multiplied: float32 sums of bfloat16, exact integer sums of signed bytes (a) and unsigned bytes (b).
struct BFloatTiles {
  static SENTCORE_INLINE void multiply_upper_left() { _tile_dpbf16ps(0, 4, 6); }
  static SENTCORE_INLINE void multiply_upper_right() { _tile_dpbf16ps(1, 4, 7); }
  static SENTCORE_INLINE void multiply_lower_left() { _tile_dpbf16ps(2, 5, 6); }
  static SENTCORE_INLINE void multiply_lower_right() { _tile_dpbf16ps(3, 5, 7); }
};
struct ByteTiles {
  static SENTCORE_INLINE void multiply_upper_left() { _tile_dpbsud(0, 4, 6); }
  static SENTCORE_INLINE void multiply_upper_right() { _tile_dpbsud(1, 4, 7); }
  static SENTCORE_INLINE void multiply_lower_left() { _tile_dpbsud(2, 5, 6); }
  static SENTCORE_INLINE void multiply_lower_right() { _tile_dpbsud(3, 5, 7); }
};

SENTCORE_INLINE void clear_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

// To c [16 * A rows, 32] of 4 bytes, rows at multiples of c_stride bytes.
template <int A>
SENTCORE_INLINE void store_sums(void* c, std::int64_t c_stride) {
  char* const rows = static_cast<char*>(c);
  tiles_meet_memory();
  _tile_stored(0, rows, c_stride);
  _tile_stored(1, rows + kTileBytes, c_stride);
  if constexpr (A == 2) {
    _tile_stored(2, rows + kRowsOfTile * c_stride, c_stride);
    _tile_stored(3, rows + kRowsOfTile * c_stride + kTileBytes, c_stride);
  }
  tiles_meet_memory();
}

// The sums += a * b over `steps` of the depth. a [16 * A rows] at multiples of a_stride bytes; b [16 * steps] rows at
// multiples of b_stride bytes, each with 4 bytes of the depth for each of 32 columns. beside.step() runs with each
// step: the tiles work for themselves while vectors do something else.
template <typename P, int A, typename Beside>
SENTCORE_INLINE void multiply_tiles(const void* a, std::int64_t a_stride, const void* b, std::int64_t b_stride,
                                    std::int64_t steps, Beside& beside) {
  const char *upper = static_cast<const char*>(a), *lower = upper + kRowsOfTile * a_stride;
  const char* columns = static_cast<const char*>(b);
  for (std::int64_t k = 0; k < steps; ++k) {
    _tile_loadd(6, columns, b_stride);
    _tile_loadd(4, upper, a_stride);
    P::multiply_upper_left();
    _tile_loadd(7, columns + kTileBytes, b_stride);
    P::multiply_upper_right();
    if constexpr (A == 2) {
      _tile_loadd(5, lower, a_stride);
      P::multiply_lower_left();
      P::multiply_lower_right();
    }
    beside.step();
    upper += kTileBytes;
    lower += kTileBytes;
    columns += kRowsOfTile * b_stride;
  }
}

// What runs beside products that nothing runs beside.
struct Nothing {
  SENTCORE_INLINE void step() {}
};

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
