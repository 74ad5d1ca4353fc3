// 2D rotary positions on queries and keys in one launch, in place, in float32 arithmetic. Twin: dust3r_ros/kernels/twins.py, rotate.
#include "element.cuh"

struct Tokens {
  element* values;                        // [batch, heads, tokens, head_dim], the last dimension contiguous
  long long batch_stride, head_stride, token_stride;
  const float* cosine;                    // [tokens, head_dim]
  const float* sine;
  int tokens;
};

// One thread turns the two pairs (k, k + D/4) of the row half and of the column half; blockIdx.y chooses queries or keys.
extern "C" __global__ void rope_2d(
    element* q, long long q_batch, long long q_head, long long q_token, const float* q_cosine, const float* q_sine, int q_tokens,
    element* k, long long k_batch, long long k_head, long long k_token, const float* k_cosine, const float* k_sine, int k_tokens,
    int batch, int heads, int head_dim) {
  const Tokens side = blockIdx.y == 0 ? Tokens{q, q_batch, q_head, q_token, q_cosine, q_sine, q_tokens}
                                      : Tokens{k, k_batch, k_head, k_token, k_cosine, k_sine, k_tokens};
  const int quarter = head_dim / 4;
  const long long thread = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  const long long all = static_cast<long long>(batch) * heads * side.tokens * quarter;
  if (thread >= all) return;
  const int lane = static_cast<int>(thread % quarter);
  long long rest = thread / quarter;
  const int head = static_cast<int>(rest % heads);  // heads lie beside each other in memory: neighbours read neighbours
  rest /= heads;
  const int token = static_cast<int>(rest % side.tokens);
  const long long image = rest / side.tokens;
  element* row = side.values + image * side.batch_stride + head * side.head_stride + token * side.token_stride;
  const float* cosine = side.cosine + static_cast<long long>(token) * head_dim;
  const float* sine = side.sine + static_cast<long long>(token) * head_dim;
  for (int half = 0; half < 2; ++half) {
    const int first = half * 2 * quarter + lane, second = first + quarter;
    const float a = to_float(row[first]), b = to_float(row[second]);
    row[first] = from_float(__fmaf_rn(-b, sine[first], a * cosine[first]));
    row[second] = from_float(__fmaf_rn(a, sine[second], b * cosine[second]));
  }
}
