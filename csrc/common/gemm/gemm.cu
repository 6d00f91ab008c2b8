// Which kernel computes a product, and the sum of its slices.

#include "common/choices/choices.h"
#include "common/gemm/gemm.h"
#include "common/gemm/kernels.h"
#include "common/sums/sums.h"

namespace sentcore {
namespace {

constexpr std::int64_t kTile = 128;
// Two on each of 132 multiprocessors. A constant, so that sums do not depend on the GPU.
constexpr std::int64_t kWantedBlocks = 264;
constexpr std::int64_t kLeastDepth = 256;  // of a slice

bool aligned(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; }

bool tensor_cores_take(const Gemm& args) {
  if (args.dtype == Dtype::float32) return false;
  const std::int64_t columns = is_gated(args.epilogue.activation) ? args.columns / 2 : args.columns;
  bool fits = args.a.width % 8 == 0 && args.b.width % 8 == 0 && columns % 8 == 0;
  fits = fits && aligned(args.out) && aligned(args.epilogue.pre);
  for (int i = 0; i < 3; ++i) fits = fits && aligned(args.a.part[i]) && aligned(args.b.part[i]);
  return fits;
}

#ifdef SENTCORE_WITH_SM90A
// Of what the tensor cores take, what sm_90a's kernel does: its boxes are 64 rows high, and may not lie across two
// parts.
bool sm90a_takes(const Gemm& args) {
  const Epilogue& epilogue = args.epilogue;
  if (args.rows < 1 || args.depth < 1 || args.a.part[1] != nullptr) return false;
  if (args.b.part[1] != nullptr && args.b.rows_of_part % 64 != 0) return false;
  if (epilogue.activation == Activation::relu) return false;
  if (is_gated(epilogue.activation) && args.columns / 2 % 64 != 0) return false;
  const bool heads = epilogue.head_size == 16 || epilogue.head_size == 32 || epilogue.head_size == 64;
  return epilogue.cos == nullptr || (heads && epilogue.rotary_columns % 64 == 0);
}

bool sm90a_is_chosen(const Gemm& args) {
  if (args.a_by_column) return takes_sm90a(Choice::linear_weight_gradient, args.dtype, args.rows, args.columns);
  const Choice choice = args.b_by_column ? Choice::linear : Choice::linear_input_gradient;
  return takes_sm90a(choice, args.dtype, args.columns, args.depth);
}
#endif

cudaError_t run(const Gemm& args, cudaStream_t stream) {
  if (!tensor_cores_take(args)) return gemm::run_fma(args, stream);
#ifdef SENTCORE_WITH_SM90A
  if (sm90a_takes(args) && sm90a_is_chosen(args)) {
    return args.dtype == Dtype::bfloat16 ? gemm::run_bfloat16_sm90a(args, stream)
                                         : gemm::run_float16_sm90a(args, stream);
  }
#endif
  return gemm::run_mma(args, stream);
}

}  // namespace

std::int64_t gemm_slices(std::int64_t rows, std::int64_t columns, std::int64_t depth, bool a_by_column) {
  if (!a_by_column) return 1;
  const std::int64_t tiles = ceil_div(rows, kTile) * ceil_div(columns, kTile);
  const std::int64_t most = ceil_div(depth, kLeastDepth), wanted = ceil_div(kWantedBlocks, tiles < 1 ? 1 : tiles);
  const std::int64_t slices = most < wanted ? most : wanted;
  return slices < 1 ? 1 : slices;
}

cudaError_t gemm_cuda(const Gemm& args, cudaStream_t stream) {
  const cudaError_t status = run(args, stream);
  if (status != cudaSuccess || args.partial == nullptr) return status;
  const std::int64_t slices = gemm::slices_of(args).count;
  return add_slices_cuda(args.dtype, args.partial, args.rows * args.columns, slices, args.out, stream);
}

cudaError_t input_gradient_cuda(const StackedRows& dy, const StackedRows& weight, std::int64_t rows_of_weight,
                                Dtype dtype, void* dx, cudaStream_t stream) {
  Gemm gemm{};
  gemm.dtype = dtype;
  gemm.rows = dy.rows_of_part;
  gemm.columns = weight.width;
  gemm.depth = rows_of_weight;
  gemm.a = dy;
  gemm.b = weight;
  gemm.out = dx;
  return gemm_cuda(gemm, stream);
}

cudaError_t weight_gradient_cuda(const StackedRows& dy, const StackedRows& x, Dtype dtype, float* partial, void* dw,
                                 cudaStream_t stream) {
  Gemm gemm{};
  gemm.dtype = dtype;
  gemm.rows = dy.width;
  gemm.columns = x.width;
  gemm.depth = dy.rows_of_part;
  gemm.a = dy;
  gemm.a_by_column = true;
  gemm.b = x;
  gemm.out = dw;
  gemm.partial = partial;
  return gemm_cuda(gemm, stream);
}

}  // namespace sentcore
