// gated_activation as torch calls it: checks, output, and the kernel. The schema is in
// sentcore/ops/gated_activation/register.py.

#include "ops/gated_activation/gated_activation.h"

#include <string>

#include "common/checks.h"
#include "common/register.h"

namespace sentcore {

#ifdef SENTCORE_CPU_OPS
namespace {

struct Cpu {
  static constexpr bool kHasFloat64 = true;
};

// x [T,2F] -> [T,F].
Tensor gated_activation(const Tensor& x, std::string activation) {
  const Checks check("gated_activation");
  check.floating<Cpu>("x", x);
  check.dimensions("x", x, 2, "[T, 2F]");
  const std::int64_t rows = x.sizes()[0], columns = x.sizes()[1];
  if (columns % 2 != 0) {
    check.fail("x has " + std::to_string(columns) + " columns; accepted: an even number, [T, 2F]. Pass both halves");
  }
  if (activation != "geglu" && activation != "swiglu") {
    check.fail("activation is '" + activation + "'; accepted: geglu or swiglu. Choose one");
  }
  Tensor out = new_output(x, {rows, columns / 2}, x.scalar_type());
  const Tensor x_in = as_contiguous(x);
  GatedActivation args{};
  args.rows = rows;
  args.width = columns / 2;
  args.dtype = dtype_of(x);
  args.silu = activation == "swiglu";
  args.x = x_in.const_data_ptr();
  args.out = out.mutable_data_ptr();
  gated_activation_cpu(args);
  return out;
}

}  // namespace

SENTCORE_CPU_OPS(m) { m.impl("gated_activation", TORCH_BOX(&gated_activation)); }
#endif

}  // namespace sentcore
