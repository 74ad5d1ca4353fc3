// Points to the bytes of a PointCloud2: x y z float32, rgb uint32 (0x00RRGGBB), confidence float32. Twin: dust3r_ros/kernels/twins.py.

__device__ inline void put(unsigned* out, const float* move, float x, float y, float z, const unsigned char* rgb, float confidence) {
  // move: rows of a 3x4 matrix
  out[0] = __float_as_uint(__fmaf_rn(move[0], x, __fmaf_rn(move[1], y, __fmaf_rn(move[2], z, move[3]))));
  out[1] = __float_as_uint(__fmaf_rn(move[4], x, __fmaf_rn(move[5], y, __fmaf_rn(move[6], z, move[7]))));
  out[2] = __float_as_uint(__fmaf_rn(move[8], x, __fmaf_rn(move[9], y, __fmaf_rn(move[10], z, move[11]))));
  out[3] = static_cast<unsigned>(rgb[0]) << 16 | static_cast<unsigned>(rgb[1]) << 8 | rgb[2];
  out[4] = __float_as_uint(confidence);
}

// points [N, 3], colours [N, 3], confidence [N]; out [N, 20 bytes]
extern "C" __global__ void pack_points(
    const float* points, const unsigned char* colors, const float* confidence, const float* move, unsigned* out, long long count) {
  const long long at = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= count) return;
  const float* p = points + 3 * at;
  put(out + 5 * at, move, p[0], p[1], p[2], colors + 3 * at, confidence[at]);
}

// From depth along z: the pixels `chosen` (row * width + column) of depth, confidence [H, W] and image [H, W, 3].
extern "C" __global__ void pack_depth(
    const long long* chosen, const float* depth, const float* confidence, const unsigned char* image, float fx, float fy, float cx, float cy,
    int width, const float* move, unsigned* out, long long count) {
  const long long at = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= count) return;
  const long long pixel = chosen[at];
  const float u = static_cast<float>(pixel % width), v = static_cast<float>(pixel / width), z = depth[pixel];
  put(out + 5 * at, move, (u - cx) / fx * z, (v - cy) / fy * z, z, image + 3 * pixel, confidence[pixel]);
}
