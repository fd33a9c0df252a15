// Multi-scale deformable attention on a CPU: forward and backward, plain C ABI.
//
// One (query, head) reads N = L * P samples, each the sum of four value rows of D numbers:
//
//     samples:  x[N], y[N]  --->  token[4][N], weight[4][N]     (8 samples at a time)
//     gather:   for n, corner:  sum[0..D) += weight[corner][n] * value[token[corner][n]][0..D)
//
// The first step is arithmetic on short arrays, so it is written on vectors of eight; the
// second streams whole rows, so a row's D numbers stay in registers (D = 8, 16, 32 or 64).
// Forward splits the queries over threads, an encoder's by tiles of pixels; backward splits
// (image, head) pairs, which write to different columns of the value's gradient: no atomics,
// and the same result every time.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int kLanes = 8;
constexpr int kMaxLevels = 8;
constexpr int kTile = 8;
constexpr int kQueriesPerTask = kTile * kTile;
// Below this many sampled numbers a second thread costs more than it saves.
constexpr int64_t kParallelWork = 1 << 17;

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));

template <class Vector, class Scalar>
inline Vector load(const Scalar* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof(vector));
  return vector;
}

template <class Vector, class Scalar>
inline void store(Scalar* to, const Vector& vector) {
  std::memcpy(to, &vector, sizeof(vector));
}

inline Floats all(float number) { return Floats{} + number; }
inline Ints all(int32_t number) { return Ints{} + number; }

// bfloat16 is the upper half of a float32.
struct Bfloat16 {
  uint16_t bits;
};

inline float number(float value) { return value; }
inline float number(Bfloat16 value) {
  const uint32_t word = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &word, sizeof(result));
  return result;
}

inline Floats eight(const float* from) { return load<Floats>(from); }
inline Floats eight(const Bfloat16* from) {
  const Words words = __builtin_convertvector(load<Halves>(from), Words) << 16;
  return load<Floats>(&words);
}

inline float sum(const Floats& v) {
  return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7]));
}

}  // namespace

extern "C" {

// Mirrored by ape_cuda_ops.cpp.Task; every pointer is to a contiguous array.
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

// exp(x) for x <= 0, relative error 2e-7: 2^n * e^r with |r| <= ln(2) / 2 (Cephes' expf).
// A NaN stays one. No library call, so that eight go at once under any compiler.
inline Floats exp_negative(Floats x) {
  x = (x < -87.0f) ? all(-87.0f) : x;
  const Floats magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Floats shifted = x * 1.44269504088896341f + magic;
  const Floats n = shifted - magic;
  const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const Words exponent = (load<Words>(&shifted) - load<Words>(&magic) + 127u) << 23;
  return p * load<Floats>(&exponent);
}

// What is the same for every query: levels spread over the N samples, padded to whole vectors.
struct Plan {
  int N, padded;
  std::vector<float> width, height;
  std::vector<int32_t> columns, lines, first;

  explicit Plan(const Task& task)
      : N(task.L * task.P),
        padded((N + kLanes - 1) / kLanes * kLanes),
        width(padded, 1.0f),
        height(padded, 1.0f),
        columns(padded, 1),
        lines(padded, 1),
        first(padded, 0) {
    int32_t start = 0;
    for (int l = 0; l < task.L; ++l) {
      for (int p = 0; p < task.P; ++p) {
        const int n = l * task.P + p;
        columns[n] = task.widths[l];
        lines[n] = task.heights[l];
        width[n] = static_cast<float>(columns[n]);
        height[n] = static_cast<float>(lines[n]);
        first[n] = start;
      }
      start += task.heights[l] * task.widths[l];
    }
  }
};

// One thread's working memory: all arrays hold one entry per sample of one (query, head).
struct Samples {
  std::vector<float> storage;
  std::vector<int32_t> tokens;
  float *base_x, *base_y, *step_x, *step_y;   // pixel = base + step * position
  float *x, *y, *attention;
  float *left, *right, *top, *bottom;         // bilinear weights, zero outside the image
  float *has_left, *has_right, *has_top, *has_bottom;
  float* weight[4];                           // corners 00, 01, 10, 11 of (y, x)
  float* dot[4];
  int32_t* token[4];

  explicit Samples(int padded) : storage(23 * padded, 0.0f), tokens(4 * padded, 0) {
    float* next = storage.data();
    for (float** array : {&base_x, &base_y, &step_x, &step_y, &x, &y, &attention, &left, &right,
                          &top, &bottom, &has_left, &has_right, &has_top, &has_bottom}) {
      *array = next;
      next += padded;
    }
    for (int corner = 0; corner < 4; ++corner) {
      weight[corner] = next + corner * padded;
      dot[corner] = next + (4 + corner) * padded;
      token[corner] = tokens.data() + corner * padded;
    }
  }
};

// pixel = base + step * position for the N samples of query (b, q).
void set_reference(const Task& task, const Plan& plan, int64_t row, Samples& s) {
  for (int n = 0; n < plan.N; ++n) {
    const float w = plan.width[n], h = plan.height[n];
    if (task.axes == 0) {
      s.base_x[n] = s.base_y[n] = -0.5f;
      s.step_x[n] = w;
      s.step_y[n] = h;
      continue;
    }
    const float* box = task.reference + (row * task.L + n / task.P) * task.axes;
    s.base_x[n] = box[0] * w - 0.5f;
    s.base_y[n] = box[1] * h - 0.5f;
    s.step_x[n] = task.axes == 2 ? 1.0f : 0.5f * box[2] * w / task.P;
    s.step_y[n] = task.axes == 2 ? 1.0f : 0.5f * box[3] * h / task.P;
  }
}

// The attention weights of one (query, head): given, or the softmax of the logits.
void set_attention(const Task& task, const Plan& plan, const float* mixing, Samples& s) {
  std::memcpy(s.attention, mixing, sizeof(float) * plan.N);
  if (task.axes == 0) return;
  float largest = mixing[0];
  for (int n = 1; n < plan.N; ++n) largest = std::max(largest, mixing[n]);
  Floats total = {};
  for (int n = plan.N; n < plan.padded; ++n) s.attention[n] = -INFINITY;
  for (int n = 0; n < plan.padded; n += kLanes) {
    Floats e = exp_negative(load<Floats>(s.attention + n) - largest);
    store(s.attention + n, e);
    total += e;
  }
  float padding = 0.0f;  // what exp(-87) of the padded lanes added
  for (int n = plan.N; n < plan.padded; ++n) padding += s.attention[n];
  const float scale = 1.0f / (sum(total) - padding);
  for (int n = 0; n < plan.padded; n += kLanes)
    store(s.attention + n, load<Floats>(s.attention + n) * scale);
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

// Pixels, corner tokens and corner weights of the N samples of one (query, head).
void set_corners(const Plan& plan, const float* positions, Samples& s) {
  for (int n = 0; n < plan.N; ++n) {
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
    store(s.weight[0] + n, a * v.low_weight * h.low_weight);
    store(s.weight[1] + n, a * v.low_weight * h.high_weight);
    store(s.weight[2] + n, a * v.high_weight * h.low_weight);
    store(s.weight[3] + n, a * v.high_weight * h.high_weight);
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

inline bool misses(const Samples& s, int n) {
  return (s.has_left[n] + s.has_right[n]) * (s.has_top[n] + s.has_bottom[n]) == 0.0f;
}

// sum[0..D) of all samples; value points at (b, token 0, h, 0), rows are `stride` apart.
// D = 0: any count, not known to the compiler.
template <int D, class Number>
void gather(const Samples& s, int N, const Number* value, int64_t stride, int any, float* out) {
  constexpr int kVectors = std::max(D / kLanes, 1);
  Floats total[kVectors] = {};
  if (D == 0) std::fill(out, out + any, 0.0f);
  for (int n = 0; n < N; ++n) {
    if (misses(s, n)) continue;
    for (int corner = 0; corner < 4; ++corner) {
      const Number* row = value + s.token[corner][n] * stride;
      const float weight = s.weight[corner][n];
      if constexpr (D == 0) {
        for (int d = 0; d < any; ++d) out[d] += weight * number(row[d]);
      } else {
        for (int v = 0; v < kVectors; ++v) total[v] += weight * eight(row + v * kLanes);
      }
    }
  }
  if constexpr (D != 0)
    for (int v = 0; v < kVectors; ++v) store(out + v * kLanes, total[v]);
}

// dot[corner] = <grad, value row>; value_grad row += weight * grad.
template <int D, class Number>
void scatter(Samples& s, int N, const Number* value, float* value_grad, int64_t stride, int any,
             const float* grad) {
  constexpr int kVectors = std::max(D / kLanes, 1);
  Floats g[kVectors] = {};
  if constexpr (D != 0)
    for (int v = 0; v < kVectors; ++v) g[v] = load<Floats>(grad + v * kLanes);
  for (int n = 0; n < N; ++n) {
    const bool nothing = misses(s, n);
    for (int corner = 0; corner < 4; ++corner) {
      s.dot[corner][n] = 0.0f;
      if (nothing) continue;
      const int64_t at = s.token[corner][n] * stride;
      const float weight = s.weight[corner][n];
      float dot = 0.0f;
      if constexpr (D == 0) {
        for (int d = 0; d < any; ++d) {
          dot += grad[d] * number(value[at + d]);
          value_grad[at + d] += weight * grad[d];
        }
      } else {
        Floats product = {};
        for (int v = 0; v < kVectors; ++v) {
          product += g[v] * eight(value + at + v * kLanes);
          float* target = value_grad + at + v * kLanes;
          store(target, load<Floats>(target) + weight * g[v]);
        }
        dot = sum(product);
      }
      s.dot[corner][n] = dot;
    }
  }
}

// Gradients of positions and mixing from the four dot products of every sample.
void finish_backward(const Task& task, const Plan& plan, Samples& s, float* position_grad,
                     float* mixing_grad) {
  float mean = 0.0f;
  for (int n = 0; n < plan.N; ++n) {
    const float upper = s.left[n] * s.dot[0][n] + s.right[n] * s.dot[1][n];
    const float lower = s.left[n] * s.dot[2][n] + s.right[n] * s.dot[3][n];
    const float west = s.top[n] * s.dot[0][n] + s.bottom[n] * s.dot[2][n];
    const float east = s.top[n] * s.dot[1][n] + s.bottom[n] * s.dot[3][n];
    const float by_x = s.has_right[n] * east - s.has_left[n] * west;
    const float by_y = s.has_bottom[n] * lower - s.has_top[n] * upper;
    const bool given = task.axes == 0;
    position_grad[2 * n] = s.attention[n] * by_x * (given ? plan.width[n] : 1.0f);
    position_grad[2 * n + 1] = s.attention[n] * by_y * (given ? plan.height[n] : 1.0f);
    mixing_grad[n] = s.top[n] * upper + s.bottom[n] * lower;
    mean += s.attention[n] * mixing_grad[n];
  }
  if (task.axes == 0) return;
  for (int n = 0; n < plan.N; ++n) mixing_grad[n] = s.attention[n] * (mixing_grad[n] - mean);
}

// The order in which to visit an image's queries; empty: as they come. Those of an encoder are
// the pixels: a tile of neighbours reads values that its first queries brought into the cache.
std::vector<int32_t> visiting_order(const Task& task) {
  std::vector<int32_t> order;
  if (task.Q != task.S) return order;
  order.reserve(task.Q);
  int32_t first = 0;
  for (int l = 0; l < task.L; ++l) {
    const int32_t height = task.heights[l], width = task.widths[l];
    for (int32_t top = 0; top < height; top += kTile)
      for (int32_t left = 0; left < width; left += kTile)
        for (int32_t y = top; y < std::min(height, top + kTile); ++y)
          for (int32_t x = left; x < std::min(width, left + kTile); ++x)
            order.push_back(first + y * width + x);
    first += height * width;
  }
  return order;
}

template <int D, class Number>
void forward(const Task& task) {
  const Plan plan(task);
  const std::vector<int32_t> order = visiting_order(task);
  const int64_t rows = task.B * task.Q, stride = int64_t(task.H) * task.D;
  const int64_t tasks = (rows + kQueriesPerTask - 1) / kQueriesPerTask;
  const bool many = rows * stride * plan.N > kParallelWork;
#pragma omp parallel num_threads(task.threads) if (many)
  {
    Samples s(plan.padded);
#pragma omp for schedule(dynamic)
    for (int64_t part = 0; part < tasks; ++part) {
      const int64_t end = std::min(rows, (part + 1) * kQueriesPerTask);
      for (int64_t i = part * kQueriesPerTask; i < end; ++i) {
        const int64_t b = i / task.Q, row = order.empty() ? i : b * task.Q + order[i - b * task.Q];
        set_reference(task, plan, row, s);
        const Number* image = static_cast<const Number*>(task.value) + b * task.S * stride;
        for (int h = 0; h < task.H; ++h) {
          const int64_t at = row * task.H + h;
          set_attention(task, plan, task.mixing + at * plan.N, s);
          set_corners(plan, task.positions + at * plan.N * 2, s);
          gather<D>(s, plan.N, image + h * task.D, stride, task.D, task.output + at * task.D);
        }
      }
    }
  }
}

template <int D, class Number>
void backward(const Task& task) {
  const Plan plan(task);
  const int64_t pairs = task.B * task.H, stride = int64_t(task.H) * task.D;
  const bool many = task.B * task.Q * stride * plan.N > kParallelWork;
#pragma omp parallel num_threads(task.threads) if (many)
  {
    Samples s(plan.padded);
#pragma omp for schedule(dynamic)
    for (int64_t pair = 0; pair < pairs; ++pair) {
      const int64_t b = pair / task.H, h = pair % task.H;
      const int64_t corner = b * task.S * stride + h * task.D;
      const Number* value = static_cast<const Number*>(task.value) + corner;
      for (int64_t row = b * task.Q; row < (b + 1) * task.Q; ++row) {
        const int64_t at = row * task.H + h;
        set_reference(task, plan, row, s);
        set_attention(task, plan, task.mixing + at * plan.N, s);
        set_corners(plan, task.positions + at * plan.N * 2, s);
        scatter<D>(s, plan.N, value, task.value_grad + corner, stride, task.D,
                   task.output_grad + at * task.D);
        finish_backward(task, plan, s, task.position_grad + at * plan.N * 2,
                        task.mixing_grad + at * plan.N);
      }
    }
  }
}

template <class Number>
void run(const Task& task, bool is_forward) {
  switch (task.D) {
    case 8: return is_forward ? forward<8, Number>(task) : backward<8, Number>(task);
    case 16: return is_forward ? forward<16, Number>(task) : backward<16, Number>(task);
    case 32: return is_forward ? forward<32, Number>(task) : backward<32, Number>(task);
    case 64: return is_forward ? forward<64, Number>(task) : backward<64, Number>(task);
    default: return is_forward ? forward<0, Number>(task) : backward<0, Number>(task);
  }
}

}  // namespace

extern "C" void msda_forward(const Task* task) {
  task->bfloat16 ? run<Bfloat16>(*task, true) : run<float>(*task, true);
}

extern "C" void msda_backward(const Task* task) {
  task->bfloat16 ? run<Bfloat16>(*task, false) : run<float>(*task, false);
}
