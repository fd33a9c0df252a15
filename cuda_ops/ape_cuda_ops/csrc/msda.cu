// Multi-scale deformable attention on a GPU: forward and backward. No headers, so that NVRTC
// compiles it alone; tests/ops/emu compiles the same text with g++.
//
// One block computes one head of an 8 x 8 tile of queries: neighbours read neighbouring
// pixels, so most reads are served by the L1 cache. A warp takes QUERIES of the tile at a time,
// LANES lanes to a query:
//
//     shares   a lane per sample:   exp(logit - largest), their sum by shuffles  (registers)
//     stage    a lane per sample:   4 row offsets and 4 bilinear weights         -> shared
//     gather   16 bytes of a row per lane, all samples in turn, float32 sums     -> output
//
//     lane:    0 1 2 3 | 4 5 6 7 | ...      (32 bfloat16 numbers of a head: 4 lanes x 16 bytes)
//     query:     q0    |   q1    | ...
//
// Coordinates and sums are float32 whatever the values are. A sample outside the image, or
// whose offset is NaN or infinite, has weight 0 and the offset of a pixel that exists. Places
// of a tile beyond the last query compute query 0 with weight 0 and store nothing.

// Mirrored by ape_cuda_ops.build.launcher.MsdaArguments.
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
  static constexpr int LANES = D / Row<V>::COUNT;  // lanes per query
  static constexpr int QUERIES = 32 / LANES;       // queries per warp at a time
  static constexpr int ROUNDS = (N + LANES - 1) / LANES;
  static constexpr int LIMIT = 8;                  // rounds whose corners shared memory holds
  static constexpr int CHUNKS = (ROUNDS + LIMIT - 1) / LIMIT;
  static constexpr int PER_CHUNK = (ROUNDS + CHUNKS - 1) / CHUNKS;  // rounds per chunk
  static constexpr int CHUNK = PER_CHUNK * LANES;  // samples per chunk
  static constexpr int STEPS = (TILE * TILE + WARPS * QUERIES - 1) / (WARPS * QUERIES);
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
  const bool low = inside && floor >= 0, high = inside && floor + 1 < count;
  n.has_low = low ? 1.0f : 0.0f;
  n.has_high = high ? 1.0f : 0.0f;
  n.low_weight = low ? 1.0f - part : 0.0f;
  n.high_weight = high ? part : 0.0f;
  n.low = floor < 0 ? 0 : floor;
  n.high = floor + 1 < count ? floor + 1 : count - 1;
  return n;
}

struct Sample {
  Neighbours x, y;
  int width, height, first;
};

// Sample n of a query; the pointers are those of that query (and head).
template <class O, int L, int P, int AXES>
__device__ inline Sample sample_at(const Arguments& a, const O* positions, const float* reference,
                                   int n) {
  const int level = n / P;
  Sample s;
  s.width = a.width[level];
  s.height = a.height[level];
  s.first = a.first[level];
  const O* position = positions + n * 2;
  const float w = float(s.width), h = float(s.height);
  float x = to_float(position[0]), y = to_float(position[1]);
  if (AXES == 0) {
    x = x * w - 0.5f;
    y = y * h - 0.5f;
  } else {
    const float* box = reference + level * AXES;
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

// One thread's place: its query, and where that query's arguments are.
template <class V, class O, int D, int L, int P, int AXES> struct Place {
  typedef Layout<V, D, L * P> Lay;
  int lane;                 // among the query's lanes
  bool real;                // false beyond the last query
  i64 at;                   // (b, query, head) as one number
  const O *positions, *mixing;
  const float* reference;

  __device__ inline Place(const Arguments& a, i64 b, int head, int local, int lane) : lane(lane) {
    const int found = query_at(a, local);
    real = found >= 0;
    const i64 row = b * a.Q + (real ? found : 0);
    at = row * a.H + head;
    positions = static_cast<const O*>(a.positions) + at * (L * P * 2);
    mixing = static_cast<const O*>(a.mixing) + at * (L * P);
    reference = AXES == 0 ? nullptr : a.reference + row * (L * AXES);
  }

  // The lane's sample of a round; the last one's again where the rounds exceed the samples.
  __device__ inline int sample(int round) const {
    const int n = round * Lay::LANES + lane;
    return n < L * P ? n : L * P - 1;
  }
  __device__ inline bool counts(int round) const {
    return real && round * Lay::LANES + lane < L * P;
  }

  // The lane's attention shares, normalised.
  __device__ inline void shares(float* share) const {
    float largest = -3e38f, total = 0.0f;
    APE_UNROLL
    for (int r = 0; r < Lay::ROUNDS; ++r) {
      share[r] = to_float(mixing[sample(r)]);
      largest = fmaxf(largest, share[r]);
    }
    if (AXES != 0) {
      for (int far = Lay::LANES / 2; far > 0; far /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, far));
      APE_UNROLL
      for (int r = 0; r < Lay::ROUNDS; ++r) {
        share[r] = exp2_fast((share[r] - largest) * 1.44269504088896341f);
        total += counts(r) ? share[r] : 0.0f;
      }
      for (int far = Lay::LANES / 2; far > 0; far /= 2)
        total += __shfl_xor_sync(0xffffffffu, total, far);
    }
    const float scale = AXES == 0 ? 1.0f : 1.0f / total;
    APE_UNROLL
    for (int r = 0; r < Lay::ROUNDS; ++r) share[r] = counts(r) ? share[r] * scale : 0.0f;
  }
};

struct Slope {
  float x, y;
};

// Gradient of one sample's coordinates (of its location, or of its pixel); returns its share's.
__device__ inline float finish_sample(const Sample& s, const Quadf& dots, float share,
                                      bool of_location, Slope* by) {
  const float upper = s.x.low_weight * dots.number[0] + s.x.high_weight * dots.number[1];
  const float lower = s.x.low_weight * dots.number[2] + s.x.high_weight * dots.number[3];
  const float west = s.y.low_weight * dots.number[0] + s.y.high_weight * dots.number[2];
  const float east = s.y.low_weight * dots.number[1] + s.y.high_weight * dots.number[3];
  const float by_x = share * (s.x.has_high * east - s.x.has_low * west);
  const float by_y = share * (s.y.has_high * lower - s.y.has_low * upper);
  by->x = of_location ? by_x * float(s.width) : by_x;
  by->y = of_location ? by_y * float(s.height) : by_y;
  return s.y.low_weight * upper + s.y.high_weight * lower;
}

// V: values. O: offsets and logits (locations and weights are always float when AXES = 0).
template <class V, class O, int D, int L, int P, int AXES>
__global__ void __launch_bounds__(WARPS * 32) msda_forward(const Arguments a) {
  typedef Layout<V, D, L * P> Lay;
  constexpr int COUNT = Row<V>::COUNT;
  __shared__ Quad offsets[WARPS][Lay::QUERIES * Lay::CHUNK];
  __shared__ Quadf weights[WARPS][Lay::QUERIES * Lay::CHUNK];
  const int warp = threadIdx.x / 32, thread = threadIdx.x % 32;
  const int mine = thread / Lay::LANES, lane = thread % Lay::LANES;
  const int head = blockIdx.y, stride = a.H * D;
  Quad* own_offsets = offsets[warp] + mine * Lay::CHUNK;
  Quadf* own_weights = weights[warp] + mine * Lay::CHUNK;
  for (i64 b = blockIdx.z; b < a.B; b += gridDim.z) {
    const V* columns = static_cast<const V*>(a.value) + b * a.S * stride + head * D + lane * COUNT;
    APE_ROLLED
    for (int step = 0; step < Lay::STEPS; ++step) {
      const int local = (step * WARPS + warp) * Lay::QUERIES + mine;
      const Place<V, O, D, L, P, AXES> place(a, b, head, local, lane);
      float share[Lay::ROUNDS], sum[COUNT] = {};
      place.shares(share);
      APE_UNROLL
      for (int chunk = 0; chunk < Lay::CHUNKS; ++chunk) {
        APE_UNROLL
        for (int r = 0; r < Lay::PER_CHUNK; ++r) {
          const int round = chunk * Lay::PER_CHUNK + r;
          if (round >= Lay::ROUNDS) break;
          const int n = place.sample(round);
          const Sample s = sample_at<O, L, P, AXES>(a, place.positions, place.reference, n);
          const int slot = r * Lay::LANES + lane;
          corners(s, share[round], stride, own_offsets + slot, own_weights + slot);
        }
        __syncwarp();
        APE_UNROLL
        for (int n = 0; n < Lay::CHUNK; ++n) {
          if (chunk * Lay::CHUNK + n >= L * P) break;
          const Quad offset = own_offsets[n];
          const Quadf weight = own_weights[n];
          APE_UNROLL
          for (int corner = 0; corner < 4; ++corner) {
            float row[COUNT];
            unpack(load_quad(columns + offset.word[corner]), row, V{});
            for (int i = 0; i < COUNT; ++i) sum[i] += weight.number[corner] * row[i];
          }
        }
        __syncwarp();  // before the next chunk or query overwrites the corners
      }
      if (place.real) store_row(static_cast<V*>(a.output) + place.at * D + lane * COUNT, sum);
    }
  }
}

// Same layout as the forward. Per chunk: stage the corners, then per sample add
// weight * gradient to the value's gradient and leave the four dot products
// <gradient, row> in shared memory, then the sample's lane finishes its coordinates.
template <class V, class O, int D, int L, int P, int AXES>
__global__ void __launch_bounds__(WARPS * 32) msda_backward(const Arguments a) {
  typedef Layout<V, D, L * P> Lay;
  constexpr int COUNT = Row<V>::COUNT, N = L * P;
  __shared__ Quad offsets[WARPS][Lay::QUERIES * Lay::CHUNK];
  __shared__ Quadf weights[WARPS][Lay::QUERIES * Lay::CHUNK];  // then the dot products
  const int warp = threadIdx.x / 32, thread = threadIdx.x % 32;
  const int mine = thread / Lay::LANES, lane = thread % Lay::LANES;
  const int head = blockIdx.y, stride = a.H * D;
  Quad* own_offsets = offsets[warp] + mine * Lay::CHUNK;
  Quadf* own_weights = weights[warp] + mine * Lay::CHUNK;
  for (i64 b = blockIdx.z; b < a.B; b += gridDim.z) {
    const i64 column = b * a.S * stride + head * D + lane * COUNT;
    const V* columns = static_cast<const V*>(a.value) + column;
    float* value_grad = a.value_grad + column;
    APE_ROLLED
    for (int step = 0; step < Lay::STEPS; ++step) {
      const int local = (step * WARPS + warp) * Lay::QUERIES + mine;
      const Place<V, O, D, L, P, AXES> place(a, b, head, local, lane);
      float share[Lay::ROUNDS], slope[Lay::ROUNDS], g[COUNT], mean = 0.0f;
      place.shares(share);
      for (int i = 0; i < COUNT; ++i)
        g[i] = place.real ? a.output_grad[place.at * D + lane * COUNT + i] : 0.0f;
      APE_UNROLL
      for (int chunk = 0; chunk < Lay::CHUNKS; ++chunk) {
        APE_UNROLL
        for (int r = 0; r < Lay::PER_CHUNK; ++r) {
          const int round = chunk * Lay::PER_CHUNK + r;
          if (round >= Lay::ROUNDS) break;
          const int n = place.sample(round);
          const Sample s = sample_at<O, L, P, AXES>(a, place.positions, place.reference, n);
          const int slot = r * Lay::LANES + lane;
          corners(s, share[round], stride, own_offsets + slot, own_weights + slot);
        }
        __syncwarp();
        APE_ROLLED
        for (int n = 0; n < Lay::CHUNK; ++n) {
          if (chunk * Lay::CHUNK + n >= N) break;
          const Quad offset = own_offsets[n];
          const Quadf weight = own_weights[n];
          Quadf dots = {};
          APE_UNROLL
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
          if (lane == 0) own_weights[n] = dots;
        }
        __syncwarp();
        APE_UNROLL
        for (int r = 0; r < Lay::PER_CHUNK; ++r) {
          const int round = chunk * Lay::PER_CHUNK + r;
          if (round >= Lay::ROUNDS) break;
          const int n = place.sample(round);
          const Sample s = sample_at<O, L, P, AXES>(a, place.positions, place.reference, n);
          const Quadf dots = own_weights[n - chunk * Lay::CHUNK];
          Slope by;
          slope[round] = finish_sample(s, dots, share[round], AXES == 0, &by);
          mean += share[round] * slope[round];
          if (!place.counts(round)) continue;
          a.position_grad[(place.at * N + n) * 2] = by.x;
          a.position_grad[(place.at * N + n) * 2 + 1] = by.y;
        }
        __syncwarp();
      }
      for (int far = Lay::LANES / 2; far > 0; far /= 2)
        mean += __shfl_xor_sync(0xffffffffu, mean, far);
      APE_UNROLL
      for (int r = 0; r < Lay::ROUNDS; ++r)
        if (place.counts(r))
          a.mixing_grad[place.at * N + place.sample(r)] =
              AXES == 0 ? slope[r] : share[r] * (slope[r] - mean);
    }
  }
}
