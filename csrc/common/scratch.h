// Memory that a kernel needs for a moment, kept by the thread for its next call: of megabytes that malloc gets from the
// system anew, every page costs a fault, together as much as a tenth of a training step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace sentcore::cpu {

// `count` floats, not initialized, from the beginning of a cache line on.
class Scratch {
 public:
  explicit Scratch(std::int64_t count) : block_(kept().take(static_cast<std::size_t>(count) * sizeof(float))) {}
  ~Scratch() { kept().put(std::move(block_)); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  float* get() const {
    const auto address = reinterpret_cast<std::uintptr_t>(block_.bytes.get());
    return reinterpret_cast<float*>(block_.bytes.get() + (kLine - address % kLine) % kLine);
  }

 private:
  static constexpr std::size_t kLine = 64;
  static constexpr std::size_t kMostKept = std::size_t{256} << 20;  // bytes of a thread, while nothing uses them

  struct Block {
    std::unique_ptr<unsigned char[]> bytes;
    std::size_t size = 0;
  };

  class Kept {
   public:
    // The smallest block that is large enough and not much too large, or a new one.
    Block take(std::size_t size) {
      auto best = blocks_.end();
      for (auto block = blocks_.begin(); block != blocks_.end(); ++block) {
        const bool fits = block->size >= size && block->size / 2 <= size + kSlack;
        if (fits && (best == blocks_.end() || block->size < best->size)) best = block;
      }
      if (best == blocks_.end()) return {std::unique_ptr<unsigned char[]>(new unsigned char[size + kLine]), size};
      Block found = std::move(*best);
      blocks_.erase(best);
      total_ -= found.size;
      return found;
    }

    // The blocks that have lain longest go first.
    void put(Block block) {
      total_ += block.size;
      blocks_.push_back(std::move(block));
      auto end = blocks_.begin();
      while (total_ > kMostKept) total_ -= (end++)->size;
      blocks_.erase(blocks_.begin(), end);
    }

   private:
    static constexpr std::size_t kSlack = std::size_t{1} << 16;
    std::vector<Block> blocks_;
    std::size_t total_ = 0;
  };

  static Kept& kept() {
    static thread_local Kept kept;
    return kept;
  }

  Block block_;
};

}  // namespace sentcore::cpu
