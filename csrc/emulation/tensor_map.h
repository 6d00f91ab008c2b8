// The emulated form of a tensor map.
#pragma once

#include <cstdint>

namespace sentcore {

struct TensorMap {
  unsigned char* matrix;
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t stride;
};

}  // namespace sentcore
