// The element types without any header: float32, bfloat16 and float16 as bits. ELEMENT is 32, 16 (bfloat16) or 161 (float16).
// Everything is read as float and rounded to nearest even when it is written.
#pragma once

#if ELEMENT == 32
typedef float element;
__device__ inline float to_float(element x) { return x; }
__device__ inline element from_float(float x) { return x; }
#elif ELEMENT == 16
typedef unsigned short element;
__device__ inline float to_float(element x) { return __uint_as_float(static_cast<unsigned>(x) << 16); }
__device__ inline element from_float(float x) {
  const unsigned bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<element>((bits >> 16) | 0x40u);  // stays NaN
  return static_cast<element>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
#elif ELEMENT == 161
typedef unsigned short element;
__device__ inline float to_float(element x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
  return y;
}
__device__ inline element from_float(float x) {
  element y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}
#else
#error "ELEMENT is 32 (float32), 16 (bfloat16) or 161 (float16)"
#endif
