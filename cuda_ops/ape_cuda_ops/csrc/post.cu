// After the network: non-maximum suppression in groups of any size, and mask logits to bits.
//
// __fmul_rn rounds each product by itself and is never fused with a sum, as in the reference
// implementations: an IoU or a logit exactly at its threshold gives the same result everywhere.

// Same fields as ape_cuda_ops.backends.cuda.NmsArguments.
struct NmsArguments {
  const float* boxes;   // [N, 4] xyxy, group after group, in each by falling score
  const i64* starts;    // [G + 1] first box of each group, and the end of the last group
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

// One block per group. 32 boxes at a time: the first warp decides which of them stay (lane i holds
// box i; each kept box in turn suppresses later ones), then all threads suppress the later boxes
// of the group that overlap a kept one of the 32. The host knows the number of groups but not
// their sizes, so it never has to wait, and a CUDA graph can contain the launch.
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
          const bool keeps_i = (__ballot_sync(0xffffffffu, alive) >> i) & 1u;
          if (keeps_i && lane > i && alive)
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
          if ((kept >> i) & 1u)
            alive = !(box_iou(boxes + (first + i) * 4, boxes + j * 4) > a.threshold);
        keep[j] = alive;
      }
      __syncthreads();
    }
  }
}

// Same fields as ape_cuda_ops.backends.cuda.MaskArguments.
struct MaskArguments {
  const void* logits;  // [N, h, w]
  u32* words;          // [N, H, words_per_line]: bit k of word j is pixel 32 j + k
  i64 N;
  int h, w, H, W, words_per_line;
  float scale_y, scale_x;  // map cells per mask pixel
  float threshold;
};

// The two map cells that a mask pixel reads along one axis; both the last one at the border.
struct LinearTaps {
  int low, high;
  float high_weight;
};

__device__ inline LinearTaps linear_taps(int pixel, float scale, int cells) {
  const float at = fmaxf(__fmul_rn(float(pixel) + 0.5f, scale) - 0.5f, 0.0f);
  const int low = int(at) < cells - 1 ? int(at) : cells - 1;
  return {low, low + 1 < cells ? low + 1 : low, at - float(low)};
}

__device__ inline float lerp(float low, float high, float high_weight) {
  return __fmul_rn(1.0f - high_weight, low) + __fmul_rn(high_weight, high);
}

// Bilinear upsampling (pixel centres at 1/2, border repeated), then logit > threshold. A lane
// computes one pixel and a warp 32 in a row; one ballot makes them the bits of a word.
template <class V>
__global__ void __launch_bounds__(256) mask_pack(const MaskArguments a) {
  const int lane = threadIdx.x % 32;
  const i64 total = a.N * a.H * a.words_per_line;
  const i64 warps = i64(gridDim.x) * (blockDim.x / 32);
  for (i64 word = i64(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; word < total;
       word += warps) {
    const int x = int(word % a.words_per_line) * 32 + lane;
    const i64 line = word / a.words_per_line;  // mask * H + y
    const int y = int(line % a.H);
    bool set = false;
    if (x < a.W) {
      const LinearTaps rows = linear_taps(y, a.scale_y, a.h), cols = linear_taps(x, a.scale_x, a.w);
      const V* map = static_cast<const V*>(a.logits) + line / a.H * a.h * a.w;
      const V *above = map + rows.low * a.w, *below = map + rows.high * a.w;
      const float weight = cols.high_weight;
      const float upper = lerp(to_float(above[cols.low]), to_float(above[cols.high]), weight);
      const float lower = lerp(to_float(below[cols.low]), to_float(below[cols.high]), weight);
      set = lerp(upper, lower, rows.high_weight) > a.threshold;
    }
    const u32 bits = __ballot_sync(0xffffffffu, set);
    if (lane == 0) a.words[word] = bits;
  }
}
