// Rows of gated_activation on one instruction set; gated_activation_cpu.cpp compiles it for each.

#include "common/simd.inl"
// clang-format off: in this order
#include "common/activations.inl"
#include "common/rows.inl"
// clang-format on

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

template <typename T, bool kSilu>
struct GateStep {
  using A = cpu::Wide<T>;
  const T* first;   // [F]
  const T* second;  // [F]
  T* out;           // [F]

  SENTCORE_INLINE void operator()(std::int64_t j, std::int64_t count, int) {
    const Vec<A> a = load_at(first + j, count), b = load_at(second + j, count);
    store_at(out + j, (kSilu ? silu<T>(a) : gelu_erf<T>(a)) * b, count);
  }
};

// A row is cut into vectors in one way, whoever computes it.
template <typename T>
struct GatedRows {
  template <bool kSilu>
  static void rows(const GatedActivation& args, std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const T* const x = static_cast<const T*>(args.x) + 2 * r * args.width;
      GateStep<T, kSilu> step{x, x + args.width, static_cast<T*>(args.out) + r * args.width};
      over_row<cpu::Wide<T>>(args.width, step);
    }
  }
  static void run(const GatedActivation& args, std::int64_t begin, std::int64_t end) {
    args.silu ? rows<true>(args, begin, end) : rows<false>(args, begin, end);
  }
};

inline void run_rows(const GatedActivation& args, std::int64_t begin, std::int64_t end) {
  run_for_dtype<GatedRows>(args.dtype, args, begin, end);
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
