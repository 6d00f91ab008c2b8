// The asynchronous copies a thread has started and not yet waited for.
#pragma once

#include <deque>
#include <vector>

namespace sentcore::emulation {

struct PendingCopies {
  struct Copy {
    void* shared;
    const void* global;
    bool fill;
  };
  std::vector<Copy> open;                // not yet in a group
  std::deque<std::vector<Copy>> groups;  // oldest first
};

}  // namespace sentcore::emulation
