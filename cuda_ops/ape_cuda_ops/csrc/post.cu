// After the network: non-maximum suppression in groups of any size, and masks to bits.
//
// Every product is rounded by itself (__fmul_rn is never fused with a sum), as in the plain twins:
// what stands exactly at a threshold must fall the same way everywhere.

// Mirrored by ape_cuda_ops.build.launcher.NmsArguments.
struct NmsArguments {
  const float* boxes;   // [N, 4] xyxy, group after group, of each the strongest first
  const i64* starts;    // [G + 1] first box of each group, and the end of the last
  unsigned char* keep;  // [N]
  i64 G;
  float threshold;
};

__device__ inline float box_iou(const float* a, const float* b) {
  const float width = fminf(a[2], b[2]) - fmaxf(a[0], b[0]);
  const float height = fminf(a[3], b[3]) - fmaxf(a[1], b[1]);
  const float overlap = __fmul_rn(fmaxf(width, 0.0f), fmaxf(height, 0.0f));
  const float areas = __fmul_rn(a[2] - a[0], a[3] - a[1]) + __fmul_rn(b[2] - b[0], b[3] - b[1]);
  return overlap / (areas - overlap);
}

// One block per group. 32 boxes at a time: the first warp settles them among themselves, then
// all threads strike the later boxes that a kept one of the 32 overlaps. The host knows how many
// groups there are, not their sizes, so it never waits and a CUDA graph can hold it.
extern "C" __global__ void __launch_bounds__(256) nms_grouped(const NmsArguments a) {
  __shared__ u32 kept;
  for (i64 group = blockIdx.x; group < a.G; group += gridDim.x) {
    const int N = int(a.starts[group + 1] - a.starts[group]);
    const float* boxes = a.boxes + a.starts[group] * 4;
    unsigned char* keep = a.keep + a.starts[group];
    for (int i = threadIdx.x; i < N; i += blockDim.x) keep[i] = 1;
    __syncthreads();
    for (int first = 0; first < N; first += 32) {
      const int count = N - first < 32 ? N - first : 32;
      if (threadIdx.x < 32) {
        const int lane = threadIdx.x;
        bool alive = lane < count && keep[first + lane] != 0;
        for (int i = 0; i < count; ++i) {
          const bool rules = (__ballot_sync(0xffffffffu, alive) >> i) & 1u;
          if (rules && lane > i && alive)
            alive = !(box_iou(boxes + (first + i) * 4, boxes + (first + lane) * 4) > a.threshold);
        }
        const u32 all = __ballot_sync(0xffffffffu, alive);
        if (lane < count) keep[first + lane] = alive;
        if (lane == 0) kept = all;
      }
      __syncthreads();
      for (int j = first + 32 + threadIdx.x; j < N; j += blockDim.x) {
        bool alive = keep[j] != 0;
        for (int i = 0; i < count && alive; ++i)
          if ((kept >> i) & 1u) alive = !(box_iou(boxes + (first + i) * 4, boxes + j * 4) > a.threshold);
        keep[j] = alive;
      }
      __syncthreads();
    }
  }
}

// Mirrored by ape_cuda_ops.build.launcher.MaskArguments.
struct MaskArguments {
  const void* logits;  // [N, h, w]
  u32* words;          // [N, H, words_per_line]: bit k of word j is pixel 32 j + k
  i64 N;
  int h, w, H, W, words_per_line;
  float scale_y, scale_x;  // map cells a pixel
  float threshold;
};

// Where a pixel reads an axis of the map: two neighbouring cells, the same one twice at the end.
struct Place {
  int lower, upper;
  float share;  // of the upper one
};

__device__ inline Place place_of(int pixel, float scale, int cells) {
  const float at = fmaxf(__fmul_rn(float(pixel) + 0.5f, scale) - 0.5f, 0.0f);
  const int lower = int(at) < cells - 1 ? int(at) : cells - 1;
  return {lower, lower + 1 < cells ? lower + 1 : lower, at - float(lower)};
}

__device__ inline float between(float lower, float upper, float share) {
  return __fmul_rn(1.0f - share, lower) + __fmul_rn(share, upper);
}

// Bilinear upsampling (pixel centres at 1/2, borders repeated), logit > threshold, 32 pixels to
// a word by one ballot: a lane per pixel, a warp per word.
template <class V>
__global__ void __launch_bounds__(256) mask_pack(const MaskArguments a) {
  const int lane = threadIdx.x % 32;
  const i64 total = a.N * a.H * a.words_per_line;
  const i64 warps = i64(gridDim.x) * (blockDim.x / 32);
  for (i64 word = i64(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; word < total; word += warps) {
    const int x = int(word % a.words_per_line) * 32 + lane;
    const i64 line = word / a.words_per_line;
    const int y = int(line % a.H);
    bool set = false;
    if (x < a.W) {
      const Place py = place_of(y, a.scale_y, a.h), px = place_of(x, a.scale_x, a.w);
      const V* image = static_cast<const V*>(a.logits) + line / a.H * a.h * a.w;
      const V *above = image + py.lower * a.w, *below = image + py.upper * a.w;
      const float upper = between(to_float(above[px.lower]), to_float(above[px.upper]), px.share);
      const float lower = between(to_float(below[px.lower]), to_float(below[px.upper]), px.share);
      set = between(upper, lower, py.share) > a.threshold;
    }
    const u32 bits = __ballot_sync(0xffffffffu, set);
    if (lane == 0) a.words[word] = bits;
  }
}
