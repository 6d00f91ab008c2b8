// Rows of bias_gelu on one instruction set; bias_gelu_cpu.cpp compiles it for each.

#include "common/simd.inl"
// clang-format off: in this order
#include "common/activations.inl"
#include "common/rows.inl"
// clang-format on

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

template <typename T, bool tanh>
struct GeluStep {
  using A = cpu::Wide<T>;
  const T* x;     // [F]
  const A* bias;  // [F], or null
  T* out;         // [F]

  SENTCORE_INLINE void operator()(std::int64_t j, std::int64_t count, int) {
    Vec<A> total = load_at(x + j, count);
    if (bias != nullptr) total += load(bias + j);
    store_at(out + j, tanh ? gelu_tanh<T>(total) : gelu_erf<T>(total), count);
  }
};

template <typename T, bool tanh>
struct GeluGradStep {
  using A = cpu::Wide<T>;
  const T* grad_out;  // [F]
  const T* x;         // [F]
  const A* bias;      // [F], or null
  T* grad_x;          // [F]
  A* sums;            // [F]: of grad_x

  SENTCORE_INLINE void operator()(std::int64_t j, std::int64_t count, int) {
    Vec<A> total = load_at(x + j, count);
    if (bias != nullptr) total += load(bias + j);
    const Vec<A> slope = tanh ? gelu_tanh_grad<T>(total) : gelu_erf_grad<T>(total, normal_cdf<T>(total));
    const Vec<A> grad = load_at(grad_out + j, count) * slope;
    store_at(grad_x + j, grad, count);
    store(sums + j, load(sums + j) + grad);
  }
};

template <typename T>
struct BiasGeluRows {
  using A = cpu::Wide<T>;

  template <bool tanh>
  static void rows(const BiasGeluForward& args, const void* bias, std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      GeluStep<T, tanh> step{static_cast<const T*>(args.x) + r * args.width, static_cast<const A*>(bias),
                             static_cast<T*>(args.out) + r * args.width};
      over_row<A>(args.width, step);
    }
  }
  static void run(const BiasGeluForward& args, const void* bias, std::int64_t begin, std::int64_t end) {
    args.tanh ? rows<true>(args, bias, begin, end) : rows<false>(args, bias, begin, end);
  }
};

template <typename T>
struct BiasGeluGroup {
  using A = cpu::Wide<T>;

  template <bool tanh>
  static void rows(const BiasGeluBackward& args, const void* bias, A* sums, std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      GeluGradStep<T, tanh> step{static_cast<const T*>(args.grad_out) + r * args.width,
                                 static_cast<const T*>(args.x) + r * args.width, static_cast<const A*>(bias),
                                 static_cast<T*>(args.grad_x) + r * args.width, sums};
      over_row<A>(args.width, step);
    }
  }
  static void run(const BiasGeluBackward& args, const void* bias, void* sums, std::int64_t group) {
    const std::int64_t begin = args.rows * group / args.groups, end = args.rows * (group + 1) / args.groups;
    A* const own = static_cast<A*>(sums);
    __builtin_memset(own, 0, static_cast<std::size_t>(args.width) * sizeof(A));
    args.tanh ? rows<true>(args, bias, own, begin, end) : rows<false>(args, bias, own, begin, end);
    if (args.partial == nullptr) return;
    __builtin_memcpy(static_cast<A*>(args.partial) + group * args.width, own,
                     static_cast<std::size_t>(args.width) * sizeof(A));
  }
};

inline void run_rows(const BiasGeluForward& args, const void* bias, std::int64_t begin, std::int64_t end) {
  run_for_dtype<BiasGeluRows>(args.dtype, args, bias, begin, end);
}
inline void run_group(const BiasGeluBackward& args, const void* bias, void* sums, std::int64_t group) {
  run_for_dtype<BiasGeluGroup>(args.dtype, args, bias, sums, group);
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
