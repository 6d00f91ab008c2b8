#include "inputs/planner.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

namespace sentcore {
namespace {

std::int64_t checked_longest(const std::int64_t* lengths, std::int64_t num_sentences) {
  std::int64_t longest = 0;
  for (std::int64_t i = 0; i < num_sentences; ++i) {
    if (lengths[i] < 0 || lengths[i] > kMaxLength) {
      throw std::invalid_argument("lengths[" + std::to_string(i) + "] is " + std::to_string(lengths[i]) +
                                  "; accepted are token counts from 0 to " + std::to_string(kMaxLength));
    }
    longest = std::max(longest, lengths[i]);
  }
  return longest;
}

// order = stable sort by length, longest first.
void sort_longest_first(const std::int64_t* lengths, std::int64_t num_sentences, std::int64_t longest,
                        std::int64_t* order) {
  // Token counts are small numbers, so counting them sorts in two passes. The table must not outgrow the
  // sentences by much: one text of 100 million tokens among ten is sorted by comparison instead.
  if (longest > 4 * num_sentences + 65536) {
    std::iota(order, order + num_sentences, std::int64_t{0});
    std::stable_sort(order, order + num_sentences,
                     [lengths](std::int64_t a, std::int64_t b) { return lengths[a] > lengths[b]; });
    return;
  }
  std::vector<std::int64_t> next(static_cast<std::size_t>(longest) + 1, 0);
  for (std::int64_t i = 0; i < num_sentences; ++i) ++next[lengths[i]];
  std::int64_t start = 0;
  for (std::int64_t length = longest; length >= 0; --length) {
    const std::int64_t count = next[length];
    next[length] = start;
    start += count;
  }
  for (std::int64_t i = 0; i < num_sentences; ++i) order[next[lengths[i]]++] = i;
}

}  // namespace

std::vector<std::int64_t> plan_batches(const std::int64_t* lengths, std::int64_t num_sentences,
                                       std::int64_t batch_tokens, std::int64_t* order) {
  if (batch_tokens < 1) {
    throw std::invalid_argument("batch_tokens is " + std::to_string(batch_tokens) +
                                "; accepted is a whole number of at least 1");
  }
  const std::int64_t longest = checked_longest(lengths, num_sentences);
  sort_longest_first(lengths, num_sentences, longest, order);

  std::vector<std::int64_t> batch_offsets{0};
  std::int64_t room = batch_tokens;  // of the open batch; below 0 when its one sentence is over the budget
  for (std::int64_t k = 0; k < num_sentences; ++k) {
    const std::int64_t length = lengths[order[k]];
    const bool batch_is_empty = batch_offsets.back() == k;
    if (!batch_is_empty && length > room) {
      batch_offsets.push_back(k);
      room = batch_tokens;
    }
    room -= length;
  }
  if (num_sentences > 0) batch_offsets.push_back(num_sentences);
  return batch_offsets;
}

}  // namespace sentcore
