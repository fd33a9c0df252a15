// Number formats, 16-byte loads and stores, intrinsics. build/nvrtc.py puts this text before the
// source of every kernel. With APE_EMULATED the tests' emulator defines the intrinsics.

typedef long long i64;
typedef unsigned int u32;
typedef unsigned short u16;

#ifndef APE_EMULATED
#define APE_UNROLL _Pragma("unroll")
#define APE_ROLLED _Pragma("unroll 1")
#endif

struct alignas(16) Quad {
  u32 word[4];
};
struct alignas(16) Quadf {
  float number[4];
};

struct Half {
  u16 bits;
};
struct Bfloat16 {
  u16 bits;
};

#ifndef APE_EMULATED
__device__ inline float half_bits_to_float(u16 bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}
__device__ inline u16 float_to_half_bits(float x) {
  u16 bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline Quad load_quad(const void* from) { return *static_cast<const Quad*>(from); }
__device__ inline void store_quad(void* to, const Quad& quad) { *static_cast<Quad*>(to) = quad; }
// Adds four float32 numbers to 16-byte aligned memory: one instruction (REDG.ADD.F32x4) on sm_90
// and later, four before.
__device__ inline void add_quad(float* to, float a, float b, float c, float d) {
#if __CUDA_ARCH__ >= 900
  atomicAdd(reinterpret_cast<float4*>(to), make_float4(a, b, c, d));
#else
  atomicAdd(to, a);
  atomicAdd(to + 1, b);
  atomicAdd(to + 2, c);
  atomicAdd(to + 3, d);
#endif
}
#endif

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(Bfloat16 x) { return __uint_as_float(u32(x.bits) << 16); }
__device__ inline float to_float(Half x) { return half_bits_to_float(x.bits); }

template <class V> __device__ inline u32 pack(float low, float high);
template <> __device__ inline u32 pack<Half>(float low, float high) {
  return u32(float_to_half_bits(low)) | u32(float_to_half_bits(high)) << 16;
}
__device__ inline u32 bfloat16_bits(float x) {  // to nearest, ties to even; NaN stays NaN
  const u32 word = __float_as_uint(x);
  return x != x ? 0x7fc0u : (word + 0x7fffu + ((word >> 16) & 1u)) >> 16;
}
template <> __device__ inline u32 pack<Bfloat16>(float low, float high) {
#if __CUDA_ARCH__ >= 800
  u32 word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#else
  return bfloat16_bits(low) | bfloat16_bits(high) << 16;
#endif
}

// COUNT: how many numbers of type V are in 16 bytes of a value row.
template <class V> struct Row {
  static constexpr int COUNT = 8;
};
template <> struct Row<float> {
  static constexpr int COUNT = 4;
};

__device__ inline void unpack(const Quad& quad, float* out, float) {
  for (int i = 0; i < 4; ++i) out[i] = __uint_as_float(quad.word[i]);
}
__device__ inline void unpack(const Quad& quad, float* out, Bfloat16) {
  for (int i = 0; i < 4; ++i) {
    out[2 * i] = __uint_as_float(quad.word[i] << 16);
    out[2 * i + 1] = __uint_as_float(quad.word[i] & 0xffff0000u);
  }
}
__device__ inline void unpack(const Quad& quad, float* out, Half) {
  for (int i = 0; i < 4; ++i) {
    out[2 * i] = half_bits_to_float(u16(quad.word[i] & 0xffffu));
    out[2 * i + 1] = half_bits_to_float(u16(quad.word[i] >> 16));
  }
}

__device__ inline void store_row(float* to, const float* from) {
  Quad quad;
  for (int i = 0; i < 4; ++i) quad.word[i] = __float_as_uint(from[i]);
  store_quad(to, quad);
}
template <class V> __device__ inline void store_row(V* to, const float* from) {
  Quad quad;
  for (int i = 0; i < 4; ++i) quad.word[i] = pack<V>(from[2 * i], from[2 * i + 1]);
  store_quad(to, quad);
}
