// The alignment's sums over chosen pixels: depths along rays, residuals and their second order. Twins: dust3r_ros/kernels/alignment_twins.py.
// N images, M sides (image by image: those of image n are start[n] to start[n + 1]), E pairs, S pixels an image. THREADS, the size of a
// block, is a power of two. Sums go in a fixed order: the same input gives the same bits.

constexpr int CAMERA = 13;   // of cameras [N, 13]: rotation to the world by rows, position, focal length
constexpr int PAIR = 12;     // of pairs [E, 12]: scale times rotation by rows, offset
constexpr int EDGE = 7;      // unknowns of a pair: rotation, translation, log scale
constexpr int COLUMNS = 8;   // and the log focal length
constexpr int ROWS = 10;     // of by_depth [M, 10, S]: J' W d of the eight columns and of the depth, d' w r
constexpr int UPPER = COLUMNS * (COLUMNS + 1) / 2;
constexpr int SUMS = UPPER + COLUMNS;
constexpr int BATCH = 11;    // of them in shared memory at once

// One unit of depth along the ray of a pixel, in the world; its length squared.
__device__ inline double ray_of(const double* camera, double u, double v, double* direction) {
  const double x = u / camera[12], y = v / camera[12];
  for (int i = 0; i < 3; ++i) direction[i] = camera[3 * i] * x + camera[3 * i + 1] * y + camera[3 * i + 2];
  return x * x + y * y + 1.0;
}

// Pixel s of a side's points [3, S], in the world.
__device__ inline void to_world(const double* pair, const double* points, int s, int count, double* y) {
  const double a = points[s], b = points[count + s], c = points[2 * count + s];
  for (int i = 0; i < 3; ++i) y[i] = pair[3 * i] * a + pair[3 * i + 1] * b + pair[3 * i + 2] * c + pair[9 + i];
}

__device__ inline double dot(const double* a, const double* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

// A block for THREADS pixels of image blockIdx.y. depth [N, S] in place; along, off [M, S] are room to work in; cost [N, blocks].
extern "C" __global__ void fit_depths(
    const long long* start, const long long* pair, const double* points, const double* weight, const double* pixels, const double* cameras,
    const double* pairs, double* depth, double* along, double* off, double* cost, double eps, int count, int rounds, int anew) {
  __shared__ double sums[THREADS];
  const int n = static_cast<int>(blockIdx.y), s = static_cast<int>(blockIdx.x * THREADS + threadIdx.x);
  const long long begin = start[n], end = start[n + 1];
  double total = 0.0;
  if (s < count) {
    const double* camera = cameras + CAMERA * n;
    const double* pixel = pixels + 2LL * n * count + s;
    double direction[3];
    const double square = ray_of(camera, pixel[0], pixel[count], direction);
    for (long long m = begin; m < end; ++m) {
      double y[3];
      to_world(pairs + PAIR * pair[m], points + 3 * m * count, s, count, y);
      for (int i = 0; i < 3; ++i) y[i] -= camera[9 + i];
      const double a = dot(y, direction) / square;
      // What is left is summed, not subtracted: far points would lose it.
      for (int i = 0; i < 3; ++i) y[i] -= a * direction[i];
      along[m * count + s] = a;
      off[m * count + s] = dot(y, y) + eps * eps;
    }
    double z = depth[static_cast<long long>(n) * count + s];
    if (anew) {
      double best = 1e300;
      for (long long c = begin; c < end; ++c) {
        if (!(weight[c * count + s] > 0.0)) continue;
        const double tried = along[c * count + s];
        double sum = 0.0;
        for (long long m = begin; m < end; ++m) {
          const double d = tried - along[m * count + s];
          sum += weight[m * count + s] * sqrt(square * d * d + off[m * count + s]);
        }
        if (sum < best) {
          best = sum;
          z = tried;
        }
      }
    }
    for (int turn = 0; turn < rounds; ++turn) {
      double top = 0.0, bottom = 1e-300;
      for (long long m = begin; m < end; ++m) {
        const double a = along[m * count + s], d = z - a;
        const double say = weight[m * count + s] / sqrt(square * d * d + off[m * count + s]);
        top += say * a;
        bottom += say;
      }
      z = top / bottom;
    }
    for (long long m = begin; m < end; ++m) {
      const double d = z - along[m * count + s];
      total += weight[m * count + s] * sqrt(square * d * d + off[m * count + s]);
    }
    depth[static_cast<long long>(n) * count + s] = z;
  }
  sums[threadIdx.x] = total;
  for (unsigned half = THREADS / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) cost[static_cast<long long>(n) * ((count + THREADS - 1) / THREADS) + blockIdx.x] = sums[0];
}

// A block for each side. products [M, 8, 8], gradient [M, 8], by_depth [M, 10, S].
extern "C" __global__ void linearise(
    const long long* image, const long long* pair, const double* points, const double* weight, const double* pixels, const double* cameras,
    const double* pairs, const double* depth, double* products, double* gradient, double* by_depth, double eps, double alpha, int count) {
  __shared__ double sums[BATCH * THREADS];
  const long long m = blockIdx.x, n = image[m];
  const double* camera = cameras + CAMERA * n;
  double own[SUMS];
#pragma unroll
  for (int k = 0; k < SUMS; ++k) own[k] = 0.0;
  for (int s = static_cast<int>(threadIdx.x); s < count; s += THREADS) {
    double direction[3], y[3], r[3], normal[3], j[COLUMNS][3], weighted[COLUMNS][3], down[3];
    const double z = depth[n * count + s];
    ray_of(camera, pixels[2 * n * count + s], pixels[(2 * n + 1) * count + s], direction);
    to_world(pairs + PAIR * pair[m], points + 3 * m * count, s, count, y);
    for (int i = 0; i < 3; ++i) r[i] = direction[i] * z + camera[9 + i] - y[i];
    const double inverse = 1.0 / sqrt(dot(r, r) + eps * eps), w = weight[m * count + s] * inverse;
    // The derivatives of r: by rotation, translation and log scale of the pair, by the log focal length.
    j[0][0] = 0.0, j[0][1] = y[2], j[0][2] = -y[1];
    j[1][0] = -y[2], j[1][1] = 0.0, j[1][2] = y[0];
    j[2][0] = y[1], j[2][1] = -y[0], j[2][2] = 0.0;
#pragma unroll
    for (int i = 0; i < 3; ++i) {
#pragma unroll
      for (int k = 0; k < 3; ++k) j[3 + k][i] = i == k ? -1.0 : 0.0;
      j[6][i] = -y[i];
      j[7][i] = (camera[3 * i + 2] - direction[i]) * z;
      normal[i] = r[i] * inverse;
    }
    // W = w (I - alpha n n'), applied to each column and to the depth's.
    const double bend = alpha * dot(direction, normal);
    for (int i = 0; i < 3; ++i) down[i] = w * (direction[i] - bend * normal[i]);
    double* row = by_depth + ROWS * m * count + s;
#pragma unroll
    for (int k = 0; k < COLUMNS; ++k) {
      const double turn = alpha * dot(j[k], normal);
#pragma unroll
      for (int i = 0; i < 3; ++i) weighted[k][i] = w * (j[k][i] - turn * normal[i]);
      own[UPPER + k] += w * dot(j[k], r);
      row[static_cast<long long>(k) * count] = dot(j[k], down);
    }
    row[static_cast<long long>(COLUMNS) * count] = dot(direction, down);
    row[static_cast<long long>(COLUMNS + 1) * count] = w * dot(direction, r);
    int at = 0;
#pragma unroll
    for (int a = 0; a < COLUMNS; ++a) {
#pragma unroll
      for (int b = a; b < COLUMNS; ++b) own[at++] += dot(j[a], weighted[b]);
    }
  }
#pragma unroll
  for (int first = 0; first < SUMS; first += BATCH) {
    __syncthreads();
#pragma unroll
    for (int k = 0; k < BATCH; ++k) sums[k * THREADS + threadIdx.x] = own[first + k];
    for (unsigned half = THREADS / 2; half > 0; half /= 2) {
      __syncthreads();
      if (threadIdx.x < half)
        for (int k = 0; k < BATCH; ++k) sums[k * THREADS + threadIdx.x] += sums[k * THREADS + threadIdx.x + half];
    }
    __syncthreads();
    for (int k = static_cast<int>(threadIdx.x); k < BATCH; k += THREADS) {
      const double sum = sums[k * THREADS];
      int at = first + k, a = 0;
      if (at >= UPPER) {
        gradient[COLUMNS * m + at - UPPER] = sum;
      } else {
        for (; at >= COLUMNS - a; ++a) at -= COLUMNS - a;
        products[COLUMNS * (COLUMNS * m + a) + a + at] = products[COLUMNS * (COLUMNS * m + a + at) + a] = sum;
      }
    }
  }
}

// A thread for each pixel of image blockIdx.y: by_depth over the root of the sum of d' W d. shared [7 M + N, S], slope [N, S].
extern "C" __global__ void eliminate_depths(const long long* start, const double* by_depth, float* shared, double* slope, int count) {
  const long long n = blockIdx.y, s = static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x;
  if (s >= count) return;
  double lean = 0.0, own = 0.0, down = 0.0;
  for (long long m = start[n]; m < start[n + 1]; ++m) {
    const double* row = by_depth + ROWS * m * count + s;
    lean += row[static_cast<long long>(EDGE) * count];
    own += row[static_cast<long long>(EDGE + 1) * count];
    down += row[static_cast<long long>(EDGE + 2) * count];
  }
  const double root = own > 0.0 ? 1.0 / sqrt(own) : 0.0;
  float* out = shared + (EDGE * start[n] + n) * count + s;
  for (long long m = start[n]; m < start[n + 1]; ++m)
    for (int k = 0; k < EDGE; ++k, out += count) *out = static_cast<float>(by_depth[(ROWS * m + k) * count + s] * root);
  *out = static_cast<float>(lean * root);
  slope[n * count + s] = down * root;
}
