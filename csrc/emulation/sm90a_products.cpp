// The products of a warpgroup.
#include <deque>
#include <map>
#include <vector>

#include "emulation/sm90a.h"

namespace sentcore::ptx {

using emulation::current;
using emulation::fail;
using emulation::Place;

namespace emulated {
namespace {

struct Products {
  std::vector<Product> open;                // not yet in a group
  std::deque<std::vector<Product>> groups;  // oldest first
  bool fenced = false;
};
struct ProductsOfThreads {
  std::map<int, Products> of;
};
Products& products() { return emulation::of_block<ProductsOfThreads>().of[current->linear]; }

float from_bits(std::uint16_t bits, Element element) {
  return element == Element::bfloat16 ? float_from_bfloat16_bits(bits) : float_from_float16_bits(bits);
}

float element_at(std::uint32_t address, Element element) {
  const void* p = emulation::from_shared_address(swizzled(address));
  if (element == Element::e4m3) return float_from_e4m3({*static_cast<const std::uint8_t*>(p)});
  std::uint16_t bits = 0;
  std::memcpy(&bits, p, 2);
  return from_bits(bits, element);
}

// The element of an operand at (outer, depth), as the descriptor's fields say.
float element_of(std::uint64_t descriptor, bool by_depth, Element element, int outer, int depth) {
  const auto start = static_cast<std::uint32_t>(descriptor & 0x3fff) << 4;
  const auto leading = static_cast<std::uint32_t>(descriptor >> 16 & 0x3fff) << 4;
  const auto stride = static_cast<std::uint32_t>(descriptor >> 32 & 0x3fff) << 4;
  const auto r = static_cast<std::uint32_t>(outer), k = static_cast<std::uint32_t>(depth);
  const std::uint32_t bytes = element == Element::e4m3 ? 1 : 2;
  if (by_depth) return element_at(start + r / 8 * stride + r % 8 * 128 + k * bytes, element);
  return element_at(start + r / 64 * leading + k / 8 * stride + k % 8 * 128 + r % 64 * 2, element);
}

void compute(const Product& p) {
  constexpr int kMostDepth = 32;
  const int depth = p.element == Element::e4m3 ? 32 : 16;
  const int group = current->lane / 4, pair = 2 * (current->lane % 4);
  const int first_row = current->warp % 4 * 16 + group;
  float a[2][kMostDepth], b[kMostDepth];
  for (int half = 0; half < 2; ++half) {
    for (int k = 0; k < depth; ++k) {
      if (p.a_in_registers) {
        const std::uint32_t two = p.registers[k % 8 / 2][half + 2 * (k / 8)];
        a[half][k] = from_bits(static_cast<std::uint16_t>(two >> (16 * (k % 2))), p.element);
      } else {
        a[half][k] = element_of(p.a, p.a_by_depth, p.element, first_row + 8 * half, k);
      }
    }
  }
  for (int tile = 0; tile < p.columns / 8; ++tile) {
    for (int which = 0; which < 2; ++which) {
      for (int k = 0; k < depth; ++k) b[k] = element_of(p.b, p.b_by_depth, p.element, tile * 8 + pair + which, k);
      for (int half = 0; half < 2; ++half) {
        float& sum = p.sums[tile * 4 + half * 2 + which];
        float total = p.accumulate ? sum : 0.0f;
        for (int k = 0; k < depth; ++k) total += a[half][k] * b[k];
        sum = total;
      }
    }
  }
}

// Every lane of the warp is here.
void meet(const char* what, int line) {
  emulation::meet_warp({what, __FILE__, line}, 0xffffffffu, nullptr, nullptr,
                       [](const void* const*, void* const*, unsigned) {});
}

// Lanes tell each other their operands: the descriptors must agree, and A's registers are shared by fours.
void exchange(const void* const* in, void* const* out, unsigned) {
  for (int lane = 0; lane < emulation::kWarpSize; ++lane) {
    const auto& first = *static_cast<const Product*>(in[0]);
    auto& mine = *static_cast<Product*>(out[lane]);
    if (mine.a != first.a || mine.b != first.b || mine.accumulate != first.accumulate) mine.columns = 0;
    for (int other = 0; other < 4; ++other) {
      const auto& theirs = *static_cast<const Product*>(in[lane / 4 * 4 + other]);
      for (int r = 0; r < 4; ++r) mine.registers[other][r] = theirs.registers[0][r];
    }
  }
}

}  // namespace

void start(Product product) {
  Products& p = products();
  const Place place{"multiply_64", __FILE__, __LINE__};
  if (!p.fenced) fail(place, "no product_fence since the last wait");
  const Product given = product;
  emulation::meet_warp(place, 0xffffffffu, &given, &product, &exchange);
  if (product.columns == 0) fail(place, "the lanes of a warp give different operands");
  if ((!product.a_in_registers && product.a >> 62 != 1) || product.b >> 62 != 1) {
    fail(place, "the operand is not swizzled by 128 bytes");
  }
  p.open.push_back(product);
}

void fence() {
  meet("product_fence", __LINE__);
  products().fenced = true;
}

void commit() {
  meet("product_commit", __LINE__);
  Products& p = products();
  p.groups.push_back(std::move(p.open));
  p.open.clear();
}

void wait(int pending) {
  Products& p = products();
  while (static_cast<int>(p.groups.size()) > pending) {
    for (const Product& product : p.groups.front()) compute(product);
    p.groups.pop_front();
  }
  if (p.groups.empty()) p.fenced = false;
  meet("product_wait", __LINE__);  // the warp goes on as one: what a lane says then, it says for all
}

}  // namespace emulated
}  // namespace sentcore::ptx
