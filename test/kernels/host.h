// The CUDA words that the kernels use, for a CPU: every thread of a block is a thread, blocks go one after the other.
#include <barrier>
#include <cmath>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#define __device__ static
#define __global__
#define __shared__ static

struct Index { unsigned x, y, z; };
static thread_local Index threadIdx, blockIdx, blockDim;
static std::barrier<>* all_threads;

static inline void __syncthreads() { all_threads->arrive_and_wait(); }
static inline float __fmaf_rn(float a, float b, float c) { return std::fmaf(a, b, c); }
static inline float __uint_as_float(unsigned x) { float y; std::memcpy(&y, &x, 4); return y; }
static inline float __int_as_float(int x) { float y; std::memcpy(&y, &x, 4); return y; }
static inline unsigned __float_as_uint(float x) { unsigned y; std::memcpy(&y, &x, 4); return y; }

template <class Kernel, class... Arguments>
static void run(Kernel kernel, unsigned grid_x, unsigned grid_y, unsigned threads, Arguments... arguments) {
  for (unsigned y = 0; y < grid_y; ++y)
    for (unsigned x = 0; x < grid_x; ++x) {
      std::barrier<> barrier(threads);
      all_threads = &barrier;
      std::vector<std::thread> block;
      for (unsigned t = 0; t < threads; ++t)
        block.emplace_back([=] {
          threadIdx = {t, 0, 0};
          blockIdx = {x, y, 0};
          blockDim = {threads, 1, 1};
          kernel(arguments...);
        });
      for (auto& thread : block) thread.join();
    }
}
