// Multi-scale deformable attention on a GPU: forward and backward. No headers, so that NVRTC
// compiles it alone; tests/ops/emu compiles the same text with g++.
//
// One block computes one head of an 8 x 8 tile of queries: neighbours read neighbouring
// pixels, so most reads are served by the L1 cache. A warp takes QUERIES of the tile at a time:
//
//     shares   LANES lanes per query:  exp(logit - largest), their sum         -> shared
//     stage    one lane per sample:    4 row offsets and 4 bilinear weights    -> shared
//     gather   LANES lanes per query:  16 bytes of a row each, float32 sums    -> output
//
//     lane:    0 1 2 3 | 4 5 6 7 | ...      (32 bfloat16 numbers of a head: 4 lanes x 16 bytes)
//     query:     q0    |   q1    | ...
//
// Coordinates and sums are float32 whatever the values are. A sample outside the image, or
// whose offset is NaN or infinite, has weight 0 and the offset of a pixel that exists.

// Mirrored by ape_cuda_ops.launch.MsdaArguments.
struct Arguments {
  const void* value;         // [B, S, H, D]
  const float* reference;    // [B, Q, L, AXES]; unused when AXES = 0
  const void* positions;     // [B, Q, H, L, P, 2]: locations when AXES = 0, else offsets
  const void* mixing;        // [B, Q, H, L, P]: weights when AXES = 0, else logits
  void* output;              // [B, Q, H, D]
  const float* output_grad;  // [B, Q, H, D]; backward only, as are the next three
  float* value_grad;         // [B, S, H, D], zeroed
  float* position_grad;      // [B, Q, H, L, P, 2]: of locations when AXES = 0, else of pixels
  float* mixing_grad;        // [B, Q, H, L, P]
  i64 B, S, Q;
  int H;
  int grid_levels;           // levels whose pixels are the queries, in order; 0: no grid
  int width[8], height[8], first[8];
  int tiles[9];              // number of 8 x 8 tiles before each level
};

constexpr int WARPS = 4;
constexpr int TILE = 8;

// How a head of D numbers of type V is spread over a warp, for N samples per query.
template <class V, int D, int N> struct Layout {
  static constexpr int LANES = D / Row<V>::COUNT;      // lanes per query
  static constexpr int QUERIES = 32 / LANES;           // queries per warp at a time
  static constexpr int LIMIT = 256 / QUERIES;          // samples whose corners shared memory holds
  static constexpr int CHUNKS = (N + LIMIT - 1) / LIMIT;
  static constexpr int CHUNK = (N + CHUNKS - 1) / CHUNKS;
  static constexpr int STEPS = TILE * TILE / (WARPS * QUERIES) > 0
                                   ? TILE * TILE / (WARPS * QUERIES) : 1;
};

// Query number of the `local`-th place of this block's tile; -1 where the tile sticks out.
__device__ inline int query_at(const Arguments& a, int local) {
  if (a.grid_levels == 0) {
    const i64 query = i64(blockIdx.x) * (TILE * TILE) + local;
    return query < a.Q ? int(query) : -1;
  }
  int level = 0;
  while (level + 1 < a.grid_levels && int(blockIdx.x) >= a.tiles[level + 1]) ++level;
  const int tile = int(blockIdx.x) - a.tiles[level];
  const int across = (a.width[level] + TILE - 1) / TILE;
  const int x = tile % across * TILE + local % TILE;
  const int y = tile / across * TILE + local / TILE;
  if (x >= a.width[level] || y >= a.height[level]) return -1;
  return a.first[level] + y * a.width[level] + x;
}

// The two neighbours of a pixel coordinate along one axis.
struct Neighbours {
  int low, high;
  float low_weight, high_weight, has_low, has_high;
};

__device__ inline Neighbours neighbours(float pixel, int count) {
  const float side = float(count);
  const bool inside = pixel > -1.0f && pixel < side;  // false for NaN
  pixel = inside ? pixel : 0.0f;
  const float whole = floorf(pixel);
  const int floor = int(whole);
  const float part = pixel - whole;
  Neighbours n;
  n.has_low = inside && floor >= 0 ? 1.0f : 0.0f;
  n.has_high = inside && floor + 1 < count ? 1.0f : 0.0f;
  n.low_weight = n.has_low * (1.0f - part);
  n.high_weight = n.has_high * part;
  n.low = floor < 0 ? 0 : floor;
  n.high = floor + 1 < count ? floor + 1 : count - 1;
  return n;
}

struct Sample {
  Neighbours x, y;
  int width, height, first;
};

// Sample n of (query row, head); `row` counts (b, q), `at` counts (b, q, h).
template <class O, int L, int P, int AXES>
__device__ inline Sample sample_at(const Arguments& a, i64 row, i64 at, int n) {
  const int level = n / P;
  Sample s;
  s.width = a.width[level];
  s.height = a.height[level];
  s.first = a.first[level];
  const O* position = static_cast<const O*>(a.positions) + (at * (L * P) + n) * 2;
  const float w = float(s.width), h = float(s.height);
  float x = to_float(position[0]), y = to_float(position[1]);
  if (AXES == 0) {
    x = x * w - 0.5f;
    y = y * h - 0.5f;
  } else {
    const float* box = a.reference + (row * L + level) * AXES;
    if (AXES == 4) {
      x *= box[2] * w * (0.5f / P);
      y *= box[3] * h * (0.5f / P);
    }
    x += box[0] * w - 0.5f;
    y += box[1] * h - 0.5f;
  }
  s.x = neighbours(x, s.width);
  s.y = neighbours(y, s.height);
  return s;
}

// Offsets (in numbers, within the image and head) and bilinear weights of the four corners.
__device__ inline void corners(const Sample& s, float share, int stride, Quad* offset, Quadf* weight) {
  const u32 upper = u32(s.first + s.y.low * s.width) * u32(stride);
  const u32 lower = u32(s.first + s.y.high * s.width) * u32(stride);
  const u32 left = u32(s.x.low) * u32(stride), right = u32(s.x.high) * u32(stride);
  const float top = share * s.y.low_weight, bottom = share * s.y.high_weight;
  *offset = Quad{{upper + left, upper + right, lower + left, lower + right}};
  *weight = Quadf{{top * s.x.low_weight, top * s.x.high_weight, bottom * s.x.low_weight,
                   bottom * s.x.high_weight}};
}

// Attention shares of one query into shared memory, unnormalised; returns 1 / their sum.
template <class O, int N, int AXES, int LANES>
__device__ inline float set_shares(const Arguments& a, i64 at, bool real, int lane, float* shares) {
  const O* mixing = static_cast<const O*>(a.mixing) + at * N;
  float largest = -1e30f, total = 0.0f;
  APE_UNROLL(8)
  for (int n = lane; n < N; n += LANES) {
    const float x = real ? to_float(mixing[n]) : 0.0f;
    shares[n] = x;
    largest = fmaxf(largest, x);
  }
  if (AXES == 0) return 1.0f;
  for (int step = LANES / 2; step > 0; step /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
  APE_UNROLL(8)
  for (int n = lane; n < N; n += LANES) {  // the lane's own entries: no barrier needed
    const float e = exp2_fast((shares[n] - largest) * 1.44269504088896341f);
    shares[n] = e;
    total += e;
  }
  for (int step = LANES / 2; step > 0; step /= 2)
    total += __shfl_xor_sync(0xffffffffu, total, step);
  return 1.0f / total;
}

// Writes the gradient of one sample's coordinates; returns that of its share.
template <int AXES>
__device__ inline float finish_sample(const Arguments& a, const Sample& s, const Quadf& dots,
                                      float share, i64 place) {
  const float upper = s.x.low_weight * dots.number[0] + s.x.high_weight * dots.number[1];
  const float lower = s.x.low_weight * dots.number[2] + s.x.high_weight * dots.number[3];
  const float west = s.y.low_weight * dots.number[0] + s.y.high_weight * dots.number[2];
  const float east = s.y.low_weight * dots.number[1] + s.y.high_weight * dots.number[3];
  const float by_x = share * (s.x.has_high * east - s.x.has_low * west);
  const float by_y = share * (s.y.has_high * lower - s.y.has_low * upper);
  a.position_grad[place * 2] = AXES == 0 ? by_x * float(s.width) : by_x;
  a.position_grad[place * 2 + 1] = AXES == 0 ? by_y * float(s.height) : by_y;
  return s.y.low_weight * upper + s.y.high_weight * lower;
}

// Through the softmax: gradient of logit = share * (gradient of share - their weighted mean).
template <int N, int AXES, int LANES>
__device__ inline void finish_shares(const Arguments& a, i64 at, bool real, int lane,
                                     const float* shares, const float* slopes, float scale) {
  float mean = 0.0f;
  for (int n = lane; n < N && real && AXES != 0; n += LANES) mean += shares[n] * scale * slopes[n];
  for (int far = LANES / 2; far > 0; far /= 2) mean += __shfl_xor_sync(0xffffffffu, mean, far);
  for (int n = lane; n < N && real; n += LANES)
    a.mixing_grad[at * N + n] = AXES == 0 ? slopes[n] : shares[n] * scale * (slopes[n] - mean);
}

// V: values. O: offsets and logits (locations and weights are always float when AXES = 0).
template <class V, class O, int D, int L, int P, int AXES>
__global__ void __launch_bounds__(WARPS * 32) msda_forward(const Arguments a) {
  constexpr int N = L * P;
  typedef Layout<V, D, N> Lay;
  __shared__ Quad offsets[WARPS][Lay::QUERIES * Lay::CHUNK];
  __shared__ Quadf weights[WARPS][Lay::QUERIES * Lay::CHUNK];
  __shared__ float shares[WARPS][Lay::QUERIES * N];
  __shared__ int queries[WARPS][Lay::QUERIES];
  const int warp = threadIdx.x / 32, thread = threadIdx.x % 32;
  const int mine = thread / Lay::LANES, lane = thread % Lay::LANES;
  const int head = blockIdx.y, stride = a.H * D;
  for (i64 b = blockIdx.z; b < a.B; b += gridDim.z) {
    const V* image = static_cast<const V*>(a.value) + b * a.S * stride + head * D;
    const V* columns = image + lane * Row<V>::COUNT;
#pragma unroll 1
    for (int step = 0; step < Lay::STEPS; ++step) {
      const int base = (step * WARPS + warp) * Lay::QUERIES;
      if (base >= TILE * TILE) break;
      const int query = query_at(a, base + mine);
      queries[warp][mine] = query;
      const i64 at = ((b * a.Q + query) * a.H) + head;
      float* own = shares[warp] + mine * N;
      const float scale = set_shares<O, N, AXES, Lay::LANES>(a, at, query >= 0, lane, own);
      float sum[Row<V>::COUNT] = {};
#pragma unroll 1
      for (int chunk = 0; chunk < Lay::CHUNKS; ++chunk) {
        __syncwarp();
        APE_UNROLL(8)
        for (int i = thread; i < Lay::QUERIES * Lay::CHUNK; i += 32) {
          const int local = i / Lay::CHUNK, n = chunk * Lay::CHUNK + i % Lay::CHUNK;
          const int other = queries[warp][local];
          Quad offset = {};
          Quadf weight = {};
          if (other >= 0 && n < N) {
            const i64 row = b * a.Q + other;
            const Sample s = sample_at<O, L, P, AXES>(a, row, row * a.H + head, n);
            corners(s, shares[warp][local * N + n], stride, &offset, &weight);
          }
          offsets[warp][i] = offset;
          weights[warp][i] = weight;
        }
        __syncwarp();
        APE_UNROLL(32)
        for (int n = 0; n < Lay::CHUNK; ++n) {
          const Quad offset = offsets[warp][mine * Lay::CHUNK + n];
          const Quadf weight = weights[warp][mine * Lay::CHUNK + n];
          APE_UNROLL(4)
          for (int corner = 0; corner < 4; ++corner) {
            float row[Row<V>::COUNT];
            unpack(load_quad(columns + offset.word[corner]), row, V{});
            for (int i = 0; i < Row<V>::COUNT; ++i) sum[i] += weight.number[corner] * row[i];
          }
        }
      }
      if (query >= 0) {
        for (int i = 0; i < Row<V>::COUNT; ++i) sum[i] *= scale;
        store_row(static_cast<V*>(a.output) + at * D + lane * Row<V>::COUNT, sum);
      }
      __syncwarp();
    }
  }
}

// Same layout as the forward. Per chunk: stage the corners, then per sample add
// weight * gradient to the value's gradient and leave the four dot products
// <gradient, row> in shared memory, then one lane per sample finishes its coordinates.
template <class V, class O, int D, int L, int P, int AXES>
__global__ void __launch_bounds__(WARPS * 32) msda_backward(const Arguments a) {
  constexpr int N = L * P;
  typedef Layout<V, D, N> Lay;
  constexpr int COUNT = Row<V>::COUNT;
  __shared__ Quad offsets[WARPS][Lay::QUERIES * Lay::CHUNK];
  __shared__ Quadf weights[WARPS][Lay::QUERIES * Lay::CHUNK];  // then the dot products
  __shared__ float shares[WARPS][Lay::QUERIES * N];
  __shared__ float slopes[WARPS][Lay::QUERIES * N];             // gradient by the share
  __shared__ int queries[WARPS][Lay::QUERIES];
  __shared__ float scales[WARPS][Lay::QUERIES];
  const int warp = threadIdx.x / 32, thread = threadIdx.x % 32;
  const int mine = thread / Lay::LANES, lane = thread % Lay::LANES;
  const int head = blockIdx.y, stride = a.H * D;
  for (i64 b = blockIdx.z; b < a.B; b += gridDim.z) {
    const i64 column = b * a.S * stride + head * D + lane * COUNT;
    const V* columns = static_cast<const V*>(a.value) + column;
    float* value_grad = a.value_grad + column;
#pragma unroll 1
    for (int step = 0; step < Lay::STEPS; ++step) {
      const int base = (step * WARPS + warp) * Lay::QUERIES;
      if (base >= TILE * TILE) break;
      const int query = query_at(a, base + mine);
      const i64 at = ((b * a.Q + query) * a.H) + head;
      float* own = shares[warp] + mine * N;
      const float scale = set_shares<O, N, AXES, Lay::LANES>(a, at, query >= 0, lane, own);
      queries[warp][mine] = query;
      scales[warp][mine] = scale;
      float g[COUNT];
      for (int i = 0; i < COUNT; ++i)
        g[i] = query < 0 ? 0.0f : a.output_grad[at * D + lane * COUNT + i];
#pragma unroll 1
      for (int chunk = 0; chunk < Lay::CHUNKS; ++chunk) {
        __syncwarp();
#pragma unroll 1
        for (int i = thread; i < Lay::QUERIES * Lay::CHUNK; i += 32) {
          const int local = i / Lay::CHUNK, n = chunk * Lay::CHUNK + i % Lay::CHUNK;
          const int other = queries[warp][local];
          Quad offset = {};
          Quadf weight = {};
          if (other >= 0 && n < N) {
            const i64 row = b * a.Q + other;
            const Sample s = sample_at<O, L, P, AXES>(a, row, row * a.H + head, n);
            corners(s, shares[warp][local * N + n] * scales[warp][local], stride, &offset, &weight);
          }
          offsets[warp][i] = offset;
          weights[warp][i] = weight;
        }
        __syncwarp();
#pragma unroll 1
        for (int n = 0; n < Lay::CHUNK; ++n) {
          const int i = mine * Lay::CHUNK + n;
          const Quad offset = offsets[warp][i];
          const Quadf weight = weights[warp][i];
          Quadf dots = {};
          APE_UNROLL(4)
          for (int corner = 0; corner < 4; ++corner) {
            float row[COUNT], dot = 0.0f;
            unpack(load_quad(columns + offset.word[corner]), row, V{});
            for (int k = 0; k < COUNT; ++k) dot += g[k] * row[k];
            const float w = weight.number[corner];
            if (w != 0.0f) {
              float* target = value_grad + offset.word[corner];
              for (int k = 0; k < COUNT; k += 4)
                add_quad(target + k, w * g[k], w * g[k + 1], w * g[k + 2], w * g[k + 3]);
            }
            for (int far = Lay::LANES / 2; far > 0; far /= 2)
              dot += __shfl_xor_sync(0xffffffffu, dot, far);
            dots.number[corner] = dot;
          }
          __syncwarp();  // every lane of the query has read its weights
          if (lane == 0) weights[warp][i] = dots;
        }
        __syncwarp();
#pragma unroll 1
        for (int i = thread; i < Lay::QUERIES * Lay::CHUNK; i += 32) {
          const int local = i / Lay::CHUNK, n = chunk * Lay::CHUNK + i % Lay::CHUNK;
          const int other = queries[warp][local];
          if (other < 0 || n >= N) continue;
          const i64 row = b * a.Q + other, place = (row * a.H + head) * N + n;
          const Sample s = sample_at<O, L, P, AXES>(a, row, row * a.H + head, n);
          const float share = shares[warp][local * N + n] * scales[warp][local];
          slopes[warp][local * N + n] = finish_sample<AXES>(a, s, weights[warp][i], share, place);
        }
      }
      __syncwarp();
      finish_shares<N, AXES, Lay::LANES>(a, at, query >= 0, lane, own, slopes[warp] + mine * N, scale);
      __syncwarp();
    }
  }
}
