// The Python face of sentcore._C: what was compiled, which kernels are taken, the batch planner and the packer.
// The ops register themselves with torch in csrc/ops/<op>/<op>.cpp; this file sees no torch header.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/choices/choices.h"
#include "common/isa.h"
#include "inputs/packer.h"
#include "inputs/planner.h"

namespace py = pybind11;

namespace {

using Int32s = py::array_t<std::int32_t, py::array::c_style>;
using Int64s = py::array_t<std::int64_t, py::array::c_style>;

std::vector<std::string> split(const std::string& names) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (begin < names.size()) {
    const std::size_t end = std::min(names.find(',', begin), names.size());
    parts.push_back(names.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "g++ " __VERSION__;
#else
  return "unknown";
#endif
}

std::string release(std::uint64_t target) {
  return std::to_string(target >> 56) + "." + std::to_string((target >> 48) & 0xff);
}

py::dict build_info() {
  const std::string cuda_release = SENTCORE_CUDA_RELEASE;
  py::dict info;
  info["version"] = SENTCORE_VERSION;
  info["compiler"] = compiler();
  info["torch_target"] = release(TORCH_TARGET_VERSION);
  info["cpu"] = true;
  info["cpu_isa"] = sentcore::kIsaNames[static_cast<int>(sentcore::best_isa())];
  info["cuda"] = !cuda_release.empty();
  info["cuda_toolkit"] = cuda_release.empty() ? py::object(py::none()) : py::object(py::str(cuda_release));
  info["archs"] = split(SENTCORE_CUDA_NAMES);     // sm_ is machine code, compute_ is PTX
  info["fp8_archs"] = split(SENTCORE_FP8_NAMES);  // of the files fp8_*.cu
#ifdef SENTCORE_WITH_SM90A
  info["sm_90a"] = true;
#else
  info["sm_90a"] = false;
#endif
  py::dict ops;
  ops["cpu"] = split(SENTCORE_CPU_OPS);
  ops["cuda"] = split(SENTCORE_CUDA_OPS);
  info["ops"] = ops;
  return info;
}

void check_vector(const char* name, const py::array& array) {
  if (array.ndim() != 1) {
    throw py::value_error(std::string(name) + " has " + std::to_string(array.ndim()) +
                          " dimensions; accepted is an array of 1 dimension");
  }
}

void check_size(const char* name, const py::array& array, std::int64_t size, const char* meaning) {
  check_vector(name, array);
  if (array.size() != size) {
    throw py::value_error(std::string(name) + " has " + std::to_string(array.size()) + " elements; accepted are " +
                          std::to_string(size) + ", " + meaning);
  }
}

// lengths [B] int64 -> (order [B] int64, batch_offsets [n+1] int64)
py::tuple plan_batches(const Int64s& lengths, std::int64_t batch_tokens) {
  check_vector("lengths", lengths);
  Int64s order(lengths.size());
  const std::int64_t* in = lengths.data();
  std::int64_t* out = order.mutable_data();
  const std::int64_t count = lengths.size();
  std::vector<std::int64_t> offsets;
  {
    py::gil_scoped_release no_gil;
    offsets = sentcore::plan_batches(in, count, batch_tokens, out);
  }
  Int64s batch_offsets(static_cast<py::ssize_t>(offsets.size()));
  std::copy(offsets.begin(), offsets.end(), batch_offsets.mutable_data());
  return py::make_tuple(order, batch_offsets);
}

// token_ids [T] int32, offsets [B+1] int64, token_type_ids [T] int32 or None, indices [b] int64
// -> max_seqlen; fills out [3, t] int64 (token, position and token type ids) and cu_seqlens [b+1] int32.
std::int64_t pack_batch(const Int32s& token_ids, const Int64s& offsets, const std::optional<Int32s>& token_type_ids,
                        const Int64s& indices, Int64s& out, Int32s& cu_seqlens) {
  check_vector("token_ids", token_ids);
  check_vector("offsets", offsets);
  check_vector("indices", indices);
  if (offsets.size() < 1) throw py::value_error("offsets has no element; accepted are B + 1, the first one 0");
  if (token_type_ids) check_size("token_type_ids", *token_type_ids, token_ids.size(), "as many as token_ids");
  check_size("cu_seqlens", cu_seqlens, indices.size() + 1, "one more than indices");
  if (out.ndim() != 2 || out.shape(0) != 3) throw py::value_error("out is not of shape [3, t]");

  const sentcore::RaggedTokens tokens{token_ids.data(), offsets.data(),
                                      token_type_ids ? token_type_ids->data() : nullptr, token_ids.size(),
                                      offsets.size() - 1};
  const std::int64_t t = out.shape(1);
  std::int64_t* rows = out.mutable_data();
  const sentcore::PackedArrays packed{rows, rows + t, rows + 2 * t, cu_seqlens.mutable_data(), t};
  const std::int64_t* chosen = indices.data();
  const std::int64_t count = indices.size();
  py::gil_scoped_release no_gil;
  return sentcore::pack_batch(tokens, chosen, count, packed);
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "sentcore's compiled part; importing it registers the kernels with torch";
  module.def("build_info", &build_info, "What was compiled in, as a dict");
#ifdef SENTCORE_WITH_CUDA
  py::enum_<sentcore::Kernels>(module, "Kernels")
      .value("portable", sentcore::Kernels::portable)
      .value("measured", sentcore::Kernels::measured)
      .value("sm_90a", sentcore::Kernels::sm90a);
  py::enum_<sentcore::Choice>(module, "Choice")
      .value("linear", sentcore::Choice::linear)
      .value("linear_input_gradient", sentcore::Choice::linear_input_gradient)
      .value("linear_weight_gradient", sentcore::Choice::linear_weight_gradient)
      .value("attention", sentcore::Choice::attention)
      .value("fp8_linear", sentcore::Choice::fp8_linear)
      .value("linear_add_layer_norm", sentcore::Choice::linear_add_layer_norm);
  py::enum_<sentcore::Dtype>(module, "Dtype")
      .value("bfloat16", sentcore::Dtype::bfloat16)
      .value("float16", sentcore::Dtype::float16);
  module.def("choose_kernels", &sentcore::choose_kernels, py::arg("kernels"));
  module.def("takes_sm90a", &sentcore::takes_sm90a, py::arg("choice"), py::arg("dtype"), py::arg("first"),
             py::arg("second"));
  module.def("add_kernel_choice", &sentcore::add_kernel_choice, py::arg("choice"), py::arg("dtype"), py::arg("first"),
             py::arg("second"));
#endif
  // noconvert: a silent copy would hide a wrong dtype, and out arrays would not be filled at all.
  module.def("plan_batches", &plan_batches, py::arg("lengths").noconvert(), py::arg("batch_tokens"));
  module.def("pack_batch", &pack_batch, py::arg("token_ids").noconvert(), py::arg("offsets").noconvert(),
             py::arg("token_type_ids").noconvert().none(true), py::arg("indices").noconvert(),
             py::arg("out").noconvert(), py::arg("cu_seqlens").noconvert());
}
