// Where there are two kernels for a thing, the portable one and one of sm_90a: which is taken. The portable one, unless
// a measurement on such a GPU says otherwise (bench/results/kernel_choices.json, read when the package is installed and
// told to add_kernel_choice when it is imported).
#pragma once

#include <cstdint>

#include "common/portable.h"

namespace sentcore {

enum class Kernels : std::int32_t {
  portable,  // always the portable ones
  measured,  // sm_90a's where a row of the table says so: the default
  sm90a,     // sm_90a's wherever they can run, for tests and benchmarks
};
enum class Choice : std::int32_t {
  linear,
  linear_input_gradient,
  linear_weight_gradient,
  attention,
  fp8_linear,
  linear_add_layer_norm
};

void choose_kernels(Kernels kernels);
// `first` and `second` are what the choice depends on, never how many tokens there are, so that a row's bits do not
// depend on its batch: of products the columns N and the depth K (of a weight gradient its rows and columns); of
// attention the head size, and the keys a sentence must have.
void add_kernel_choice(Choice choice, Dtype dtype, std::int64_t first, std::int64_t second);

// Whether sm_90a's kernel is to be taken for a product on the current device; false where the device is no sm_90 or the
// library holds no code for it.
bool takes_sm90a(Choice choice, Dtype dtype, std::int64_t first, std::int64_t second);

// Whether the current device is of compute capability 9.0, and the library has code of its own for it.
bool is_sm90();

// From how many keys on a sentence's attention is to be sm_90a's kernel's; kNever where none is.
constexpr int kNever = 0x7fffffff;
int sm90a_attention_from(Dtype dtype, int head_size);

}  // namespace sentcore
