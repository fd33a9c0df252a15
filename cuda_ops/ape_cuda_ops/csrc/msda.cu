// Multi-scale deformable attention on a GPU: forward and backward. No headers, so that NVRTC
// compiles it alone; tests/ops/emulation compiles the same text with g++.
//
// A block computes one head of an 8 x 8 tile of queries. Neighbouring queries sample
// neighbouring pixels, so the L1 cache serves most reads (simulated hit rate 76-92 %, against
// 18-56 % where a block takes queries line by line). A warp takes QUERIES queries at a time and
// gives LANES lanes to each:
//
//     1. softmax   a lane per sample:  exp(logit - maximum), summed by shuffles      registers
//     2. stage     a lane per sample:  offsets and bilinear weights of 4 corners  -> shared memory
//     3. gather    a lane per 16 bytes of a value row, over all samples           -> output
//
//     lane:    0 1 2 3 | 4 5 6 7 | ...      (a head of 32 bfloat16 numbers: 4 lanes x 16 bytes)
//     query:     q0    |   q1    | ...
//
// Coordinates and sums are float32 for every dtype of the values: 16-bit sampling locations
// alone would be wrong by up to half a pixel. A sample outside the image, or with an offset that
// is NaN or infinite, gets weight 0 and the index of an existing pixel, so no branch is needed.
// Lanes of a tile beyond the last query compute query 0 with weight 0 and store nothing.

// Same fields as ape_cuda_ops.backends.cuda.MsdaArguments.
struct MsdaArguments {
  const void* value;         // [B, S, H, D]
  const float* reference;    // [B, Q, L, AXES]; unused when AXES = 0
  const void* offsets_or_locations;  // [B, Q, H, L, P, 2]: locations when AXES = 0, else offsets
  const void* logits_or_weights;     // [B, Q, H, L, P]: weights when AXES = 0, else logits
  void* output;              // [B, Q, H, D]
  const float* output_grad;  // [B, Q, H, D]; backward only, as are the next three
  float* value_grad;         // [B, S, H, D], zeroed
  float* coordinate_grad;       // [B, Q, H, L, P, 2]: of locations when AXES = 0, else in pixels
  float* logit_or_weight_grad;  // [B, Q, H, L, P]
  i64 B, S, Q;
  int H;
  int grid_levels;           // L when the queries are the pixels of all levels; 0 otherwise
  int width[8], height[8], first[8];
  int tiles[9];              // number of 8 x 8 tiles before each level
};

constexpr int WARPS = 4;
constexpr int TILE = 8;

// How the 32 lanes of a warp share heads of D numbers of type V, for N samples per query. Corners
// of at most LIMIT rounds fit in shared memory at once; more are done in CHUNKS parts.
template <class V, int D, int N> struct WarpSplit {
  static constexpr int LANES = D / Row<V>::COUNT;  // lanes per query
  static constexpr int QUERIES = 32 / LANES;       // queries per warp at a time
  static constexpr int ROUNDS = (N + LANES - 1) / LANES;
  static constexpr int LIMIT = 8;                  // keeps a block at 20 KB of shared memory
  static constexpr int CHUNKS = (ROUNDS + LIMIT - 1) / LIMIT;
  static constexpr int PER_CHUNK = (ROUNDS + CHUNKS - 1) / CHUNKS;  // rounds per chunk
  static constexpr int CHUNK = PER_CHUNK * LANES;  // samples per chunk
  static constexpr int STEPS = (TILE * TILE + WARPS * QUERIES - 1) / (WARPS * QUERIES);
};

// Index of the query at position `local` (0-63) of this block's tile; -1 outside of the level.
__device__ inline int query_at(const MsdaArguments& a, int local) {
  if (a.grid_levels == 0) {
    const i64 query = i64(blockIdx.x) * (TILE * TILE) + local;
    return query < a.Q ? int(query) : -1;
  }
  int level = 0;
  while (level + 1 < a.grid_levels && int(blockIdx.x) >= a.tiles[level + 1]) ++level;
  const int tile = int(blockIdx.x) - a.tiles[level];
  const int columns = (a.width[level] + TILE - 1) / TILE;
  const int x = tile % columns * TILE + local % TILE;
  const int y = tile / columns * TILE + local / TILE;
  if (x >= a.width[level] || y >= a.height[level]) return -1;
  return a.first[level] + y * a.width[level] + x;
}

// The two pixels that linear interpolation reads along one axis: clamped indices, weights (0
// outside of the image), and 1 or 0 for "is in the image", which are the slopes of the weights.
struct LinearTaps {
  int low, high;
  float low_weight, high_weight, has_low, has_high;
};

__device__ inline LinearTaps linear_taps(float pixel, int count) {
  const float side = float(count);
  const bool inside = pixel > -1.0f && pixel < side;  // false for NaN
  pixel = inside ? pixel : 0.0f;
  const float whole = floorf(pixel);
  const int floor = int(whole);
  const float fraction = pixel - whole;
  LinearTaps taps;
  const bool has_low = inside && floor >= 0, has_high = inside && floor + 1 < count;
  taps.has_low = has_low ? 1.0f : 0.0f;
  taps.has_high = has_high ? 1.0f : 0.0f;
  taps.low_weight = has_low ? 1.0f - fraction : 0.0f;
  taps.high_weight = has_high ? fraction : 0.0f;
  taps.low = floor < 0 ? 0 : floor;
  taps.high = floor + 1 < count ? floor + 1 : count - 1;
  return taps;
}

// One sampling point: its taps along x and y, and its level.
struct Sample {
  LinearTaps x, y;
  int width, height, first;
};

// Sample n of a query and head; the pointers are to the first sample of that query and head.
template <class O, int L, int P, int AXES>
__device__ inline Sample sample_at(const MsdaArguments& a, const O* offsets_or_locations,
                                   const float* reference, int n) {
  const int level = n / P;
  Sample s;
  s.width = a.width[level];
  s.height = a.height[level];
  s.first = a.first[level];
  const O* coordinate = offsets_or_locations + n * 2;
  const float w = float(s.width), h = float(s.height);
  float x = to_float(coordinate[0]), y = to_float(coordinate[1]);
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
  s.x = linear_taps(x, s.width);
  s.y = linear_taps(y, s.height);
  return s;
}

// Offsets of the four corners in `value`, counted in numbers from this image and head, and their
// bilinear weights times the attention weight.
__device__ inline void corners(const Sample& s, float attention, int stride, Quad* offset,
                               Quadf* weight) {
  const u32 upper = u32(s.first + s.y.low * s.width) * u32(stride);
  const u32 lower = u32(s.first + s.y.high * s.width) * u32(stride);
  const u32 left = u32(s.x.low) * u32(stride), right = u32(s.x.high) * u32(stride);
  const float top = attention * s.y.low_weight, bottom = attention * s.y.high_weight;
  *offset = Quad{{upper + left, upper + right, lower + left, lower + right}};
  *weight = Quadf{{top * s.x.low_weight, top * s.x.high_weight, bottom * s.x.low_weight,
                   bottom * s.x.high_weight}};
}

// What one lane works on: its query, and where the inputs of that query and head begin.
template <class V, class O, int D, int L, int P, int AXES> struct QueryLane {
  typedef WarpSplit<V, D, L * P> Split;
  int lane;                 // 0 to LANES - 1, among the lanes of the query
  bool valid;               // false beyond the last query
  i64 row;                  // (b, query, head) as one index
  const O *offsets_or_locations, *logits_or_weights;
  const float* reference;

  __device__ inline QueryLane(const MsdaArguments& a, i64 b, int head, int local, int lane)
      : lane(lane) {
    const int found = query_at(a, local);
    valid = found >= 0;
    const i64 query = b * a.Q + (valid ? found : 0);
    row = query * a.H + head;
    offsets_or_locations = static_cast<const O*>(a.offsets_or_locations) + row * (L * P * 2);
    logits_or_weights = static_cast<const O*>(a.logits_or_weights) + row * (L * P);
    reference = AXES == 0 ? nullptr : a.reference + query * (L * AXES);
  }

  // The sample this lane takes in a round; repeats the last one when N is no multiple of LANES.
  __device__ inline int sample(int round) const {
    const int n = round * Split::LANES + lane;
    return n < L * P ? n : L * P - 1;
  }
  __device__ inline bool has_sample(int round) const {
    return valid && round * Split::LANES + lane < L * P;
  }

  // Attention weights of this lane's samples, normalised over all samples of the query. exp2 is
  // one instruction: exp(x) = 2^(x * log2(e)).
  __device__ inline void attention_weights(float* attention) const {
    float maximum = -3e38f, total = 0.0f;
    APE_UNROLL
    for (int r = 0; r < Split::ROUNDS; ++r) {
      attention[r] = to_float(logits_or_weights[sample(r)]);
      maximum = fmaxf(maximum, attention[r]);
    }
    if (AXES != 0) {
      for (int distance = Split::LANES / 2; distance > 0; distance /= 2)
        maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, distance));
      APE_UNROLL
      for (int r = 0; r < Split::ROUNDS; ++r) {
        attention[r] = exp2_fast((attention[r] - maximum) * 1.44269504088896341f);
        total += has_sample(r) ? attention[r] : 0.0f;
      }
      for (int distance = Split::LANES / 2; distance > 0; distance /= 2)
        total += __shfl_xor_sync(0xffffffffu, total, distance);
    }
    const float scale = AXES == 0 ? 1.0f : 1.0f / total;
    APE_UNROLL
    for (int r = 0; r < Split::ROUNDS; ++r)
      attention[r] = has_sample(r) ? attention[r] * scale : 0.0f;
  }

  // Corners of this lane's samples of one chunk, into the shared memory of the query.
  __device__ inline void stage(const MsdaArguments& a, int chunk, const float* attention,
                               int stride, Quad* offsets, Quadf* weights) const {
    APE_UNROLL
    for (int r = 0; r < Split::PER_CHUNK; ++r) {
      const int round = chunk * Split::PER_CHUNK + r;
      if (round >= Split::ROUNDS) break;
      const Sample s =
          sample_at<O, L, P, AXES>(a, offsets_or_locations, reference, sample(round));
      const int slot = r * Split::LANES + lane;
      corners(s, attention[round], stride, offsets + slot, weights + slot);
    }
  }
};

struct CoordinateGrad {
  float x, y;
};

// From the four dot products <output_grad, corner row>: the gradient of a sample's coordinate (as
// a location, or in pixels) into `grad`, and that of its attention weight as the result.
__device__ inline float finish_sample(const Sample& s, const Quadf& dots, float attention,
                                      bool of_location, CoordinateGrad* grad) {
  const float upper = s.x.low_weight * dots.number[0] + s.x.high_weight * dots.number[1];
  const float lower = s.x.low_weight * dots.number[2] + s.x.high_weight * dots.number[3];
  const float west = s.y.low_weight * dots.number[0] + s.y.high_weight * dots.number[2];
  const float east = s.y.low_weight * dots.number[1] + s.y.high_weight * dots.number[3];
  const float by_x = attention * (s.x.has_high * east - s.x.has_low * west);
  const float by_y = attention * (s.y.has_high * lower - s.y.has_low * upper);
  grad->x = of_location ? by_x * float(s.width) : by_x;
  grad->y = of_location ? by_y * float(s.height) : by_y;
  return s.y.low_weight * upper + s.y.high_weight * lower;
}

// V: dtype of value. O: dtype of offsets and logits, float when AXES = 0. AXES: numbers in a
// reference (2: point, 4: box), 0 without one.
template <class V, class O, int D, int L, int P, int AXES>
__global__ void __launch_bounds__(WARPS * 32) msda_forward(const MsdaArguments a) {
  typedef WarpSplit<V, D, L * P> Split;
  constexpr int COUNT = Row<V>::COUNT;
  __shared__ Quad offsets[WARPS][Split::QUERIES * Split::CHUNK];
  __shared__ Quadf weights[WARPS][Split::QUERIES * Split::CHUNK];
  const int warp = threadIdx.x / 32, thread = threadIdx.x % 32;
  const int mine = thread / Split::LANES, lane = thread % Split::LANES;
  const int head = blockIdx.y, stride = a.H * D;
  Quad* own_offsets = offsets[warp] + mine * Split::CHUNK;
  Quadf* own_weights = weights[warp] + mine * Split::CHUNK;
  for (i64 b = blockIdx.z; b < a.B; b += gridDim.z) {
    const V* columns = static_cast<const V*>(a.value) + b * a.S * stride + head * D + lane * COUNT;
    APE_ROLLED
    for (int step = 0; step < Split::STEPS; ++step) {
      const int local = (step * WARPS + warp) * Split::QUERIES + mine;
      const QueryLane<V, O, D, L, P, AXES> query(a, b, head, local, lane);
      float attention[Split::ROUNDS], sum[COUNT] = {};
      query.attention_weights(attention);
      APE_UNROLL
      for (int chunk = 0; chunk < Split::CHUNKS; ++chunk) {
        query.stage(a, chunk, attention, stride, own_offsets, own_weights);
        __syncwarp();
        APE_UNROLL
        for (int n = 0; n < Split::CHUNK; ++n) {
          if (chunk * Split::CHUNK + n >= L * P) break;
          const Quad offset = own_offsets[n];
          const Quadf weight = own_weights[n];
          APE_UNROLL
          for (int corner = 0; corner < 4; ++corner) {
            float row[COUNT];
            unpack(load_quad(columns + offset.word[corner]), row, V{});
            for (int i = 0; i < COUNT; ++i) sum[i] += weight.number[corner] * row[i];
          }
        }
        __syncwarp();  // all lanes have read the corners before they are overwritten
      }
      if (query.valid) store_row(static_cast<V*>(a.output) + query.row * D + lane * COUNT, sum);
    }
  }
}

// Adds weight * g to the gradient of the four corner rows, g being this lane's part of
// output_grad; returns <output_grad, row> of each, summed over the lanes of the query.
template <class V, int LANES>
__device__ inline Quadf scatter(const V* columns, float* value_grad, const Quad& offset,
                                const Quadf& weight, const float* g) {
  constexpr int COUNT = Row<V>::COUNT;
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
    for (int distance = LANES / 2; distance > 0; distance /= 2)
      dot += __shfl_xor_sync(0xffffffffu, dot, distance);
    dots.number[corner] = dot;
  }
  return dots;
}

// Same work split as the forward. Per chunk: (1) stage the corners; (2) per sample, add weight *
// output_grad to value_grad (atomically: other blocks hit the same pixels) and leave the four dot
// products <output_grad, row> in shared memory; (3) the lane of the sample turns them into the
// gradients of its coordinate and attention weight. The softmax's own backward comes last.
template <class V, class O, int D, int L, int P, int AXES>
__global__ void __launch_bounds__(WARPS * 32) msda_backward(const MsdaArguments a) {
  typedef WarpSplit<V, D, L * P> Split;
  constexpr int COUNT = Row<V>::COUNT, N = L * P;
  __shared__ Quad offsets[WARPS][Split::QUERIES * Split::CHUNK];
  __shared__ Quadf weights[WARPS][Split::QUERIES * Split::CHUNK];  // then the dot products
  const int warp = threadIdx.x / 32, thread = threadIdx.x % 32;
  const int mine = thread / Split::LANES, lane = thread % Split::LANES;
  const int head = blockIdx.y, stride = a.H * D;
  Quad* own_offsets = offsets[warp] + mine * Split::CHUNK;
  Quadf* own_weights = weights[warp] + mine * Split::CHUNK;
  for (i64 b = blockIdx.z; b < a.B; b += gridDim.z) {
    const i64 column = b * a.S * stride + head * D + lane * COUNT;
    const V* columns = static_cast<const V*>(a.value) + column;
    float* value_grad = a.value_grad + column;
    APE_ROLLED
    for (int step = 0; step < Split::STEPS; ++step) {
      const int local = (step * WARPS + warp) * Split::QUERIES + mine;
      const QueryLane<V, O, D, L, P, AXES> query(a, b, head, local, lane);
      float attention[Split::ROUNDS], weight_grad[Split::ROUNDS], g[COUNT], mean = 0.0f;
      query.attention_weights(attention);
      for (int i = 0; i < COUNT; ++i)
        g[i] = query.valid ? a.output_grad[query.row * D + lane * COUNT + i] : 0.0f;
      APE_UNROLL
      for (int chunk = 0; chunk < Split::CHUNKS; ++chunk) {
        query.stage(a, chunk, attention, stride, own_offsets, own_weights);
        __syncwarp();
        APE_ROLLED
        for (int n = 0; n < Split::CHUNK; ++n) {
          if (chunk * Split::CHUNK + n >= N) break;
          const Quad offset = own_offsets[n];
          const Quadf weight = own_weights[n];
          const Quadf dots = scatter<V, Split::LANES>(columns, value_grad, offset, weight, g);
          __syncwarp();  // every lane of the query has read the weights that `dots` replaces
          if (lane == 0) own_weights[n] = dots;
        }
        __syncwarp();
        APE_UNROLL
        for (int r = 0; r < Split::PER_CHUNK; ++r) {
          const int round = chunk * Split::PER_CHUNK + r;
          if (round >= Split::ROUNDS) break;
          const int n = query.sample(round);
          const Sample s =
              sample_at<O, L, P, AXES>(a, query.offsets_or_locations, query.reference, n);
          const Quadf dots = own_weights[n - chunk * Split::CHUNK];
          CoordinateGrad grad;
          weight_grad[round] = finish_sample(s, dots, attention[round], AXES == 0, &grad);
          mean += attention[round] * weight_grad[round];
          if (!query.has_sample(round)) continue;
          a.coordinate_grad[(query.row * N + n) * 2] = grad.x;
          a.coordinate_grad[(query.row * N + n) * 2 + 1] = grad.y;
        }
        __syncwarp();
      }
      for (int distance = Split::LANES / 2; distance > 0; distance /= 2)
        mean += __shfl_xor_sync(0xffffffffu, mean, distance);
      APE_UNROLL
      for (int r = 0; r < Split::ROUNDS; ++r)
        if (query.has_sample(r))
          a.logit_or_weight_grad[query.row * N + query.sample(r)] =
              AXES == 0 ? weight_grad[r] : attention[r] * (weight_grad[r] - mean);
    }
  }
}
