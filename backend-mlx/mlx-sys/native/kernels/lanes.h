// Vectors of floats of the width that the processor at hand has, by the compiler's vector types: one source for AVX-512, AVX2
// and what every machine has (SSE2, NEON). Code that uses them is a template over the number of lanes and always inlined into
// a function that is compiled for the instructions meant (DUET_KERNEL).
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "pool.h"

#define DUET_INLINE inline __attribute__((always_inline))

namespace duet {

template <int N>
struct Vector;
template <>
struct Vector<16> {
  typedef float Floats __attribute__((vector_size(64)));
  typedef int32_t Ints __attribute__((vector_size(64)));
};
template <>
struct Vector<8> {
  typedef float Floats __attribute__((vector_size(32)));
  typedef int32_t Ints __attribute__((vector_size(32)));
};
template <>
struct Vector<4> {
  typedef float Floats __attribute__((vector_size(16)));
  typedef int32_t Ints __attribute__((vector_size(16)));
};

template <int N>
using Floats = typename Vector<N>::Floats;
template <int N>
using Ints = typename Vector<N>::Ints;

template <int N>
DUET_INLINE Floats<N> load(const float* from) {
  Floats<N> values;
  std::memcpy(&values, from, sizeof values);
  return values;
}

template <int N>
DUET_INLINE void store(float* to, const Floats<N>& values) {
  std::memcpy(to, &values, sizeof values);
}

template <int N>
DUET_INLINE Floats<N> splat(float value) {
  return value - Floats<N>{};
}

// Halves added until four lanes are left.
DUET_INLINE Floats<4> quarters(const Floats<4>& v) {
  return v;
}
DUET_INLINE Floats<4> quarters(const Floats<8>& v) {
  Floats<4> low, high;
  std::memcpy(&low, &v, sizeof low);
  std::memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
  return low + high;
}
DUET_INLINE Floats<4> quarters(const Floats<16>& v) {
  Floats<8> low, high;
  std::memcpy(&low, &v, sizeof low);
  std::memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
  return quarters(low + high);
}

// Sums of neighbours: of `a` in the lower half, of `b` in the upper.
DUET_INLINE Floats<4> pairs(const Floats<4>& a, const Floats<4>& b) {
  return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
}

// The sum of all lanes of each of four vectors.
template <typename V>
DUET_INLINE Floats<4> sums(const V& a, const V& b, const V& c, const V& d) {
  return pairs(pairs(quarters(a), quarters(b)), pairs(quarters(c), quarters(d)));
}

// The sum of all lanes, in the same order.
template <typename V>
DUET_INLINE float sum(const V& v) {
  Floats<4> q = quarters(v);
  return (q[0] + q[1]) + (q[2] + q[3]);
}

// e^x, within 2e-7 of it; for x below -87 the value there, which is 1e-38.
template <int N>
DUET_INLINE Floats<N> exponential(Floats<N> x) {
  x = x < -87.0f ? splat<N>(-87.0f) : x;
  x = x > 88.0f ? splat<N>(88.0f) : x;
  constexpr float rounding = 12582912.0f;  // 1.5 * 2^23: leaves the nearest integer in the lowest bits
  Floats<N> shifted = x * 1.44269504f + rounding;
  Floats<N> whole = shifted - rounding;
  Floats<N> rest = x - whole * 0.693359375f;  // ln 2 in two parts, the first of which is multiplied exactly
  rest = rest + whole * 2.12194440e-4f;
  Floats<N> power = splat<N>(1.9875691500e-4f);  // Cephes' expf
  power = power * rest + 1.3981999507e-3f;
  power = power * rest + 8.3334519073e-3f;
  power = power * rest + 4.1665795894e-2f;
  power = power * rest + 1.6666665459e-1f;
  power = power * rest + 5.0000001201e-1f;
  power = power * rest * rest + rest + 1.0f;
  Ints<N> bits, exponent;
  std::memcpy(&bits, &power, sizeof bits);
  std::memcpy(&exponent, &shifted, sizeof exponent);
  bits += exponent << 23;
  std::memcpy(&power, &bits, sizeof power);
  return power;
}

// Floats per vector that kernels work with: what this machine has, or fewer if DUET_MLX_LANES says so (8 or 4), which is how
// the forms for lesser machines are tested.
inline int best_lanes() {
  static const int lanes = [] {
    const char* limit = std::getenv("DUET_MLX_LANES");
    [[maybe_unused]] int most = limit == nullptr ? 16 : std::atoi(limit);
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (most >= 16 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma")) {
      return 16;
    }
    if (most >= 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
      return 8;
    }
#endif
    return 4;
  }();
  return lanes;
}

}  // namespace duet

// `name##_best()`, the form for this machine of the template `name<lanes>(const Job&, int part)`.
#if defined(__x86_64__)
#define DUET_KERNEL(name, Job)                                                                                   \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))) void name##_512(const void* job, int part) { \
    name<16>(*static_cast<const Job*>(job), part);                                                               \
  }                                                                                                              \
  __attribute__((target("avx2,fma"))) void name##_256(const void* job, int part) {                               \
    name<8>(*static_cast<const Job*>(job), part);                                                                \
  }                                                                                                              \
  void name##_128(const void* job, int part) {                                                                   \
    name<4>(*static_cast<const Job*>(job), part);                                                                \
  }                                                                                                              \
  duet::Part name##_best() {                                                                                     \
    return duet::best_lanes() == 16 ? name##_512 : duet::best_lanes() == 8 ? name##_256 : name##_128;            \
  }
#else
#define DUET_KERNEL(name, Job)                     \
  void name##_128(const void* job, int part) {     \
    name<4>(*static_cast<const Job*>(job), part);  \
  }                                                \
  duet::Part name##_best() {                       \
    return name##_128;                             \
  }
#endif
