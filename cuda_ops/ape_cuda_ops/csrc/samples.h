// Step 1 of msda.cpp: from references, offsets and logits to tokens and weights of all corners.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "vectors.h"

namespace {

constexpr int kMaxLevels = 8;

}  // namespace

extern "C" {

// Same fields as ape_cuda_ops.backends.cpp.Arguments; every array is contiguous.
struct Arguments {
  const void* value;                  // [B, S, H, D] float or bfloat16
  const float* reference;             // [B, Q, L, axes]; unused when axes = 0
  const float* offsets_or_locations;  // [B, Q, H, L, P, 2]: locations when axes = 0
  const float* logits_or_weights;     // [B, Q, H, L, P]: weights when axes = 0
  const float* output_grad;           // [B, Q, H, D]; backward only
  float* output;                      // [B, Q, H, D]; forward only
  float* value_grad;                  // [B, S, H, D], zeroed; backward only
  float* coordinate_grad;             // [B, Q, H, L, P, 2]: of locations when axes = 0, else pixels
  float* logit_or_weight_grad;        // [B, Q, H, L, P]
  int64_t B, S, Q;
  int32_t H, D, L, P;
  int32_t axes;                       // numbers in a reference: 2 point, 4 box; 0: no reference
  int32_t bfloat16;                   // 1 when value is bfloat16
  int32_t threads;
  int32_t heights[kMaxLevels], widths[kMaxLevels];
};

}  // extern "C"

namespace {

// What is the same for every query: the level of each sample, for the heads that are computed at
// once, padded to whole vectors.
struct Plan {
  int N, heads, count, padded;  // samples of a head; heads and samples at once; whole vectors
  std::vector<float> width, height;
  std::vector<int32_t> columns, lines, first;

  Plan(const Arguments& args, int heads_at_once)
      : N(args.L * args.P),
        heads(heads_at_once),
        count(heads * N),
        padded((count + kLanes - 1) / kLanes * kLanes),
        width(padded, 1.0f),
        height(padded, 1.0f),
        columns(padded, 1),
        lines(padded, 1),
        first(padded, 0) {
    for (int n = 0; n < count; ++n) {
      const int level = n % N / args.P;
      columns[n] = args.widths[level];
      lines[n] = args.heights[level];
      width[n] = static_cast<float>(columns[n]);
      height[n] = static_cast<float>(lines[n]);
      for (int l = 0; l < level; ++l) first[n] += args.heights[l] * args.widths[l];
    }
  }
};

// The working memory of one thread: each array has one number per sample of a query's heads.
struct Samples {
  std::vector<float> storage;
  std::vector<int32_t> tokens;
  float *base_x, *base_y, *step_x, *step_y;   // pixel = base + step * (offset or location)
  float *x, *y;                               // offset or location
  float* attention;                           // attention weight
  float* inside;                              // 0 where no corner is in the image
  float *left, *right, *top, *bottom;         // bilinear weights, zero outside the image
  float *has_left, *has_right, *has_top, *has_bottom;
  float* weight[4];                           // corners 00, 01, 10, 11 of (y, x)
  float* dot[4];
  int32_t* token[4];

  explicit Samples(const Plan& plan)
      : storage(24 * plan.padded, 0.0f), tokens(4 * (plan.padded + plan.N), 0) {
    const int padded = plan.padded;
    float* next = storage.data();
    for (float** array : {&base_x, &base_y, &step_x, &step_y, &x, &y, &attention, &inside, &left,
                          &right, &top, &bottom, &has_left, &has_right, &has_top, &has_bottom}) {
      *array = next;
      next += padded;
    }
    for (int corner = 0; corner < 4; ++corner) {
      weight[corner] = next + corner * padded;
      dot[corner] = next + (4 + corner) * padded;
      token[corner] = tokens.data() + corner * (padded + plan.N);  // + N: gather prefetches
    }
  }
};

// base and step of the samples of query `row` = b * Q + q.
void set_reference(const Arguments& args, const Plan& plan, int64_t row, Samples& s) {
  for (int level = 0, n = 0; level < args.L; ++level) {
    const float w = plan.width[n], h = plan.height[n];
    float base_x = -0.5f, base_y = -0.5f, step_x = w, step_y = h;
    if (args.axes != 0) {
      const float* box = args.reference + (row * args.L + level) * args.axes;
      base_x += box[0] * w;
      base_y += box[1] * h;
      step_x = args.axes == 2 ? 1.0f : 0.5f * box[2] * w / args.P;
      step_y = args.axes == 2 ? 1.0f : 0.5f * box[3] * h / args.P;
    }
    for (int p = 0; p < args.P; ++p, ++n) {
      s.base_x[n] = base_x;
      s.base_y[n] = base_y;
      s.step_x[n] = step_x;
      s.step_y[n] = step_y;
    }
  }
  for (float* array : {s.base_x, s.base_y, s.step_x, s.step_y})
    for (int done = plan.N; done < plan.count; done *= 2)  // the same for every head
      std::memcpy(array + done, array, sizeof(float) * std::min(done, plan.count - done));
}

inline float maximum(const float* from, int count) {
  int n = 1;
  float result = from[0];
  if (count >= kLanes) {
    Floats lanes = load<Floats>(from);
    for (n = kLanes; n + kLanes <= count; n += kLanes) {
      const Floats more = load<Floats>(from + n);
      lanes = (more > lanes) ? more : lanes;
    }
    for (int lane = 0; lane < kLanes; ++lane) result = std::max(result, lanes[lane]);
  }
  for (; n < count; ++n) result = std::max(result, from[n]);
  return result;
}

// Attention weights of the samples: as given, or the softmax of the logits of each head.
void set_attention(const Arguments& args, const Plan& plan, const float* logits_or_weights,
                   Samples& s) {
  if (args.axes == 0) {
    std::memcpy(s.attention, logits_or_weights, sizeof(float) * plan.count);
    return;
  }
  for (int first = 0; first < plan.count; first += plan.N) {
    const float largest = maximum(logits_or_weights + first, plan.N);
    for (int n = first; n < first + plan.N; ++n) s.attention[n] = logits_or_weights[n] - largest;
  }
  for (int n = 0; n < plan.padded; n += kLanes)
    store(s.attention + n, exp_negative(load<Floats>(s.attention + n)));
  for (int first = 0; first < plan.count; first += plan.N) {
    float* weights = s.attention + first;
    Floats lanes = {};
    int n = 0;
    for (; n + kLanes <= plan.N; n += kLanes) lanes += load<Floats>(weights + n);
    float total = sum(lanes);
    for (; n < plan.N; ++n) total += weights[n];
    const float scale = 1.0f / total;
    for (n = 0; n < plan.N; ++n) weights[n] *= scale;
  }
}

// Clamps far and NaN coordinates to just outside of the image: nothing is read there, and the
// number fits an integer.
inline Floats clamp_to_border(Floats pixel, Floats side) {
  pixel = (pixel > -2.0f) ? pixel : broadcast(-2.0f);
  return (pixel < side + 1.0f) ? pixel : side + 1.0f;
}

// The two pixels that linear interpolation reads along one axis: clamped indices, weights (0
// outside of the image), and 1 or 0 for "is in the image".
struct LinearTaps {
  Ints low, high;
  Floats low_weight, high_weight, has_low, has_high;
};

inline LinearTaps linear_taps(Floats pixel, Floats side, Ints count) {
  pixel = clamp_to_border(pixel, side);
  Ints floor = __builtin_convertvector(pixel, Ints);
  Floats whole = __builtin_convertvector(floor, Floats);
  const Ints above = whole > pixel;  // -1 where truncation rounded up, for negative pixels
  floor += above;
  whole += __builtin_convertvector(above, Floats);
  const Floats fraction = pixel - whole;
  const Ints next = floor + 1;
  const Floats one = broadcast(1.0f), zero = {};
  LinearTaps taps;
  taps.has_low = ((floor >= 0) & (floor < count)) ? one : zero;
  taps.has_high = ((next >= 0) & (next < count)) ? one : zero;
  taps.low_weight = taps.has_low * (1.0f - fraction);
  taps.high_weight = taps.has_high * fraction;
  const Ints last = count - 1;
  taps.low = (floor < 0) ? Ints{} : ((floor > last) ? last : floor);
  taps.high = (next < 0) ? Ints{} : ((next > last) ? last : next);
  return taps;
}

// Corner tokens and corner weights of the samples, and what only the gradients need.
template <bool kForGradients>
void set_corners(const Plan& plan, const float* offsets_or_locations, Samples& s) {
  for (int n = 0; n < plan.count; ++n) {
    s.x[n] = offsets_or_locations[2 * n];
    s.y[n] = offsets_or_locations[2 * n + 1];
  }
  for (int n = 0; n < plan.padded; n += kLanes) {
    const Ints columns = load<Ints>(plan.columns.data() + n);
    const Floats px =
        load<Floats>(s.base_x + n) + load<Floats>(s.step_x + n) * load<Floats>(s.x + n);
    const Floats py =
        load<Floats>(s.base_y + n) + load<Floats>(s.step_y + n) * load<Floats>(s.y + n);
    const LinearTaps h = linear_taps(px, load<Floats>(plan.width.data() + n), columns);
    const LinearTaps v = linear_taps(py, load<Floats>(plan.height.data() + n),
                                     load<Ints>(plan.lines.data() + n));
    const Ints first = load<Ints>(plan.first.data() + n);
    const Ints upper = first + v.low * columns, lower = first + v.high * columns;
    store(s.token[0] + n, upper + h.low);
    store(s.token[1] + n, upper + h.high);
    store(s.token[2] + n, lower + h.low);
    store(s.token[3] + n, lower + h.high);
    const Floats a = load<Floats>(s.attention + n);
    const Floats above = a * v.low_weight, below = a * v.high_weight;
    store(s.weight[0] + n, above * h.low_weight);
    store(s.weight[1] + n, above * h.high_weight);
    store(s.weight[2] + n, below * h.low_weight);
    store(s.weight[3] + n, below * h.high_weight);
    store(s.inside + n, (h.has_low + h.has_high) * (v.has_low + v.has_high));
    if constexpr (kForGradients) {
      store(s.left + n, h.low_weight);
      store(s.right + n, h.high_weight);
      store(s.top + n, v.low_weight);
      store(s.bottom + n, v.high_weight);
      store(s.has_left + n, h.has_low);
      store(s.has_right + n, h.has_high);
      store(s.has_top + n, v.has_low);
      store(s.has_bottom + n, v.has_high);
    }
  }
}

}  // namespace
