// Every pixel's depth given everything else, over all sides of one image. Twin: dust3r_ros/kernels/alignment_twins.py, dense_depths.
// THREADS, the size of a block, is a power of two.

struct Seen {
  float along, off, weight, confidence;  // where on the ray the point is nearest, how far off it squared, log confidence
};

// What one side says of a pixel. points and confidence lie wherever `addresses` [K, 2] say; transform [3, 4] goes to the camera's frame.
// Recomputed in every round: as much to read as what would be kept, and no room needed.
__device__ inline Seen seen_by(const long long* addresses, const float* transform, long long pixel, float u, float v, float square, float known) {
  const float* p = reinterpret_cast<const float*>(addresses[0]) + 3 * pixel;
  const float confidence = reinterpret_cast<const float*>(addresses[1])[pixel];
  const float x = transform[0] * p[0] + transform[1] * p[1] + transform[2] * p[2] + transform[3];
  const float y = transform[4] * p[0] + transform[5] * p[1] + transform[6] * p[2] + transform[7];
  const float z = transform[8] * p[0] + transform[9] * p[1] + transform[10] * p[2] + transform[11];
  const float along = (x * u + y * v + z) / square;
  const float ex = x - along * u, ey = y - along * v, ez = z - along;
  const float off = ex * ex + ey * ey + ez * ez;
  if (!(off < 1e30f)) return {0.0f, 0.0f, 0.0f, 1.0f};
  if (!(confidence > known && confidence < 1e30f)) return {along, off, 0.0f, 1.0f};
  return {along, off, logf(confidence), confidence};
}

// rays_u [width], rays_v [height]: (u, v, 1) goes through a pixel. rounds [R, 2]: smoothing squared, and how far the step goes from
// reweighting (0) to Newton's (1). depth, most [H * W]; cost [K, blocks] float64.
extern "C" __global__ void dense_depths(
    const long long* addresses, const float* transforms, const float* rays_u, const float* rays_v, const float* rounds, float* depth,
    float* most, double* cost, int sides, int turns, int width, float known, long long pixels) {
  __shared__ double sums[THREADS];
  const long long pixel = static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x;
  const bool real = pixel < pixels;  // all threads add up
  float u = 0.0f, v = 0.0f, square = 1.0f, z = 0.0f, largest = 1.0f;
  if (real) {
    u = rays_u[pixel % width];
    v = rays_v[pixel / width];
    square = u * u + v * v + 1.0f;
    float top = 0.0f, bottom = 1e-30f;
    for (int k = 0; k < sides; ++k) {
      const Seen seen = seen_by(addresses + 2 * k, transforms + 12 * k, pixel, u, v, square, known);
      top += seen.weight * seen.along;
      bottom += seen.weight;
      largest = seen.confidence > largest ? seen.confidence : largest;
    }
    z = top / bottom;
    for (int turn = 0; turn < turns; ++turn) {
      const float eps = rounds[2 * turn], alpha = rounds[2 * turn + 1];
      top = 0.0f, bottom = 1e-30f;
      for (int k = 0; k < sides; ++k) {
        const Seen seen = seen_by(addresses + 2 * k, transforms + 12 * k, pixel, u, v, square, known);
        const float d = z - seen.along, far = square * d * d;
        const float inverse = 1.0f / (far + seen.off + eps), say = seen.weight * sqrtf(inverse);
        top += say * d;
        bottom += say * (1.0f - alpha * far * inverse);
      }
      z -= top / bottom;
    }
    z = z > 0.0f ? z : 0.0f;
    depth[pixel] = z;
    most[pixel] = largest;
  }
  const long long blocks = (pixels + THREADS - 1) / THREADS;
  for (int k = 0; k < sides; ++k) {
    double own = 0.0;
    if (real) {
      const Seen seen = seen_by(addresses + 2 * k, transforms + 12 * k, pixel, u, v, square, known);
      const float d = z - seen.along;
      own = seen.weight * sqrtf(square * d * d + seen.off);
    }
    __syncthreads();
    sums[threadIdx.x] = own;
    for (unsigned half = THREADS / 2; half > 0; half /= 2) {
      __syncthreads();
      if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) cost[k * blocks + blockIdx.x] = sums[0];
  }
}
