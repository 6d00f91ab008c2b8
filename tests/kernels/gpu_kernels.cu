// Small kernels that show what the emulated GPU gives and what it refuses. They are CUDA like any other: nvcc compiles
// this file too. Each run_* function launches one and returns null, or the message of the error.

#include <cstdint>
#include <exception>
#include <string>

#include "common/dtypes.cuh"
#include "common/philox.cuh"
#include "common/reduce.cuh"

namespace {

using sentcore::kFullMask;
using sentcore::launch;
using sentcore::LaunchShape;
namespace ptx = sentcore::ptx;

// ---- meeting other threads ----

// out [8, 64] int32: one warp operation a row.
__global__ void warp_operations(int* out) {
  const int i = static_cast<int>(threadIdx.x), lane = i % 32;
  out[0 * 64 + i] = __shfl_sync(kFullMask, i, 5);
  out[1 * 64 + i] = __shfl_xor_sync(kFullMask, i, 3);
  out[2 * 64 + i] = __shfl_up_sync(kFullMask, i, 2);
  out[3 * 64 + i] = __shfl_down_sync(kFullMask, i, 4, 8);
  out[4 * 64 + i] = static_cast<int>(__ballot_sync(kFullMask, lane % 3 == 0));
  out[5 * 64 + i] = __any_sync(kFullMask, i == 40) + 2 * __all_sync(kFullMask, i < 32);
  // Two halves of a warp on their own ways.
  if (lane < 16) {
    out[6 * 64 + i] = __shfl_xor_sync(0x0000ffffu, i, 1);
  } else {
    out[6 * 64 + i] = __shfl_xor_sync(0xffff0000u, i, 8);
  }
  __syncwarp();
  atomicAdd(out + 7 * 64 + lane, i);
}

// out [3, 128] float: block sums of two values, twice, so that the second call meets what the first one left.
__global__ void block_sums(float* out) {
  const int i = static_cast<int>(threadIdx.x);
  float values[2] = {static_cast<float>(i), 1.0f};
  sentcore::block_sum(values);
  float again[1] = {values[0] + static_cast<float>(i)};
  sentcore::block_sum(again);
  out[i] = values[0];
  out[128 + i] = values[1];
  out[256 + i] = again[0];
}

enum Misuse : int {
  kBarrierMissedByHalf,
  kBarrierMissedByExited,
  kTwoBarriers,
  kLaneNotInMask,
  kLaneMissing,
  kTwoWarpOperations,
  kMisalignedLoad,
  kCopyToGlobal,
  kSharedOutOfRange,
  kCopyInNoGroup
};

__global__ void misuse(int kind, unsigned char* memory) {
  SENTCORE_SHARED(float, shared, [64]);
  const int i = static_cast<int>(threadIdx.x);
  switch (kind) {
    case kBarrierMissedByHalf:
      if (i < 32) __syncthreads();
      if (i >= 32) __syncwarp(i % 2 ? 0xffffffffu : 0x55555555u);
      break;
    case kBarrierMissedByExited:
      if (i >= 40) return;
      __syncthreads();
      break;
    case kTwoBarriers:
      if (i < 32) {
        __syncthreads();
      } else {
        __syncthreads();
      }
      break;
    case kLaneNotInMask:
      __syncwarp(0x0000ffffu);
      break;
    case kLaneMissing:
      if (i % 32 != 7) __syncwarp(kFullMask);
      break;
    case kTwoWarpOperations:
      if (i % 32 < 16) {
        __syncwarp(kFullMask);
      } else {
        __ballot_sync(kFullMask, 1);
      }
      break;
    case kMisalignedLoad:
      memory[i] = static_cast<unsigned char>(ptx::load(reinterpret_cast<const uint4*>(memory + 4)).x);
      break;
    case kCopyToGlobal:
      ptx::copy_async_16(memory, memory + 64);
      break;
    case kSharedOutOfRange:
      shared[i] = 0.0f;
      ptx::copy_async_16(shared + 62, memory);
      break;
    case kCopyInNoGroup:
      ptx::copy_async_16(shared + i % 16 * 4, memory);
      ptx::copy_async_wait<0>();
      break;
    default:
      break;
  }
}

// ---- a matrix product out of asynchronous copies, matrix loads and multiply-accumulates ----

enum Fault : int { kNone, kNoWait, kNoBarrier, kNoSecondBarrier };
constexpr int kTile = 64, kDepth = 32, kStages = 2, kThreads = 128;
constexpr int kPitch = kDepth + 8, kTransposedPitch = kTile + 8;  // 16 bytes more than a row: no bank conflicts

// c [M, N] float = a [M, K] * b; b is [N, K], or [K, N] when `transposed`. K (and N, transposed) are multiples of 8,
// the rest is free. A block makes a 64 x 64 tile with 4 warps of 32 x 32.
template <typename T, bool transposed>
__global__ void __launch_bounds__(kThreads) multiply(const T* a, const T* b, float* c, int M, int N, int K, int fault) {
  SENTCORE_SHARED(T, tile_a, [kStages][kTile][kPitch]);
  SENTCORE_SHARED(T, tile_b, [kStages][transposed ? kDepth : kTile][transposed ? kTransposedPitch : kPitch]);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int row0 = static_cast<int>(blockIdx.x) * kTile, column0 = static_cast<int>(blockIdx.y) * kTile;
  const int steps = (K + kDepth - 1) / kDepth;

  const auto fetch = [&](int step) {
    const int stage = step % kStages, k0 = step * kDepth;
    for (int i = thread; i < kTile * kDepth / 8; i += kThreads) {
      const int r = i / (kDepth / 8), k = i % (kDepth / 8) * 8;
      const bool outside = row0 + r >= M || k0 + k >= K;
      ptx::copy_async_16(&tile_a[stage][r][k], outside ? a : a + static_cast<std::int64_t>(row0 + r) * K + k0 + k,
                         outside);
      if constexpr (transposed) {
        const int kr = i / (kTile / 8), n = i % (kTile / 8) * 8;
        const bool out = k0 + kr >= K || column0 + n >= N;
        ptx::copy_async_16(&tile_b[stage][kr][n], out ? b : b + static_cast<std::int64_t>(k0 + kr) * N + column0 + n,
                           out);
      } else {
        const bool out = column0 + r >= N || k0 + k >= K;
        ptx::copy_async_16(&tile_b[stage][r][k], out ? b : b + static_cast<std::int64_t>(column0 + r) * K + k0 + k,
                           out);
      }
    }
  };

  float sums[2][4][4] = {};
  fetch(0);
  ptx::copy_async_commit();
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) fetch(step + 1);
    ptx::copy_async_commit();  // an empty group where there is no next tile: the count below stays right
    if (fault != kNoWait) ptx::copy_async_wait<1>();
    if (fault != kNoBarrier) __syncthreads();  // every thread's copies have landed
    const int stage = step % kStages;
    for (int k = 0; k < kDepth; k += 16) {
      std::uint32_t fragment_a[2][4], fragment_b[4][2];
      for (int m = 0; m < 2; ++m) {
        ptx::load_matrix_x4(fragment_a[m], &tile_a[stage][warp / 2 * 32 + m * 16 + lane % 16][k + lane / 16 * 8]);
      }
      for (int n = 0; n < 2; ++n) {
        std::uint32_t loaded[4];
        const int column = warp % 2 * 32 + n * 16;
        if constexpr (transposed) {
          ptx::load_matrix_x4_transposed(loaded, &tile_b[stage][k + lane % 16][column + lane / 16 * 8]);
        } else {
          ptx::load_matrix_x4(loaded, &tile_b[stage][column + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8]);
        }
        for (int i = 0; i < 4; ++i) fragment_b[2 * n + i / 2][i % 2] = loaded[i];
      }
      for (int m = 0; m < 2; ++m) {
        for (int n = 0; n < 4; ++n) ptx::multiply_accumulate_16x8x16<T>(sums[m][n], fragment_a[m], fragment_b[n]);
      }
    }
    if (fault != kNoSecondBarrier) __syncthreads();  // the stage has been read: the next copies may overwrite it
  }

  for (int m = 0; m < 2; ++m) {
    for (int n = 0; n < 4; ++n) {
      for (int i = 0; i < 4; ++i) {
        const int r = row0 + warp / 2 * 32 + m * 16 + lane / 4 + i / 2 * 8;
        const int column = column0 + warp % 2 * 32 + n * 8 + lane % 4 * 2 + i % 2;
        if (r < M && column < N) c[static_cast<std::int64_t>(r) * N + column] = sums[m][n][i];
      }
    }
  }
}

std::string message;

template <typename Run>
const char* run(const Run& body) {
  try {
    const cudaError_t status = body();
    message = status == cudaSuccess ? "" : cudaGetErrorString(status);
  } catch (const std::exception& error) {
    message = error.what();
  }
  return message.empty() ? nullptr : message.c_str();
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT const char* run_warp_operations(int* out) {
  return run([&] { return launch(warp_operations, {dim3(1), dim3(64)}, nullptr, out); });
}

EXPORT const char* run_block_sums(float* out) {
  return run([&] { return launch(block_sums, {dim3(1), dim3(128)}, nullptr, out); });
}

EXPORT const char* run_misuse(int kind, unsigned char* memory) {
  return run([&] { return launch(misuse, {dim3(2), dim3(64)}, nullptr, kind, memory); });
}

EXPORT const char* run_too_many_threads() {
  return run([&] { return launch(misuse, {dim3(1), dim3(2048)}, nullptr, 0, static_cast<unsigned char*>(nullptr)); });
}

EXPORT const char* run_multiply(int half, int transposed, const void* a, const void* b, float* c, int M, int N, int K,
                                int fault) {
  const auto start = [&](auto kernel, auto element) {
    using T = decltype(element);
    const LaunchShape shape{
        dim3(static_cast<unsigned>((M + kTile - 1) / kTile), static_cast<unsigned>((N + kTile - 1) / kTile)),
        dim3(kThreads)};
    return launch(kernel, shape, nullptr, static_cast<const T*>(a), static_cast<const T*>(b), c, M, N, K, fault);
  };
  return run([&] {
    if (half) return transposed ? start(multiply<__half, true>, __half{}) : start(multiply<__half, false>, __half{});
    return transposed ? start(multiply<__nv_bfloat16, true>, __nv_bfloat16{})
                      : start(multiply<__nv_bfloat16, false>, __nv_bfloat16{});
  });
}

#ifdef SENTCORE_EMULATE  // what follows tests code of the host
// half [n] <- floats [n], and back.
EXPORT void convert_to_half(const float* in, std::uint16_t* bfloat16, std::uint16_t* float16, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    bfloat16[i] = sentcore::from_float<__nv_bfloat16>(in[i]).bits;
    float16[i] = sentcore::from_float<__half>(in[i]).bits;
  }
}
EXPORT void convert_from_half(const std::uint16_t* in, float* bfloat16, float* float16, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    bfloat16[i] = sentcore::to_float(__nv_bfloat16{in[i]});
    float16[i] = sentcore::to_float(__half{in[i]});
  }
}
EXPORT void random_words(std::uint64_t key, std::uint64_t low, std::uint64_t high, std::uint32_t* out) {
  const sentcore::Random4 random = sentcore::philox4x32_10(key, low, high);
  for (int i = 0; i < 4; ++i) out[i] = random.word[i];
}
#endif
