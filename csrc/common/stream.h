// What a CUDA entry needs around its launch: the device, the current stream of torch, and a check of the result.
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include <string>

#include "common/checks.h"
#include "common/device.cuh"

#ifndef SENTCORE_EMULATE
#include <dlfcn.h>
#endif

namespace sentcore {

#ifdef SENTCORE_EMULATE

inline cudaStream_t current_stream(const Tensor&) { return nullptr; }

struct OnDeviceOf {
  explicit OnDeviceOf(const Tensor&) {}
};

#else

// torch's current stream of the tensor's device. The function behind it is in libtorch_cuda, which a CPU-only torch
// does not have and this library is therefore not linked to; it is there whenever a CUDA tensor is.
inline cudaStream_t current_stream(const Tensor& tensor) {
  using Getter = std::int32_t (*)(std::int32_t, void**);
  static const Getter getter = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    return library ? reinterpret_cast<Getter>(dlsym(library, "aoti_torch_get_current_cuda_stream")) : nullptr;
  }();
  STD_TORCH_CHECK(getter != nullptr, "libtorch_cuda.so is not loaded; accepted: a CUDA build of torch. Install one");
  void* stream = nullptr;
  const std::int32_t status = getter(tensor.get_device_index(), &stream);
  STD_TORCH_CHECK(status == 0, "torch gave no current stream for ", device_text(tensor));
  return static_cast<cudaStream_t>(stream);
}

// Makes the tensor's device the current one as long as it lives.
struct OnDeviceOf {
  explicit OnDeviceOf(const Tensor& tensor) : guard(tensor.get_device_index()) {}
  torch::stable::accelerator::DeviceGuard guard;
};

#endif

inline void check_launch(const char* op, cudaError_t status) {
  if (status == cudaSuccess) return;
#ifndef SENTCORE_EMULATE
  (void)cudaGetLastError();  // CUDA keeps the error of a call that is no launch, and would give it as the next launch's
#endif
  STD_TORCH_CHECK(false, op, ": the kernel could not be launched: ", cudaGetErrorString(status),
                  ". Set CUDA_LAUNCH_BLOCKING=1 to see whether an earlier kernel failed");
}

}  // namespace sentcore
