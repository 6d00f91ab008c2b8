// Argument checks of the op rooms. Every message names the argument, what was found, what is accepted, and the remedy.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>

#include "common/tensor.h"

namespace sentcore {

inline const char* name_of(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Half:
      return "float16";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Float8_e4m3fn:
      return "float8_e4m3fn";
    default:
      return torch::headeronly::toString(dtype);
  }
}

template <typename Sizes>
std::string shape_text(const Sizes& sizes) {
  std::ostringstream text;
  text << "[";
  const char* separator = "";
  for (const std::int64_t size : sizes) {
    text << separator << size;
    separator = ", ";
  }
  text << "]";
  return text.str();
}

inline std::string device_text(const Tensor& tensor) {
  if (tensor.is_cpu()) return "cpu";
  const std::string kind = tensor.is_cuda() ? "cuda" : "another kind of device";
  return kind + ":" + std::to_string(tensor.get_device_index());
}

// An op's name, and the checks that begin their messages with it.
class Checks {
 public:
  explicit Checks(const char* op) : op_(op) {}

  // What STD_TORCH_CHECK throws, without this file's name in front of the message.
  [[noreturn]] void fail(const std::string& message) const { throw std::runtime_error(op_ + (": " + message)); }

  void dtype(const char* name, const Tensor& tensor, std::initializer_list<ScalarType> accepted,
             const char* remedy) const {
    const ScalarType found = tensor.scalar_type();
    if (std::find(accepted.begin(), accepted.end(), found) != accepted.end()) return;
    std::string names;
    for (const ScalarType dtype : accepted) names += (names.empty() ? "" : ", ") + std::string(name_of(dtype));
    fail(std::string(name) + " is of dtype " + name_of(found) + "; accepted: " + names + ". " + remedy);
  }

  // What kernels of `Device` compute in.
  template <typename Device>
  void floating(const char* name, const Tensor& tensor) const {
    if (Device::kHasFloat64) {
      dtype(name, tensor, {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half, ScalarType::Double},
            "Convert it, e.g. with .float()");
    } else {
      dtype(name, tensor, {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half},
            "Convert it, e.g. with .float(); float64 runs on the CPU alone");
    }
  }

  void dimensions(const char* name, const Tensor& tensor, std::int64_t count, const char* meaning) const {
    if (tensor.dim() == count) return;
    fail(std::string(name) + " has shape " + shape_text(tensor.sizes()) + "; accepted: " + std::to_string(count) +
         " dimensions, " + meaning + ". Reshape it");
  }

  // What an op that takes means over H needs of a tensor with rows of H; call dimensions() before.
  void has_columns(const char* name, const Tensor& tensor, const char* meaning) const {
    if (tensor.sizes()[1] >= 1) return;
    fail(std::string(name) + " has shape " + shape_text(tensor.sizes()) + "; accepted: " + meaning +
         " with H of at least 1. Drop the empty dimension");
  }

  void shape(const char* name, const Tensor& tensor, std::initializer_list<std::int64_t> accepted,
             const char* meaning) const {
    const auto found = tensor.sizes();
    const bool same = found.size() == accepted.size() && std::equal(accepted.begin(), accepted.end(), found.begin());
    if (same) return;
    fail(std::string(name) + " has shape " + shape_text(found) + "; accepted: " + shape_text(accepted) + ", " +
         meaning + ". Reshape it, or check which tensor was passed");
  }

  void same_device(const char* name, const Tensor& tensor, const char* like_name, const Tensor& like) const {
    if (tensor.device() == like.device()) return;
    fail(std::string(name) + " is on " + device_text(tensor) + "; accepted: " + device_text(like) + ", the device of " +
         like_name + ". Move it there with .to()");
  }

  void dropout(double p, const std::optional<Tensor>& seed, const char* like_name, const Tensor& like) const {
    if (!(p >= 0.0 && p < 1.0)) {
      fail("dropout_p is " + std::to_string(p) + "; accepted: a probability in [0, 1). Use 0 to switch dropout off");
    }
    if (p == 0.0) return;
    if (!seed) fail("seed is None; accepted with dropout_p > 0: an int64 tensor of shape [2] (seed, offset). Draw one");
    dtype("seed", *seed, {ScalarType::Long}, "Convert it with .to(torch.int64)");
    shape("seed", *seed, {2}, "(seed, offset)");
    same_device("seed", *seed, like_name, like);
  }

 private:
  const char* op_;
};

}  // namespace sentcore
