// What is sampled: from references, offsets and logits to the tokens and weights of all corners.

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

// Mirrored by ape_cuda_ops.backends.cpp.Task; every pointer is to a contiguous array.
struct Task {
  const void* value;        // [B, S, H, D] float or bfloat16
  const float* reference;   // [B, Q, L, axes]; unused when axes = 0
  const float* positions;   // [B, Q, H, L, P, 2]: locations when axes = 0, else offsets
  const float* mixing;      // [B, Q, H, L, P]: weights when axes = 0, else logits
  const float* output_grad; // [B, Q, H, D]; backward only
  float* output;            // [B, Q, H, D]; forward only
  float* value_grad;        // [B, S, H, D], zeroed; backward only
  float* position_grad;     // [B, Q, H, L, P, 2]: of locations when axes = 0, else of pixels
  float* mixing_grad;       // [B, Q, H, L, P]
  int64_t B, S, Q;
  int32_t H, D, L, P;
  int32_t axes;             // 0: locations and weights are given; 2: points; 4: boxes
  int32_t bfloat16;         // 1 when value is bfloat16
  int32_t threads;
  int32_t heights[kMaxLevels], widths[kMaxLevels];
};

}  // extern "C"

namespace {

// What is the same for every query: levels spread over the samples of the heads that are worked on
// at once, padded to whole vectors.
struct Plan {
  int N, heads, count, padded;  // samples of a head, heads at once, samples at once
  std::vector<float> width, height;
  std::vector<int32_t> columns, lines, first;

  Plan(const Task& task, int heads_at_once)
      : N(task.L * task.P),
        heads(heads_at_once),
        count(heads * N),
        padded((count + kLanes - 1) / kLanes * kLanes),
        width(padded, 1.0f),
        height(padded, 1.0f),
        columns(padded, 1),
        lines(padded, 1),
        first(padded, 0) {
    for (int n = 0; n < count; ++n) {
      const int level = n % N / task.P;
      columns[n] = task.widths[level];
      lines[n] = task.heights[level];
      width[n] = static_cast<float>(columns[n]);
      height[n] = static_cast<float>(lines[n]);
      for (int l = 0; l < level; ++l) first[n] += task.heights[l] * task.widths[l];
    }
  }
};

// One thread's working memory: all arrays hold one entry per sample of some heads of a query.
struct Samples {
  std::vector<float> storage;
  std::vector<int32_t> tokens;
  float *base_x, *base_y, *step_x, *step_y;   // pixel = base + step * position
  float *x, *y, *attention;
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
      token[corner] = tokens.data() + corner * (padded + plan.N);  // one head more: see gather
    }
  }
};

// pixel = base + step * position for the samples of query (b, q).
void set_reference(const Task& task, const Plan& plan, int64_t row, Samples& s) {
  for (int level = 0, n = 0; level < task.L; ++level) {
    const float w = plan.width[n], h = plan.height[n];
    float base_x = -0.5f, base_y = -0.5f, step_x = w, step_y = h;
    if (task.axes != 0) {
      const float* box = task.reference + (row * task.L + level) * task.axes;
      base_x += box[0] * w;
      base_y += box[1] * h;
      step_x = task.axes == 2 ? 1.0f : 0.5f * box[2] * w / task.P;
      step_y = task.axes == 2 ? 1.0f : 0.5f * box[3] * h / task.P;
    }
    for (int p = 0; p < task.P; ++p, ++n) {
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

inline float largest(const float* from, int count) {
  int n = kLanes;
  float most = from[0];
  if (count >= kLanes) {
    Floats lanes = load<Floats>(from);
    for (; n + kLanes <= count; n += kLanes) {
      const Floats more = load<Floats>(from + n);
      lanes = (more > lanes) ? more : lanes;
    }
    for (int lane = 0; lane < kLanes; ++lane) most = std::max(most, lanes[lane]);
  } else {
    n = 1;
  }
  for (; n < count; ++n) most = std::max(most, from[n]);
  return most;
}

// The attention weights of the samples: given, or every head's softmax of its logits.
void set_attention(const Task& task, const Plan& plan, const float* mixing, Samples& s) {
  if (task.axes == 0) {
    std::memcpy(s.attention, mixing, sizeof(float) * plan.count);
    return;
  }
  for (int first = 0; first < plan.count; first += plan.N) {
    const float most = largest(mixing + first, plan.N);
    for (int n = first; n < first + plan.N; ++n) s.attention[n] = mixing[n] - most;
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

// Clamp far and undefined (NaN) coordinates to where nothing is read and integers are safe.
inline Floats near(Floats pixel, Floats side) {
  pixel = (pixel > -2.0f) ? pixel : all(-2.0f);
  return (pixel < side + 1.0f) ? pixel : side + 1.0f;
}

struct Axis {
  Ints low, high;                         // clamped indices of the two neighbours
  Floats low_weight, high_weight, has_low, has_high;
};

inline Axis split(Floats pixel, Floats side, Ints count) {
  pixel = near(pixel, side);
  Ints floor = __builtin_convertvector(pixel, Ints);
  Floats whole = __builtin_convertvector(floor, Floats);
  const Ints above = whole > pixel;       // -1 where truncation went up
  floor += above;
  whole += __builtin_convertvector(above, Floats);
  const Floats part = pixel - whole;
  const Ints next = floor + 1;
  const Floats one = all(1.0f), zero = {};
  Axis axis;
  axis.has_low = ((floor >= 0) & (floor < count)) ? one : zero;
  axis.has_high = ((next >= 0) & (next < count)) ? one : zero;
  axis.low_weight = axis.has_low * (1.0f - part);
  axis.high_weight = axis.has_high * part;
  const Ints last = count - 1;
  axis.low = (floor < 0) ? Ints{} : ((floor > last) ? last : floor);
  axis.high = (next < 0) ? Ints{} : ((next > last) ? last : next);
  return axis;
}

// Pixels, corner tokens and corner weights of the samples; what only gradients need, if wanted.
template <bool kForGradients>
void set_corners(const Plan& plan, const float* positions, Samples& s) {
  for (int n = 0; n < plan.count; ++n) {
    s.x[n] = positions[2 * n];
    s.y[n] = positions[2 * n + 1];
  }
  for (int n = 0; n < plan.padded; n += kLanes) {
    const Ints columns = load<Ints>(plan.columns.data() + n);
    const Floats px = load<Floats>(s.base_x + n) + load<Floats>(s.step_x + n) * load<Floats>(s.x + n);
    const Floats py = load<Floats>(s.base_y + n) + load<Floats>(s.step_y + n) * load<Floats>(s.y + n);
    const Axis h = split(px, load<Floats>(plan.width.data() + n), columns);
    const Axis v = split(py, load<Floats>(plan.height.data() + n),
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
