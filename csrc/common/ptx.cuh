// Every instruction that is written as PTX, behind a function. emulation/ptx.h gives each one again for the CPU.
// All of them need sm_80 or newer. Addresses are generic pointers; "shared" ones must point to shared memory.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace sentcore::ptx {

// ---- 16-byte loads and stores of global memory ----
// load and load_streaming read memory that nothing writes while the kernel runs.

__device__ __forceinline__ uint4 load(const uint4* p) { return __ldg(p); }

// Data read once: it takes no room in L1.
__device__ __forceinline__ uint4 load_streaming(const uint4* p) {
  uint4 v;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
      : "l"(__cvta_generic_to_global(p)));
  return v;
}

// The same, and zeros without a read where it is not wanted.
__device__ __forceinline__ uint4 load_streaming_if(bool wanted, const uint4* p) {
  uint4 v;
  asm("{\n\t"
      ".reg .pred wanted;\n\t"
      "setp.ne.u32 wanted, %5, 0;\n\t"
      "mov.u32 %0, 0;\n\tmov.u32 %1, 0;\n\tmov.u32 %2, 0;\n\tmov.u32 %3, 0;\n\t"
      "@wanted ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n\t"
      "}"
      : "=&r"(v.x), "=&r"(v.y), "=&r"(v.z), "=&r"(v.w)
      : "l"(__cvta_generic_to_global(p)), "r"(static_cast<std::uint32_t>(wanted)));
  return v;
}

__device__ __forceinline__ void store(uint4* p, uint4 v) { *p = v; }

// To global memory alone, as one instruction: the compiler makes four of `*p = v` where it loses sight of the
// alignment.
__device__ __forceinline__ void store_global(uint4* p, uint4 v) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(p)), "r"(v.x), "r"(v.y),
               "r"(v.z), "r"(v.w)
               : "memory");
}

// Data not read again soon: first to be evicted from L2.
__device__ __forceinline__ void store_streaming(uint4* p, uint4 v) { __stcs(p, v); }

// ---- asynchronous copies from global to shared memory ----

// 16 bytes, both addresses aligned to 16. With fill = true nothing is read and zeros are written. The bytes may be read
// after the group's wait, by this thread; by others after a barrier that follows it.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool fill = false) {
  const std::uint32_t target = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  const int bytes = fill ? 0 : 16;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(__cvta_generic_to_global(global)),
               "r"(bytes)
               : "memory");
}

// Closes the group of the copies this thread has started since the last one.
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `pending` of this thread's groups, the newest ones, are still under way. Copies that are in no
// group yet are not waited for.
template <int pending>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// ---- 8x8 matrices of 16-bit elements from shared memory to registers ----
// Lane 8 * m + r gives the address of row r (8 elements, aligned to 16 bytes) of matrix m. Lane l receives of matrix m,
// in registers[m], the elements [l / 4][2 * (l % 4)] and the one after it; transposed, [2 * (l % 4)][l / 4] and the one
// below.

__device__ __forceinline__ void load_matrix_x4(std::uint32_t (&registers)[4], const void* shared_row) {
  const std::uint32_t row = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(row)
               : "memory");
}

__device__ __forceinline__ void load_matrix_x4_transposed(std::uint32_t (&registers)[4], const void* shared_row) {
  const std::uint32_t row = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(row)
               : "memory");
}

// ---- matrix multiply-accumulate: d[16x8] += a[16x16] * b[16x8], float32 accumulators ----
// Lane l, with g = l / 4 and t = 2 * (l % 4), holds
//   a[0] = A[g][t, t+1], a[1] = A[g+8][t, t+1], a[2] = A[g][t+8, t+9], a[3] = A[g+8][t+8, t+9]
//   b[0] = B[t, t+1][g], b[1] = B[t+8, t+9][g];   d[0, 1] = D[g][t, t+1], d[2, 3] = D[g+8][t, t+1]

template <typename T>
__device__ __forceinline__ void multiply_accumulate_16x8x16(float (&d)[4], const std::uint32_t (&a)[4],
                                                            const std::uint32_t (&b)[2]);

template <>
__device__ __forceinline__ void multiply_accumulate_16x8x16<__nv_bfloat16>(float (&d)[4], const std::uint32_t (&a)[4],
                                                                           const std::uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <>
__device__ __forceinline__ void multiply_accumulate_16x8x16<__half>(float (&d)[4], const std::uint32_t (&a)[4],
                                                                    const std::uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// ---- arithmetic ----

// 2^x within 2 units in the last place; exactly 1 for 0, 0 for -infinity. Results below 2^-126 become 0.
__device__ __forceinline__ float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Two floats, rounded to the nearest T, as the halves of a register.
template <typename T>
__device__ __forceinline__ std::uint32_t pack_pair(float low, float high);
template <>
__device__ __forceinline__ std::uint32_t pack_pair<__nv_bfloat16>(float low, float high) {
  std::uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
template <>
__device__ __forceinline__ std::uint32_t pack_pair<__half>(float low, float high) {
  std::uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

}  // namespace sentcore::ptx
