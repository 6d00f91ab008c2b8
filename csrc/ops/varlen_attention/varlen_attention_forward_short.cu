// Forward kernel of varlen_attention on tensor cores for short sentences; varlen_attention.h says what each tensor is.
//
// A warp has a head of a sentence to itself: its keys fit one tile, so each element is read once, no warp waits for
// another, and none is idle because the sentence is shorter than the longest one. Each row goes through the operations
// of varlen_attention_forward_mma.cu in their order, so which of the two kernels takes a sentence leaves no trace in
// it.

#include "ops/varlen_attention/dispatch.cuh"
#include "ops/varlen_attention/mma_scores.cuh"

namespace sentcore {
namespace attention {
namespace {

constexpr int kWarpsByRegisters = 16;  // of a multiprocessor; shared memory leaves room for 14 at D = 32

// All queries of a sentence of (kChunks - 1) * 16 + 1 to kChunks * 16 keys; one chunk is also for no key at all.
// kChunks is known to the compiler, so that the whole row of scores is without a branch.
template <typename T, int kD, int kChunks>
__device__ __forceinline__ void attend(const VarlenAttentionForward& args, const Terms<T>& terms, T* queries,
                                       const T* keys, const T* values) {
  constexpr int kTiles = 2 * kChunks;
  const VarlenAttention& given = args.given;
  const Sentence& sentence = terms.sentence;
  const std::int64_t stride = static_cast<std::int64_t>(given.heads) * given.size;
  T* const target = static_cast<T*>(args.out) + sentence.first_q * stride + terms.head * given.size;
#pragma unroll 1
  for (int first_row = 0; first_row < sentence.length_q; first_row += kRowsPerWarp) {
    T* const own = queries + first_row * kPitch<kD>;
    float scores[kTiles][4];
    multiply_rows<kD, kChunks>(scores, [&](int k, std::uint32_t (&a)[4]) { load_left<kD>(a, own, k); }, keys, kChunks);
    finish_scores<false>(terms, first_row, 0, scores);

    float maximum[2], sum[2] = {0.0f, 0.0f};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float highest = -kInfinity;
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        highest = fmaxf(highest, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
      }
      maximum[half] = row_max(highest);
      const float finite = maximum[half] == -kInfinity ? 0.0f : maximum[half];  // no key at all
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          scores[n][i] = ptx::exp2_approximate(scores[n][i] - finite);
          sum[half] += scores[n][i];
        }
      }
    }

    float out[kD / 8][4] = {};
    multiply_columns<kD, kChunks>(out, scores, values, kChunks);

    float factor[2];
    finish_rows(args, sentence, terms.head, first_row, maximum, sum, factor);
    store_rows<kD>(target + first_row * stride, stride, out, factor, own, sentence.length_q - first_row, given.size);
  }
}

// Grid: heads of sentences, a sentence's beside each other, whose rows lie beside each other in memory too. Shared
// memory: tiles of `rows` rows for the queries, keys and values.
template <typename T, int kD>
__global__ void __launch_bounds__(kWarpSize, kWarpsByRegisters)
    forward_short(const VarlenAttentionForward args, const int rows_q, const int rows_k) {
  SENTCORE_DYNAMIC_SHARED(T, queries);
  const VarlenAttention& given = args.given;
  const int index = static_cast<int>(blockIdx.x / static_cast<unsigned>(given.heads));
  const int head = static_cast<int>(blockIdx.x) - index * given.heads;
  const Sentence sentence(given, index);
  if (sentence.length_q <= 0 || !sentence.is_within(kShortRows) || sentence.length_k >= args.left_out_from) return;
  T* const keys = queries + rows_q * kPitch<kD>;
  T* const values = keys + rows_k * kPitch<kD>;

  // Each lane has a column of every kStep-th row, of all three in one loop.
  constexpr int kPacks = kD / 8, kStep = kWarpSize / kPacks;
  const int column = lane_of_thread() % kPacks * 8, first = lane_of_thread() / kPacks;
  const int at = head * given.size + column;
  const std::int64_t kv_start = (sentence.first_k + static_cast<std::int64_t>(first)) * given.kv_stride + at;
  const T* q =
      static_cast<const T*>(given.q) + (sentence.first_q + static_cast<std::int64_t>(first)) * given.q_stride + at;
  const T* k = static_cast<const T*>(given.k) + kv_start;
  const T* v = static_cast<const T*>(given.v) + kv_start;
  const std::int64_t q_step = kStep * given.q_stride, kv_step = kStep * given.kv_stride;
  const int chunks = sentence.length_k <= 16 ? 1 : (sentence.length_k + 15) / 16;
  const int padded_q = round_up(sentence.length_q, 16), padded_k = chunks * 16, padded = larger(padded_q, padded_k);
  int place = first * kPitch<kD> + column;
  for (int row = first; row < padded; row += kStep, place += kStep * kPitch<kD>) {
    const bool no_column = column >= given.size;
    if (row < padded_q) ptx::copy_async_16(queries + place, q, no_column || row >= sentence.length_q);
    if (row < padded_k) {
      const bool outside = no_column || row >= sentence.length_k;
      ptx::copy_async_16(keys + place, k, outside);
      ptx::copy_async_16(values + place, v, outside);
    }
    q += q_step;
    k += kv_step;
    v += kv_step;
  }
  ptx::copy_async_commit();
  ptx::copy_async_wait<0>();
  __syncwarp();  // what all lanes have copied is there

  const Terms<T> terms(given, sentence, head);
  if (chunks == 1) {
    attend<T, kD, 1>(args, terms, queries, keys, values);
  } else if (chunks == 2) {
    attend<T, kD, 2>(args, terms, queries, keys, values);
  } else if (chunks == 3) {
    attend<T, kD, 3>(args, terms, queries, keys, values);
  } else {
    attend<T, kD, 4>(args, terms, queries, keys, values);
  }
}

template <typename T, int kD>
cudaError_t start(const VarlenAttentionForward& args, cudaStream_t stream) {
  const VarlenAttention& given = args.given;
  const int rows_q = tile_rows(given.max_seqlen_q, kShortRows), rows_k = tile_rows(given.max_seqlen_k, kShortRows);
  const std::size_t bytes = static_cast<std::size_t>(rows_q + 2 * rows_k) * kPitch<kD> * sizeof(T);
  const LaunchShape shape{dim3(grid_x(given.sentences * given.heads)), dim3(kWarpSize), bytes};
  return launch(forward_short<T, kD>, shape, stream, args, rows_q, rows_k);
}

template <typename T>
cudaError_t for_size(const VarlenAttentionForward& args, cudaStream_t stream) {
  return args.given.size <= 32 ? start<T, 32>(args, stream) : start<T, 64>(args, stream);
}

}  // namespace
}  // namespace attention

cudaError_t varlen_attention_forward_short(const VarlenAttentionForward& args, cudaStream_t stream) {
  return args.given.dtype == Dtype::bfloat16 ? attention::for_size<__nv_bfloat16>(args, stream)
                                             : attention::for_size<__half>(args, stream);
}

}  // namespace sentcore
