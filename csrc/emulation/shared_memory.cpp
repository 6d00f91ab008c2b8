#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "emulation/machine.h"

namespace sentcore::emulation {

void* shared_object(const void* key, std::size_t bytes) {
  auto found = runtime().shared.find(key);
  if (found == runtime().shared.end()) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 128, bytes) != 0) throw std::bad_alloc();
    std::memset(memory, kPoison, bytes);
    SharedBytes owned(static_cast<unsigned char*>(memory), &std::free);
    found = runtime().shared.emplace(key, std::make_pair(std::move(owned), bytes)).first;
  }
  return found->second.first.get();
}

void* dynamic_shared() {
  const auto found = runtime().shared.find(&runtime().dynamic_key);
  return found == runtime().shared.end() ? nullptr : found->second.first.get();
}

bool is_shared(const void* p, std::size_t bytes) {
  const auto* begin = static_cast<const unsigned char*>(p);
  return std::any_of(runtime().shared.begin(), runtime().shared.end(), [&](const auto& object) {
    const unsigned char* memory = object.second.first.get();
    return begin >= memory && begin + bytes <= memory + object.second.second;
  });
}

// Some bytes past a multiple of 1024, so that a kernel that needs more than 128 bytes' alignment has to see to it.
constexpr std::uint32_t kFirstAddress = 1024 + 128;

std::uint32_t shared_address(const void* p) {
  const auto* begin = static_cast<const unsigned char*>(dynamic_shared());
  return kFirstAddress + static_cast<std::uint32_t>(static_cast<const unsigned char*>(p) - begin);
}

void* from_shared_address(std::uint32_t address) {
  return static_cast<unsigned char*>(dynamic_shared()) + (address - kFirstAddress);
}

}  // namespace sentcore::emulation
