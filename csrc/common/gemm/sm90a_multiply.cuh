// The product on sm_90a: a block to a multiprocessor, which takes tiles of 128 rows one after the other. One thread has
// the copy engine fill stages of 64 of K in shared memory; two warpgroups multiply, each a tile of its own in turn, so
// that one stores its sums while the other one multiplies.
#pragma once

#include "common/e4m3.h"
#include "common/gemm/kernels.h"
#include "common/gemm/sm90a_tile.cuh"
#include "common/sm90a/machine.h"
#include "common/sm90a/ring.cuh"

namespace sentcore::gemm {

constexpr int kDepth = 64;  // of a stage: 128 bytes
constexpr int kSm90aThreads = 3 * kWarpgroup;

struct Sm90aMaps {
  TensorMap a;
  TensorMap b[3];
  TensorMap out;
  TensorMap pre;
};

struct Sm90aTiles {
  int rows, columns, slices;  // how many
  int slice_depth;
};

// kScaled: e4m3's scales of the columns lie beside their biases, and take the room of a stage.
template <int kColumns, bool kScaled>
struct Sm90aShared {
  static constexpr int stage_bytes = (2 + kColumns / 64) * kBox;
  static constexpr int stages = (kScaled ? 128 : 160) * 1024 / stage_bytes;
  static constexpr int staged = stages * stage_bytes;                         // where the boxes that are stored begin
  static constexpr std::size_t bytes = staged + 2 * 2 * kStagedBytes + 1024;  // whose beginning is aligned to 1024
  // The static ones of multiply_sm90a: barriers, and what both tiles' columns add; each aligned to 16 bytes, all to
  // 128.
  static constexpr std::size_t fixed =
      (2 * stages + 2) * sizeof(ptx::Barrier) + 2 * sizeof(ColumnTerms<kColumns, kScaled>) + 4 * 16 + 128;
  static_assert(bytes + fixed <= kSm90aSharedBytes, "a block cannot have as much: CUDA refuses the launch");
};

// The tile of this number, columns fastest, so that the rows of A stay in L2.
struct Sm90aTile {
  int row0, column0, slice, begin, steps;
  __device__ __forceinline__ Sm90aTile(const Gemm& args, const Sm90aTiles& tiles, int number, int columns) {
    const int in_slice = number % (tiles.rows * tiles.columns);
    slice = number / (tiles.rows * tiles.columns);
    row0 = in_slice / tiles.columns * kSm90aRows;
    column0 = in_slice % tiles.columns * columns;
    begin = slice * tiles.slice_depth;
    const int depth = static_cast<int>(args.depth), end = begin + tiles.slice_depth;
    steps = begin >= depth ? 0 : ((end < depth ? end : depth) - begin + kDepth - 1) / kDepth;
  }
};

// Fills one stage. kA, kB: the operand's memory runs along K.
template <int kColumns, bool kA, bool kB, bool kGated, bool kScaled>
__device__ __forceinline__ void fill(const Sm90aMaps& maps, const Gemm& args, const Sm90aTile& tile, int k,
                                     unsigned char* stage, ptx::Barrier* full) {
  ptx::barrier_arrive_and_expect(full, Sm90aShared<kColumns, kScaled>::stage_bytes);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = tile.row0 + i * 64;
    ptx::load_box(stage + i * kBox, &maps.a, full, kA ? row : k, kA ? k : row);
  }
  const int rows_of_part = static_cast<int>(args.b.rows_of_part), half = static_cast<int>(args.columns / 2);
#pragma unroll
  for (int i = 0; i < kColumns / 64; ++i) {
    const int column = kGated ? tile.column0 + i * half : tile.column0 + i * 64;  // a gated tile: 64 of each half
    int row = kB ? column : k;
    const int part = (row >= rows_of_part) + (row >= 2 * rows_of_part);
    row -= part * rows_of_part;
    // What a box past N holds is never stored.
    ptx::load_box(stage + (2 + i) * kBox, &maps.b[part], full, row, kB ? k : column);
  }
}

template <typename Element, int kColumns, bool kA, bool kB>
__device__ __forceinline__ void multiply_stage(float (&sums)[2][kColumns / 2], const unsigned char* stage, bool first) {
  const unsigned char* stage_b = stage + 2 * kBox;
#pragma unroll
  for (int k = 0; k < kDepth; k += 16) {
    const std::uint64_t b = kB ? ptx::operand(stage_b + k * 2) : ptx::operand(stage_b + k * kBoxBytes, kBox);
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      const unsigned char* box = stage + m * kBox;
      const std::uint64_t a = ptx::operand(kA ? box + k * 2 : box + k * kBoxBytes);
      ptx::multiply_64<Element, kA, kB, kColumns>(sums[m], a, b, !(first && k == 0));
    }
  }
}

// Chunk number c of a tile's sums.
template <int kColumns>
__device__ __forceinline__ void take_chunk(const float (&sums)[2][kColumns / 2], int c, Chunk& values) {
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int n = 0; n < kChunk / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) values[m][n][i] = sums[m][(c * (kChunk / 8) + n) * 4 + i];
    }
  }
}

// What a product's end is: an activation, or a rotation of heads, or sums as they are to slices or to `out`.
enum class End { plain, rotated, gelu, gelu_tanh, geglu, swiglu };
template <End kEnd>
constexpr bool kIsGated = kEnd == End::geglu || kEnd == End::swiglu;
template <End kEnd>
constexpr Activation kActivation = kEnd == End::gelu        ? Activation::gelu
                                   : kEnd == End::gelu_tanh ? Activation::gelu_tanh
                                   : kEnd == End::geglu     ? Activation::geglu
                                   : kEnd == End::swiglu    ? Activation::swiglu
                                                            : Activation::none;

template <typename T, int kColumns, bool kBias, bool kScaled, End kEnd>
__device__ __forceinline__ void store_tile(const Sm90aMaps& maps, const Gemm& args, const Sm90aTile& tile, int thread,
                                           Stager& stager, const ColumnTerms<kColumns, kScaled>& terms,
                                           const float (&sums)[2][kColumns / 2]) {
  if constexpr (kIsGated<kEnd>) {
    static_assert(kColumns == 2 * kChunk, "a chunk of each half");
    const int second = static_cast<int>(args.columns / 2);
    const AddTerms<kScaled> add_gate(args, terms, 0, tile.row0, thread), add(args, terms, kChunk, tile.row0, thread);
    Chunk gate, values;
    take_chunk<kColumns>(sums, 0, gate);
    take_chunk<kColumns>(sums, 1, values);
    if (args.epilogue.pre != nullptr) {
      stager.store<T>(&maps.pre, gate, tile.row0, tile.column0, add_gate);
      stager.store<T>(&maps.pre, values, tile.row0, second + tile.column0, add);
    }
    stager.store<T>(&maps.out, values, tile.row0, tile.column0, [&](int m, int half, int n, float2& pair) {
      float2 of_gate = make_float2(gate[m][n][2 * half], gate[m][n][2 * half + 1]);
      add_gate(m, half, n, of_gate);
      add(m, half, n, pair);
      pair =
          make_float2(activate(kActivation<kEnd>, of_gate.x) * pair.x, activate(kActivation<kEnd>, of_gate.y) * pair.y);
    });
  } else {
#pragma unroll
    for (int c = 0; c < kColumns / kChunk; ++c) {
      const int column0 = tile.column0 + c * kChunk;
      if (column0 >= args.columns) break;
      Chunk values;
      take_chunk<kColumns>(sums, c, values);
      const AddTerms<kScaled> add(args, terms, c * kChunk, tile.row0, thread);
      if constexpr (!kBias) {
        if (args.partial != nullptr) {
          store_slice(args, Seat(thread), tile.slice, tile.row0, column0, values);
        } else {
          stager.store<T>(&maps.out, values, tile.row0, column0, Unchanged());
        }
      } else if constexpr (kEnd == End::rotated) {
        rotate<T>(args, Seat(thread), tile.row0, column0, add, values);
        stager.store<T>(&maps.out, values, tile.row0, column0, Unchanged());
      } else if constexpr (kEnd == End::plain) {
        stager.store<T>(&maps.out, values, tile.row0, column0, add);
      } else {
        if (args.epilogue.pre != nullptr) stager.store<T>(&maps.pre, values, tile.row0, column0, add);
        stager.store<T>(&maps.out, values, tile.row0, column0, [&add](int m, int half, int n, float2& pair) {
          add(m, half, n, pair);
          pair = make_float2(activate(kActivation<kEnd>, pair.x), activate(kActivation<kEnd>, pair.y));
        });
      }
    }
  }
}

template <typename T, typename Element, int kColumns, bool kA, bool kB, End kEnd>
__global__ void __launch_bounds__(kSm90aThreads, 1)
    multiply_sm90a(const __grid_constant__ Sm90aMaps maps, const Gemm args, const Sm90aTiles tiles) {
  constexpr bool kScaled = sizeof(Element) == 1;
  using Shared = Sm90aShared<kColumns, kScaled>;
  constexpr bool kGated = kIsGated<kEnd>;
  constexpr int kTileColumns = kGated ? kColumns / 2 : kColumns;
  SENTCORE_DYNAMIC_SHARED(unsigned char, dynamic);
  SENTCORE_SHARED(ptx::Barrier, full, [Shared::stages]);
  SENTCORE_SHARED(ptx::Barrier, empty, [Shared::stages]);
  SENTCORE_SHARED(ptx::Barrier, order, [2]);  // a warpgroup's turn to multiply
  using Terms = ColumnTerms<kColumns, kScaled>;
  SENTCORE_SHARED(Terms, terms, [2]);  // of each warpgroup's tile
  unsigned char* shared = dynamic + (1024 - ptx::shared_address(dynamic) % 1024) % 1024;
  const int thread = static_cast<int>(threadIdx.x), group = ptx::uniform(thread / kWarpgroup);
  const int count = tiles.rows * tiles.columns * tiles.slices, step = static_cast<int>(gridDim.x);
  if (thread == 0) {
    for (int i = 0; i < Shared::stages; ++i) {
      ptx::barrier_init(&full[i], 1);
      ptx::barrier_init(&empty[i], kWarpgroup / kWarpSize);  // each stage is read by one warpgroup
    }
    for (int i = 0; i < 2; ++i) ptx::barrier_init(&order[i], kWarpgroup / kWarpSize);
    ptx::barrier_init_fence();
  }
  __syncthreads();  // the barriers are made

  ptx::Turn<Shared::stages> turn;
  if (group == 2) {  // of the three, the one that fills
    ptx::give_registers<kGivenRegisters>();
    if (thread % kWarpgroup != 0) return;
    for (int number = static_cast<int>(blockIdx.x); number < count; number += step) {
      const Sm90aTile tile(args, tiles, number, kTileColumns);
      for (int i = 0; i < tile.steps; ++i) {
        ptx::barrier_wait(&empty[turn.stage], turn.parity ^ 1u);
        fill<kColumns, kA, kB, kGated, kScaled>(maps, args, tile, tile.begin + i * kDepth,
                                                shared + turn.stage * Shared::stage_bytes, &full[turn.stage]);
        turn.advance(1);
      }
    }
  } else {
    ptx::take_registers<kTakenRegisters>();
    constexpr bool kBias = kA && kB;  // of a forward's product
    const int member = thread % kWarpgroup;
    Stager stager(ptx::shared_address(shared + Shared::staged + group * 2 * kStagedBytes), 1 + group, member);
    const bool releases = thread % kWarpSize == 0;
    int round = 0;
    for (int number = static_cast<int>(blockIdx.x); number < count; number += step, ++round) {
      const Sm90aTile tile(args, tiles, number, kTileColumns);
      if (round % 2 != group) {
        turn.advance(tile.steps);
        continue;
      }
      if (kBias) fetch_terms<T, kGated>(args, member, tile.column0, terms[group]);
      float sums[2][kColumns / 2] = {};  // of a slice without a step, and see wgmma.cuh
      // Only when the other warpgroup has seen all of its stages full: the parity of a stage tells a round from the
      // next one, and not from the one after that.
      if (round > 0) ptx::barrier_wait(&order[group], static_cast<unsigned>((round - 1) / 2) & 1u);
      int last = 0;  // the stage of the step before
      for (int i = 0; i < tile.steps; ++i) {
        ptx::barrier_wait(&full[turn.stage], turn.parity);
        ptx::product_fence();
        multiply_stage<Element, kColumns, kA, kB>(sums, shared + turn.stage * Shared::stage_bytes, i == 0);
        ptx::product_commit();
        ptx::product_wait<1>();
        if (i > 0 && releases) ptx::barrier_arrive(&empty[last]);
        last = turn.stage;
        turn.advance(1);
      }
      if (releases) ptx::barrier_arrive(&order[1 - group]);
      ptx::product_wait<0>();
      if (tile.steps > 0 && releases) ptx::barrier_arrive(&empty[last]);
      // The biases are there; the others read them after a barrier of the stager's.
      if (kEnd == End::rotated) ptx::named_barrier(1 + group, kWarpgroup);
      store_tile<T, kColumns, kBias, kScaled, kEnd>(maps, args, tile, member, stager, terms[group], sums);
    }
    stager.finish();
  }
}

// Element: T, or E4m3, of which two count as one element of 16 bits: args' depth and widths are half of theirs.
template <typename T, typename Element, int kColumns, bool kA, bool kB, End kEnd>
cudaError_t start_sm90a(const Gemm& args, cudaStream_t stream) {
  constexpr bool kGated = kIsGated<kEnd>;
  const std::int64_t columns = kGated ? args.columns / 2 : args.columns;
  Sm90aMaps maps{};
  cudaError_t status = make_tensor_map(&maps.a, args.a.part[0], args.a.rows_of_part, args.a.width, args.a.width);
  for (int i = 0; i < 3 && status == cudaSuccess; ++i) {
    const void* part = args.b.part[i] != nullptr ? args.b.part[i] : args.b.part[0];
    status = make_tensor_map(&maps.b[i], part, args.b.rows_of_part, args.b.width, args.b.width);
  }
  if (status == cudaSuccess && args.partial == nullptr) {
    status = make_tensor_map(&maps.out, args.out, args.rows, columns, columns);
    if (status == cudaSuccess && args.epilogue.pre != nullptr) {
      status = make_tensor_map(&maps.pre, args.epilogue.pre, args.rows, args.columns, args.columns);
    }
  }
  if (status != cudaSuccess) return status;
  const Slices slices = slices_of(args);
  const Sm90aTiles tiles{static_cast<int>(ceil_div<std::int64_t>(args.rows, kSm90aRows)),
                         static_cast<int>(ceil_div<std::int64_t>(columns, kGated ? kColumns / 2 : kColumns)),
                         static_cast<int>(slices.count), static_cast<int>(slices.depth)};
  const std::int64_t count = std::int64_t{tiles.rows} * tiles.columns * tiles.slices;
  if (count > (1 << 30)) return cudaErrorInvalidConfiguration;
  LaunchShape shape{dim3(static_cast<unsigned>(count < multiprocessors() ? count : multiprocessors())),
                    dim3(kSm90aThreads), Sm90aShared<kColumns, sizeof(Element) == 1>::bytes};
  shape.shared_limit = kSm90aSharedBytes;
  return launch(multiply_sm90a<T, Element, kColumns, kA, kB, kEnd>, shape, stream, maps, args, tiles);
}

}  // namespace sentcore::gemm
