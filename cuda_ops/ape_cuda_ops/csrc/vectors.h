// Vectors by the compiler extension of GCC and Clang: kLanes floats, 16 with AVX-512, else 8.

#pragma once

#include <cstdint>
#include <cstring>

namespace {

#ifdef __AVX512F__
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif

template <int kWidth>
struct Vector {
  typedef float Floats __attribute__((vector_size(4 * kWidth)));
  typedef int32_t Ints __attribute__((vector_size(4 * kWidth)));
  typedef uint32_t Words __attribute__((vector_size(4 * kWidth)));
  typedef uint16_t Halves __attribute__((vector_size(2 * kWidth)));
};

using Floats = Vector<kLanes>::Floats;
using Ints = Vector<kLanes>::Ints;
using Words = Vector<kLanes>::Words;

template <class Wide, class Scalar>
inline Wide load(const Scalar* from) {
  Wide vector;
  std::memcpy(&vector, from, sizeof(vector));
  return vector;
}

template <class Wide, class Scalar>
inline void store(Scalar* to, const Wide& vector) {
  std::memcpy(to, &vector, sizeof(vector));
}

inline Floats broadcast(float number) { return Floats{} + number; }

template <class Wide>
inline float sum(const Wide& vector) {
  constexpr int kWidth = sizeof(Wide) / sizeof(float);
  float lanes[kWidth];
  store(lanes, vector);
  for (int half = kWidth / 2; half > 0; half /= 2)
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

// bfloat16 is the upper half of a float32.
struct Bfloat16 {
  uint16_t bits;
};

inline float number(float value) { return value; }
inline float number(Bfloat16 value) {
  const uint32_t word = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &word, sizeof(result));
  return result;
}

template <int kWidth>
inline typename Vector<kWidth>::Floats floats(const float* from) {
  return load<typename Vector<kWidth>::Floats>(from);
}

template <int kWidth>
inline typename Vector<kWidth>::Floats floats(const Bfloat16* from) {
  using Words = typename Vector<kWidth>::Words;
  const auto halves = load<typename Vector<kWidth>::Halves>(from);
  const Words words = __builtin_convertvector(halves, Words) << 16;
  return load<typename Vector<kWidth>::Floats>(&words);
}

// exp(x) for x <= 0, relative error 2e-7: 2^n * e^r with |r| <= ln(2) / 2 (Cephes' expf).
// A NaN stays a NaN. No call of libm, so every compiler keeps whole vectors.
inline Floats exp_negative(Floats x) {
  x = (x < -87.0f) ? broadcast(-87.0f) : x;
  const Floats magic = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Floats shifted = x * 1.44269504088896341f + magic;
  const Floats n = shifted - magic;
  const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats p = broadcast(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const Words exponent = (load<Words>(&shifted) - load<Words>(&magic) + 127u) << 23;
  return p * load<Floats>(&exponent);
}

}  // namespace
