// After the network: non-maximum suppression in groups of any size, and masks to bits.

// Mirrored by ape_cuda_ops.launch.NmsArguments.
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
  const float overlap = fmaxf(width, 0.0f) * fmaxf(height, 0.0f);
  const float areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]);
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

// Mirrored by ape_cuda_ops.launch.MaskArguments.
struct MaskArguments {
  const void* logits;  // [N, h, w]
  u32* words;          // [N, H, words_per_line]: bit k of word j is pixel 32 j + k
  i64 N;
  int h, w, H, W, words_per_line;
  float scale_y, scale_x;  // h / H, w / W
  float threshold;
};

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
      const float sy = fmaxf((float(y) + 0.5f) * a.scale_y - 0.5f, 0.0f);
      const float sx = fmaxf((float(x) + 0.5f) * a.scale_x - 0.5f, 0.0f);
      const int y0 = int(sy) < a.h - 1 ? int(sy) : a.h - 1, x0 = int(sx) < a.w - 1 ? int(sx) : a.w - 1;
      const int y1 = y0 + 1 < a.h ? y0 + 1 : y0, x1 = x0 + 1 < a.w ? x0 + 1 : x0;
      const float fy = sy - float(y0), fx = sx - float(x0);
      const V* image = static_cast<const V*>(a.logits) + line / a.H * a.h * a.w;
      const float upper = (1.0f - fx) * to_float(image[y0 * a.w + x0]) + fx * to_float(image[y0 * a.w + x1]);
      const float lower = (1.0f - fx) * to_float(image[y1 * a.w + x0]) + fx * to_float(image[y1 * a.w + x1]);
      set = (1.0f - fy) * upper + fy * lower > a.threshold;
    }
    const u32 bits = __ballot_sync(0xffffffffu, set);
    if (lane == 0) a.words[word] = bits;
  }
}
