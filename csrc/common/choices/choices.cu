#include <algorithm>
#include <atomic>
#include <tuple>
#include <vector>

#include "common/choices/choices.h"

namespace sentcore {
namespace {

using Row = std::tuple<Choice, Dtype, std::int64_t, std::int64_t>;

std::atomic<Kernels> chosen{Kernels::measured};

std::vector<Row>& table() {  // filled while the package is imported, only read from then on
  static std::vector<Row> rows;
  return rows;
}

}  // namespace

bool is_sm90() {
#if defined(SENTCORE_EMULATE)
  return true;
#elif defined(SENTCORE_WITH_SM90A)
  int device = 0, major = 0, minor = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess && major == 9 &&
         minor == 0;
#else
  return false;
#endif
}

void choose_kernels(Kernels kernels) { chosen = kernels; }

void add_kernel_choice(Choice choice, Dtype dtype, std::int64_t first, std::int64_t second) {
  table().emplace_back(choice, dtype, first, second);
}

bool takes_sm90a(Choice choice, Dtype dtype, std::int64_t first, std::int64_t second) {
  const Kernels kernels = chosen;
  if (kernels == Kernels::portable || !is_sm90()) return false;
  if (kernels == Kernels::sm90a) return true;
  return std::find(table().begin(), table().end(), Row{choice, dtype, first, second}) != table().end();
}

int sm90a_attention_from(Dtype dtype, int head_size) {
  const Kernels kernels = chosen;
  if (kernels == Kernels::portable || !is_sm90()) return kNever;
  if (kernels == Kernels::sm90a) return 1;
  for (const auto& [choice, of_dtype, size, keys] : table()) {
    if (choice == Choice::attention && of_dtype == dtype && size == head_size) return static_cast<int>(keys);
  }
  return kNever;
}

#ifdef SENTCORE_EMULATE
// For tests, which have no Python face of the emulated library.
extern "C" __attribute__((visibility("default"))) void sentcore_choose_kernels(int kernels) {
  choose_kernels(static_cast<Kernels>(kernels));
}
extern "C" __attribute__((visibility("default"))) void sentcore_add_kernel_choice(int choice, int dtype, int first,
                                                                                  int second) {
  add_kernel_choice(static_cast<Choice>(choice), static_cast<Dtype>(dtype), first, second);
}
#endif

}  // namespace sentcore
