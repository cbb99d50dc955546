// What the scan's source needs of a Hopper processor, by names that tests give an ordinary meaning to.
#ifdef HALF
typedef unsigned short T;  // the bits of a float16
#else
typedef float T;
#endif
typedef unsigned long long Gate;  // opens when someone has arrived, and the bytes that it expects
struct alignas(64) Map { unsigned long long opaque[16]; };  // CUtensorMap

#define DEVICE static __device__ __forceinline__
#define KERNEL extern "C" __global__ __launch_bounds__(THREADS, 2)
#define MAP const __grid_constant__ Map
#define SHARED_MEMORY memory
#define thread_index() ((int)threadIdx.x)
#define program_index() ((int)blockIdx.x)
#define sync_program() __syncthreads()
#define sync_warp() __syncwarp()
#define up(v, k) __shfl_up_sync(0xffffffffu, v, k)
#define down(v, k) __shfl_down_sync(0xffffffffu, v, k)
#define from(v, k) __shfl_sync(0xffffffffu, v, k)

extern __shared__ __align__(1024) unsigned char memory[];

// A thread's number that is not kept from one use to the next: registers are short.
DEVICE int thread_now() {
  int r;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(r));
  return r;
}
// The same number, as if the compiler had not met it: what it made of it before is not kept.
DEVICE int again(int v) {
  int r;
  asm volatile("mov.u32 %0, %1;" : "=r"(r) : "r"(v));
  return r;
}
DEVICE void sync_team(int team, int warps) {
  if (warps == 1) __syncwarp();
  else asm volatile("bar.sync %0, %1;" ::"r"(team + 1), "r"(warps * 32) : "memory");
}
DEVICE void nap() { __nanosleep(60); }

DEVICE float exp2_(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
DEVICE float exp2_of_minus(float x) {  // 2^-|x|, in one instruction
  float r;
  asm("{\n.reg .f32 v;\nabs.f32 v, %1;\nneg.f32 v, v;\nex2.approx.ftz.f32 %0, v;\n}" : "=f"(r) : "f"(x));
  return r;
}
DEVICE int bits(float v) { return __float_as_int(v); }
DEVICE float of_bits(int v) { return __int_as_float(v); }
DEVICE float number(float v) { return v; }
DEVICE float number(unsigned short v) {
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(v));
  return r;
}
DEVICE void store(float* p, float v) { asm volatile("st.global.cs.f32 [%0], %1;" ::"l"(p), "f"(v) : "memory"); }
DEVICE void store(unsigned short* p, float v) {
  unsigned short r;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(v));
  asm volatile("st.global.cs.b16 [%0], %1;" ::"l"(p), "h"(r) : "memory");
}

DEVICE unsigned shared_address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }
DEVICE void copy_later(float* to, const float* source, bool inside) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
               ::"r"(shared_address(to)), "l"(source), "r"(inside ? 4 : 0) : "memory");
}
DEVICE void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
DEVICE void make_gate(Gate* g) {
  asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(shared_address(g)) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
DEVICE void wait_for_gate(Gate* g, int parity) {
  asm volatile(
      "{\n.reg .pred p;\nagain:\nmbarrier.try_wait.parity.shared.b64 p, [%0], %1;\n@p bra done;\nbra again;\ndone:\n}"
      ::"r"(shared_address(g)), "r"(parity) : "memory");
}
// Arrives, and lets the gate wait for so many bytes.
DEVICE void arrive_before(Gate* g, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(g)), "r"(bytes) : "memory");
}
// A box of a map into shared memory; what lies outside of the picture is zero.
DEVICE void load_box(void* to, int bytes, const Map& map, int channel, int column, int row, int picture, Gate* g) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6];"
      ::"r"(shared_address(to)), "l"(&map), "r"(channel), "r"(column), "r"(row), "r"(picture), "r"(shared_address(g))
      : "memory");
}

// Reading and writing what other programs of this launch write and read.
DEVICE float peek(const float* p) {
  float r;
  asm volatile("ld.relaxed.gpu.global.f32 %0, [%1];" : "=f"(r) : "l"(p) : "memory");
  return r;
}
DEVICE int peek(const int* p) {
  int r;
  asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(r) : "l"(p) : "memory");
  return r;
}
DEVICE void post(float* p, float v) { asm volatile("st.relaxed.gpu.global.f32 [%0], %1;" ::"l"(p), "f"(v) : "memory"); }
DEVICE void post4(float* p, float4 v) {
  asm volatile("st.relaxed.gpu.global.v4.f32 [%0], {%1, %2, %3, %4};"
               ::"l"(p), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w) : "memory");
}
// Two floats that are seen together or not at all.
DEVICE void post2(float2* p, float2 v) {
  asm volatile("{\n.reg .b64 v;\nmov.b64 v, {%1, %2};\nst.relaxed.gpu.global.b64 [%0], v;\n}"
               ::"l"(p), "f"(v.x), "f"(v.y) : "memory");
}
DEVICE float4 peek4(const float2* p) {  // two such pairs
  float4 r;
  asm volatile(
      "{\n.reg .b64 a, b;\nld.relaxed.gpu.global.v2.b64 {a, b}, [%4];\n"
      "mov.b64 {%0, %1}, a;\nmov.b64 {%2, %3}, b;\n}"
      : "=f"(r.x), "=f"(r.y), "=f"(r.z), "=f"(r.w) : "l"(p) : "memory");
  return r;
}
DEVICE int count(int* p) {  // the number before
  int r;
  asm volatile("atom.add.relaxed.gpu.global.s32 %0, [%1], 1;" : "=r"(r) : "l"(p) : "memory");
  return r;
}
