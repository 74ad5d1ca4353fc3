// For each query the most alike key: the largest dot product plus the key's bias, or (nearest_3d) the smallest distance. Of equals the
// first. Twins: dust3r_ros/kernels/twins.py. WIDTH is the number of values of a row, THREADS the size of a block.

// Each thread has one query; the block walks over the keys in tiles, which lie in shared memory.
extern "C" __global__ void nearest(
    const float* queries, const float* keys, const float* bias, long long* found, long long query_count, long long key_count) {
  __shared__ float tile[THREADS * WIDTH];
  __shared__ float tile_bias[THREADS];
  const long long at = static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x;
  float query[WIDTH];
  for (int d = 0; d < WIDTH; ++d) query[d] = at < query_count ? queries[at * WIDTH + d] : 0.0f;
  float best = -__int_as_float(0x7f800000);
  long long index = 0;
  for (long long start = 0; start < key_count; start += THREADS) {
    const int size = static_cast<int>(key_count - start < THREADS ? key_count - start : THREADS);
    __syncthreads();
    for (int n = threadIdx.x; n < size * WIDTH; n += THREADS) tile[n] = keys[start * WIDTH + n];
    if (static_cast<int>(threadIdx.x) < size) tile_bias[threadIdx.x] = bias ? bias[start + threadIdx.x] : 0.0f;
    __syncthreads();
    for (int k = 0; k < size; ++k) {
      float product = tile_bias[k];
      for (int d = 0; d < WIDTH; ++d) product = __fmaf_rn(query[d], tile[k * WIDTH + d], product);
      if (product > best) {
        best = product;
        index = start + k;
      }
    }
  }
  if (at < query_count) found[at] = index;
}

// WIDTH 3, by squared differences: no cancellation however far the points are from the origin.
extern "C" __global__ void nearest_3d(
    const float* queries, const float* keys, const float* bias, long long* found, long long query_count, long long key_count) {
  __shared__ float tile[THREADS * 3];
  const long long at = static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x;
  const bool asks = at < query_count;
  const float x = asks ? queries[3 * at] : 0.0f, y = asks ? queries[3 * at + 1] : 0.0f, z = asks ? queries[3 * at + 2] : 0.0f;
  float best = __int_as_float(0x7f800000);
  long long index = 0;
  for (long long start = 0; start < key_count; start += THREADS) {
    const int size = static_cast<int>(key_count - start < THREADS ? key_count - start : THREADS);
    __syncthreads();
    for (int n = threadIdx.x; n < size * 3; n += THREADS) tile[n] = keys[start * 3 + n];
    __syncthreads();
    for (int k = 0; k < size; ++k) {
      const float dx = x - tile[3 * k], dy = y - tile[3 * k + 1], dz = z - tile[3 * k + 2];
      const float distance = __fmaf_rn(dx, dx, __fmaf_rn(dy, dy, dz * dz));
      if (distance < best) {
        best = distance;
        index = start + k;
      }
    }
  }
  if (asks) found[at] = index;
  (void)bias;
}
