// Instructions of sm_90a, behind functions like those of common/ptx.cuh: barriers that count arrivals and bytes, the
// copy engine, and products of a warpgroup (four consecutive warps, the first one's index a multiple of four).
// emulation/sm90a.h gives each one again for the CPU.
#pragma once

#include "common/sm90a/tensor_map.h"

#ifdef SENTCORE_EMULATE
#include "emulation/sm90a.h"
#else

#include "common/sm90a/wgmma.cuh"

namespace sentcore::ptx {

__device__ __forceinline__ std::uint32_t shared_address(const void* shared) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
}

// No load or store is moved across this, by the compiler: what is loaded early needs registers early.
__device__ __forceinline__ void keep_order() { asm volatile("" ::: "memory"); }

// x, which is the same for all threads of a warp, in a register that they share: so is what is computed from it, and
// operands of products need not be moved there one by one.
__device__ __forceinline__ int uniform(int x) { return __shfl_sync(kFullMask, x, 0); }

// The compiler forgets what it has computed from x: it would keep the results in registers for a second use.
__device__ __forceinline__ void forget(float& x) { asm volatile("" : "+f"(x)); }
__device__ __forceinline__ void forget(int& x) { asm volatile("" : "+r"(x)); }

// x, which is never negative, is computed before what comes after this. ptxas moves a product_wait up over arithmetic
// that does not need it, and then nothing is computed while products are under way; keep_order is the compiler's alone.
__device__ __forceinline__ void compute_before(float x) {
  asm volatile(
      "{\n"
      ".reg .pred never;\n"
      "setp.lt.f32 never, %0, 0f00000000;\n"
      "@never nanosleep.u32 20;\n"
      "}" ::"f"(x)
      : "memory");
}

// Four bytes to the shared address `target`.
__device__ __forceinline__ void store_shared(std::uint32_t target, std::uint32_t value) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(target), "r"(value) : "memory");
}

// ---- barriers in shared memory ----
// A phase is over when as many arrivals as were said at the start have come and no bytes are outstanding.

struct alignas(8) Barrier {
  std::uint64_t word;
};

__device__ __forceinline__ void barrier_init(Barrier* barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

// After the inits, before the block's barrier that lets others use them.
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(Barrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

// Arrives, and makes the phase wait for `bytes` of copies too.
__device__ __forceinline__ void barrier_arrive_and_expect(Barrier* barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}

// Waits for the end of the phase with this parity; the first phase has parity 0, the one "before" it counts as over.
__device__ __forceinline__ void barrier_wait(Barrier* barrier, unsigned parity) {
  std::uint32_t over = 0;
  do {
    asm volatile(
        "{\n"
        ".reg .pred over;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2;\n"
        "selp.b32 %0, 1, 0, over;\n"
        "}"
        : "=r"(over)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
  } while (over == 0);
}

// A barrier of `threads` threads, whole warps, that know it by its number: 1 to 15 (0 is __syncthreads').
__device__ __forceinline__ void named_barrier(int number, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

// ---- the copy engine ----
// A box lies in shared memory as 64 rows of 128 bytes, aligned to 1024 bytes; the 16-byte units of row r are at the
// places unit ^ (r % 8).

// Starts the copy of the box at (row, column) and lets `barrier` count its 8192 bytes.
__device__ __forceinline__ void load_box(void* shared, const TensorMap* map, Barrier* barrier, int row, int column) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
          shared_address(shared)),
      "l"(reinterpret_cast<std::uint64_t>(map)), "r"(shared_address(barrier)), "r"(column), "r"(row)
      : "memory");
}

// Makes this thread's writes to shared memory visible to the copy engine and to warpgroup products; before the barrier
// after which one thread starts those.
__device__ __forceinline__ void fence_for_copies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// shared: the box's shared address.
__device__ __forceinline__ void store_box(const TensorMap* map, std::uint32_t shared, int row, int column) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(
                   reinterpret_cast<std::uint64_t>(map)),
               "r"(shared), "r"(column), "r"(row)
               : "memory");
}

// Closes the group of the stores this thread has started since the last one.
__device__ __forceinline__ void store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// Waits until at most `pending` of this thread's groups, the newest ones, still read shared memory.
template <int pending>
__device__ __forceinline__ void store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(pending) : "memory");
}

// ---- registers ----
// All warps of a warpgroup give away, or take, registers: count a multiple of 8 from 24 to 256.

template <int count>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}
template <int count>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}

// ---- warpgroup products: see wgmma.cuh ----

// Before the first product, and after registers of its sums were written by anything else.
__device__ __forceinline__ void product_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// Closes the group of the products started since the last one.
__device__ __forceinline__ void product_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most `pending` groups, the newest ones, are still under way: their sums may not be touched, nor their
// operands written.
template <int pending>
__device__ __forceinline__ void product_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

}  // namespace sentcore::ptx
#endif

namespace sentcore::ptx {

// Where a product finds an operand in shared memory: boxes as above, one below the other.
// kByDepth (the depth along a box's row): rows of the operand are 128 bytes apart and it starts at a depth of the box,
// a multiple of 32 bytes; `next_box` is not used. Otherwise a box's row is 64 elements of the operand at one depth, and
// the next 64 are `next_box` bytes on; it starts at a depth that is a multiple of 8 rows.
__device__ __forceinline__ std::uint64_t operand(const void* shared, unsigned next_box = 0) {
  constexpr std::uint64_t kEightRows = 1024 / 16, kSwizzled128 = 1;
  return (shared_address(shared) & 0x3ffff) >> 4 | static_cast<std::uint64_t>(next_box / 16) << 16 | kEightRows << 32 |
         kSwizzled128 << 62;
}

}  // namespace sentcore::ptx
