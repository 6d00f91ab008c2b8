// What follows a product; included by the kernels of packed_linear.

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

template <typename T>
SENTCORE_INLINE Vec<float> activated(PackedActivation activation, Vec<float> x) {
  switch (activation) {
    case PackedActivation::relu:
      return larger<float>(Vec<float>{}, x);  // NaN stays
    case PackedActivation::gelu:
      return gelu_erf<T>(x);
    case PackedActivation::gelu_tanh:
      return gelu_tanh<T>(x);
    default:
      return x;
  }
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
