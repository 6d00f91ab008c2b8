// Forward kernel of varlen_attention on sm_90a, for head sizes of 64 and 128 without options, as FlashAttention-3
// arranges it (Shah et al. 2024): a block to a multiprocessor takes pieces of work one after the other; one thread has
// the copy engine bring queries, keys and values; two warpgroups of 64 queries each compute, and the scores of the next
// keys are multiplied while those of the last ones go into the outputs. A row depends on its own sentence alone.

#include "common/choices/choices.h"
#include "ops/varlen_attention/dispatch.cuh"
#include "ops/varlen_attention/sm90a_tiles.cuh"

namespace sentcore {
namespace attention {
namespace {

constexpr int kThreads = (kGroups + 1) * kWarpgroup;
constexpr int kArrivals = kGroups * kWarpgroup / kWarpSize;  // every computing warp says that it has read
constexpr int kBothGroups = 3;                               // the number of a barrier; 1 and 2 are each group's own

struct Barriers {
  ptx::Barrier queries_full[2], queries_read[2];
  ptx::Barrier keys_full[4], keys_read[4], values_full[4], values_read[4];
};

// A box for each 64 rows and 64 columns of a tile; `at` says where its place is.
template <int kD, typename At>
__device__ __forceinline__ void load_tile(unsigned char* tile, const TensorMap* map, ptx::Barrier* full, int rows,
                                          int first_row, int first_column, const At& at) {
  ptx::barrier_arrive_and_expect(full, static_cast<unsigned>(rows * (kD / 64) * kBox));
#pragma unroll
  for (int r = 0; r < 2; ++r) {
#pragma unroll
    for (int c = 0; c < kD / 64; ++c) {
      ptx::load_box(tile + at(r, c) * kBox, map, full, first_row + r * kBoxRows, first_column + c * 64);
    }
  }
}

template <int kD>
__device__ __forceinline__ void bring(const Sm90aMaps& maps, const VarlenAttentionForward& args, Barriers& barriers,
                                      unsigned char* shared, std::int64_t count, int row_tiles, int keys_from) {
  using Tiles = Sm90aTiles<kD>;
  ptx::Turn<Tiles::query_stages> query;
  ptx::Turn<Tiles::stages> turn;
  for (std::int64_t number = blockIdx.x; number < count; number += gridDim.x) {
    const Sm90aWork work(args.given, number, row_tiles, keys_from);
    if (!work.exists) continue;
    const int column = work.head * kD;
    ptx::barrier_wait(&barriers.queries_read[query.stage], query.parity ^ 1u);
    load_tile<kD>(shared + query.stage * Tiles::query_bytes, &maps.q, &barriers.queries_full[query.stage], kGroups,
                  work.sentence.first_q + work.row, column, [](int r, int c) { return r * Tiles::wide + c; });
    query.advance(1);
    for (int tile = 0; tile < work.tiles; ++tile) {
      const int row = work.sentence.first_k + tile * kTileKeys;
      ptx::barrier_wait(&barriers.keys_read[turn.stage], turn.parity ^ 1u);
      load_tile<kD>(shared + Tiles::keys + turn.stage * Tiles::tile_bytes, &maps.k, &barriers.keys_full[turn.stage], 2,
                    row, column, [](int r, int c) { return c * 2 + r; });
      ptx::barrier_wait(&barriers.values_read[turn.stage], turn.parity ^ 1u);
      load_tile<kD>(shared + Tiles::values + turn.stage * Tiles::tile_bytes, &maps.v, &barriers.values_full[turn.stage],
                    2, row, column, [](int r, int c) { return r * Tiles::wide + c; });
      turn.advance(1);
    }
  }
}

// Rows of the values past the sentence's end are another sentence's, and 0 times what they hold need not be 0.
template <int kD>
__device__ __forceinline__ void clear_values(unsigned char* tile, int end, int thread) {
  if (thread < kTileKeys && thread >= end) {
    unsigned char* row = tile + thread / kBoxRows * Sm90aTiles<kD>::wide * kBox + thread % kBoxRows * kBoxBytes;
#pragma unroll
    for (int c = 0; c < kD / 64; ++c) {
#pragma unroll
      for (int i = 0; i < kBoxBytes / 16; ++i) ptx::store(reinterpret_cast<uint4*>(row + c * kBox) + i, uint4{});
    }
  }
  ptx::fence_for_copies();
  ptx::named_barrier(kBothGroups, kGroups * kWarpgroup);  // the rows are zero
}

// A warpgroup's 64 rows of outputs, times `factor`, through its queries' place in shared memory to `target`, whole rows
// at a time.
template <typename T, int kD>
__device__ __forceinline__ void store_outputs(const float (&out)[kD / 2], const float (&factor)[2],
                                              unsigned char* staged, T* target, std::int64_t stride, int rows,
                                              int group, int thread) {
  ptx::forget(thread);  // what follows from it would be kept in registers all the time
  const int row = thread / kWarpSize * 16 + thread % kWarpSize / 4, column = thread % 4 * 2;
  const std::uint32_t place =
      ptx::shared_address(staged) + static_cast<std::uint32_t>(row * kBoxBytes + row % 8 * 16 + column * 2);
  ptx::named_barrier(1 + group, kWarpgroup);  // no product reads the queries any more
#pragma unroll
  for (int n = 0; n < kD / 8; ++n) {
    const std::uint32_t unit = (place ^ static_cast<std::uint32_t>(n % 8 * 16)) + n / 8 * kBox;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      ptx::store_shared(unit + half * 8 * kBoxBytes, ptx::pack_pair<T>(out[4 * n + 2 * half] * factor[half],
                                                                       out[4 * n + 2 * half + 1] * factor[half]));
    }
  }
  ptx::named_barrier(1 + group, kWarpgroup);  // the outputs are there
#pragma unroll
  for (int i = thread; i < 64 * kD / 8; i += kWarpgroup) {
    const int r = i / (kD / 8), c = i % (kD / 8);
    if (r >= rows) continue;
    const unsigned char* source = staged + c / 8 * kBox + r * kBoxBytes + (c % 8 ^ r % 8) * 16;
    ptx::store(reinterpret_cast<uint4*>(target + r * stride) + c, *reinterpret_cast<const uint4*>(source));
  }
  ptx::fence_for_copies();  // these reads come before the copy of the next queries
}

template <typename T, int kD>
__device__ __forceinline__ void compute(const VarlenAttentionForward& args, Barriers& barriers, unsigned char* shared,
                                        std::int64_t count, int row_tiles, int keys_from, int group, int thread) {
  using Tiles = Sm90aTiles<kD>;
  const VarlenAttention& given = args.given;
  const bool says = thread % kWarpSize == 0;
  const int column = thread % 4 * 2;
  const float scale = given.scale * kLog2E;
  ptx::Turn<Tiles::query_stages> query;
  ptx::Turn<Tiles::stages> key, value;
  for (std::int64_t number = blockIdx.x; number < count; number += gridDim.x) {
    const Sm90aWork work(given, number, row_tiles, keys_from);
    if (!work.exists) continue;
    unsigned char* queries = shared + query.stage * Tiles::query_bytes + group * Tiles::wide * kBox;
    const auto keys_of = [&] { return shared + Tiles::keys + key.stage * Tiles::tile_bytes; };
    const auto values_of = [&] { return shared + Tiles::values + value.stage * Tiles::tile_bytes; };
    Scores scores = {};  // see wgmma.cuh
    std::uint32_t fragments[kTileKeys / 16][4];
    float out[kD / 2] = {};
    float maximum[2] = {-kInfinity, -kInfinity}, sum[2] = {}, shrink[2];

    ptx::barrier_wait(&barriers.queries_full[query.stage], query.parity);
    ptx::barrier_wait(&barriers.keys_full[key.stage], key.parity);
    ptx::product_fence();
    start_scores<T, kD>(scores, queries, keys_of());
    ptx::product_commit();
    ptx::product_wait<0>();
    if (says) ptx::barrier_arrive(&barriers.keys_read[key.stage]);
    key.advance(1);
    soften(scores, scale, work.sentence.length_k, column, maximum, sum, shrink);
    to_fragments<T>(scores, fragments);
    for (int tile = 1; tile < work.tiles; ++tile) {
      ptx::barrier_wait(&barriers.keys_full[key.stage], key.parity);
      ptx::barrier_wait(&barriers.values_full[value.stage], value.parity);
      ptx::product_fence();
      start_scores<T, kD>(scores, queries, keys_of());
      ptx::product_commit();
      start_outputs<T, kD>(out, fragments, values_of(), tile == 1);
      ptx::product_commit();
      ptx::product_wait<1>();  // the scores are there
      if (says) ptx::barrier_arrive(&barriers.keys_read[key.stage]);
      key.advance(1);
      soften(scores, scale, work.sentence.length_k - tile * kTileKeys, column, maximum, sum, shrink);
      ptx::compute_before(sum[0] + sum[1]);
      ptx::product_wait<0>();  // and the outputs of the tile before
      if (says) ptx::barrier_arrive(&barriers.values_read[value.stage]);
      value.advance(1);
#pragma unroll
      for (int i = 0; i < kD / 2; ++i) out[i] *= shrink[i % 4 / 2];
      to_fragments<T>(scores, fragments);
    }
    ptx::barrier_wait(&barriers.values_full[value.stage], value.parity);
    const int end = work.sentence.length_k - (work.tiles - 1) * kTileKeys;
    if (end < kTileKeys) clear_values<kD>(values_of(), end, group * kWarpgroup + thread);
    ptx::product_fence();
    start_outputs<T, kD>(out, fragments, values_of(), work.tiles == 1);
    ptx::product_commit();
    ptx::product_wait<0>();
    if (says) ptx::barrier_arrive(&barriers.values_read[value.stage]);
    value.advance(1);

    const int row = work.row + group * 64 + thread / kWarpSize * 16 + thread % kWarpSize / 4;
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sum[half] += __shfl_xor_sync(kFullMask, sum[half], 1);
      sum[half] += __shfl_xor_sync(kFullMask, sum[half], 2);
      factor[half] = sum[half] == 0.0f ? 0.0f : 1.0f / sum[half];
      if (args.lse != nullptr && thread % 4 == 0 && row + 8 * half < work.sentence.length_q) {
        args.lse[(static_cast<std::int64_t>(work.sentence.first_q) + row + 8 * half) * given.heads + work.head] =
            sum[half] == 0.0f ? -kInfinity : maximum[half] * kLn2 + logf(sum[half]);
      }
    }
    const std::int64_t stride = static_cast<std::int64_t>(given.heads) * kD;
    T* target = static_cast<T*>(args.out) +
                (static_cast<std::int64_t>(work.sentence.first_q) + work.row + group * 64) * stride + work.head * kD;
    store_outputs<T, kD>(out, factor, queries, target, stride, work.sentence.length_q - work.row - group * 64, group,
                         thread);
    __syncwarp();  // the warp has read its outputs
    if (says) ptx::barrier_arrive(&barriers.queries_read[query.stage]);
    query.advance(1);
  }
}

template <typename T, int kD>
__global__ void __launch_bounds__(kThreads, 1)
    forward_sm90a(const __grid_constant__ Sm90aMaps maps, const VarlenAttentionForward args, std::int64_t count,
                  int row_tiles, int keys_from) {
  SENTCORE_DYNAMIC_SHARED(unsigned char, dynamic);
  SENTCORE_SHARED(Barriers, shared_barriers, [1]);
  Barriers& barriers = shared_barriers[0];
  unsigned char* shared = dynamic + (1024 - ptx::shared_address(dynamic) % 1024) % 1024;
  const int thread = static_cast<int>(threadIdx.x), group = thread / kWarpgroup;
  if (thread == 0) {
    for (int i = 0; i < 2; ++i) {
      ptx::barrier_init(&barriers.queries_full[i], 1);
      ptx::barrier_init(&barriers.queries_read[i], kArrivals);
    }
    for (int i = 0; i < 4; ++i) {
      ptx::barrier_init(&barriers.keys_full[i], 1);
      ptx::barrier_init(&barriers.keys_read[i], kArrivals);
      ptx::barrier_init(&barriers.values_full[i], 1);
      ptx::barrier_init(&barriers.values_read[i], kArrivals);
    }
    ptx::barrier_init_fence();
  }
  __syncthreads();  // the barriers are made
  if (group == kGroups) {
    ptx::give_registers<kGivenRegisters>();
    if (thread % kWarpgroup == 0) bring<kD>(maps, args, barriers, shared, count, row_tiles, keys_from);
  } else {
    ptx::take_registers<kTakenRegisters>();
    compute<T, kD>(args, barriers, shared, count, row_tiles, keys_from, group, thread % kWarpgroup);
  }
}

template <typename T, int kD>
cudaError_t start(const VarlenAttentionForward& args, int keys_from, cudaStream_t stream) {
  const VarlenAttention& given = args.given;
  const std::int64_t width = static_cast<std::int64_t>(given.heads) * kD;
  Sm90aMaps maps{};
  cudaError_t status = make_tensor_map(&maps.q, given.q, given.tokens_q, width, given.q_stride);
  if (status == cudaSuccess) status = make_tensor_map(&maps.k, given.k, given.tokens_k, width, given.kv_stride);
  if (status == cudaSuccess) status = make_tensor_map(&maps.v, given.v, given.tokens_k, width, given.kv_stride);
  if (status != cudaSuccess) return status;
  const int row_tiles = (given.max_seqlen_q + kQueryRows - 1) / kQueryRows;
  const std::int64_t count = given.sentences * given.heads * row_tiles;
  LaunchShape shape{dim3(static_cast<unsigned>(count < multiprocessors() ? count : multiprocessors())), dim3(kThreads),
                    Sm90aTiles<kD>::bytes};
  shape.shared_limit = kSm90aSharedBytes;
  return launch(forward_sm90a<T, kD>, shape, stream, maps, args, count, row_tiles, keys_from);
}

template <typename T>
cudaError_t for_size(const VarlenAttentionForward& args, int keys_from, cudaStream_t stream) {
  if (args.given.size == 64) return start<T, 64>(args, keys_from, stream);
  if (args.given.size == 128) return start<T, 128>(args, keys_from, stream);
  return cudaErrorInvalidValue;
}

}  // namespace
}  // namespace attention

cudaError_t varlen_attention_forward_sm90a(const VarlenAttentionForward& args, int keys_from, cudaStream_t stream) {
  return args.given.dtype == Dtype::bfloat16 ? attention::for_size<__nv_bfloat16>(args, keys_from, stream)
                                             : attention::for_size<__half>(args, keys_from, stream);
}

}  // namespace sentcore
