// Multi-scale deformable attention on a CPU: forward and backward, plain C ABI.
//
// One (query, head) reads N = L * P samples, each the sum of four value rows of D numbers:
//
//     samples:  x[N], y[N]  --->  token[4][N], weight[4][N]     (a vector of samples at a time)
//     gather:   for n, corner:  sum[0..D) += weight[corner][n] * value[token[corner][n]][0..D)
//
// The first step is arithmetic on short arrays, so it is done for all heads of a query at once;
// the second streams whole rows, so a row's D numbers stay in registers (D = 8, 16, 32 or 64).
// Forward splits the queries over threads, tile by tile of the image; backward splits
// (image, head) pairs, which write to different columns of the value's gradient: no atomics,
// and the same result every time.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "samples.h"
#include "vectors.h"

namespace {

constexpr int kTile = 8;
constexpr int kQueriesPerTask = kTile * kTile;
// Below this many sampled numbers a second thread costs more than it saves.
constexpr int64_t kParallelWork = 1 << 17;

template <class Number>
inline void fetch(const Number* row, int count) {
  constexpr int kLine = 64 / sizeof(Number);
  for (int i = 0; i < count; i += kLine) __builtin_prefetch(row + i);
}

// sum[0..D) of the N samples from `first` on; value points at (b, token 0, h, 0), rows are
// `stride` apart. Corners have sums of their own, so that one does not wait for the other; what
// the next head reads is fetched meanwhile.
template <int D, class Number>
void gather(const Samples& s, int first, int N, const Number* value, int64_t stride, float* out) {
  constexpr int kWide = std::min(D, kLanes), kVectors = D / kWide, kSums = kVectors > 2 ? 2 : 4;
  typename Vector<kWide>::Floats sums[kSums][kVectors] = {};
  for (int n = first; n < first + N; ++n) {
    if (s.inside[n] == 0.0f) continue;
    for (int corner = 0; corner < 4; ++corner) {
      const Number* row = value + s.token[corner][n] * stride;
      const float weight = s.weight[corner][n];
      fetch(value + D + s.token[corner][n + N] * stride, D);
      for (int v = 0; v < kVectors; ++v)
        sums[corner % kSums][v] += weight * floats<kWide>(row + v * kWide);
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    for (int i = 1; i < kSums; ++i) sums[0][v] += sums[i][v];
    store(out + v * kWide, sums[0][v]);
  }
}

// The same for any D, which the compiler does not know.
template <class Number>
void gather_any(const Samples& s, int first, int N, const Number* value, int64_t stride, int D,
                float* out) {
  std::fill(out, out + D, 0.0f);
  for (int n = first; n < first + N; ++n) {
    if (s.inside[n] == 0.0f) continue;
    for (int corner = 0; corner < 4; ++corner) {
      const Number* row = value + s.token[corner][n] * stride;
      for (int d = 0; d < D; ++d) out[d] += s.weight[corner][n] * number(row[d]);
    }
  }
}

// dot[corner] = <grad, value row>; value_grad row += weight * grad. D = 0: any count.
template <int D, class Number>
void scatter(Samples& s, int N, const Number* value, float* value_grad, int64_t stride, int any,
             const float* grad) {
  for (int n = 0; n < N; ++n) {
    for (int corner = 0; corner < 4; ++corner) {
      s.dot[corner][n] = 0.0f;
      if (s.inside[n] == 0.0f) continue;
      const int64_t at = s.token[corner][n] * stride;
      const float weight = s.weight[corner][n];
      if constexpr (D == 0) {
        for (int d = 0; d < any; ++d) {
          s.dot[corner][n] += grad[d] * number(value[at + d]);
          value_grad[at + d] += weight * grad[d];
        }
      } else {
        constexpr int kWide = std::min(D, kLanes);
        typename Vector<kWide>::Floats product = {};
        for (int v = 0; v < D; v += kWide) {
          const auto g = floats<kWide>(grad + v);
          product += g * floats<kWide>(value + at + v);
          float* target = value_grad + at + v;
          store(target, floats<kWide>(target) + weight * g);
        }
        s.dot[corner][n] = sum(product);
      }
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

// The tile of the finest level that a query looks round: given by its reference, or by its first
// sample where locations are given. Undefined and far places go to the nearest tile.
int tile_of(const Task& task, int64_t row) {
  const float* place = task.axes == 0 ? task.positions + row * task.H * task.L * task.P * 2
                                      : task.reference + row * task.L * task.axes;
  const int across = (task.widths[0] + kTile - 1) / kTile, down = (task.heights[0] + kTile - 1) / kTile;
  const auto cell = [](float share, int cells) {
    const float at = share * cells;
    return at > 0.0f ? static_cast<int>(std::min(at, cells - 1.0f)) : 0;
  };
  return cell(place[1], down) * across + cell(place[0], across);
}

// The order in which to visit all queries: tile by tile, image by image. Neighbours read values
// that the first of them brought into the cache.
std::vector<int64_t> visiting_order(const Task& task) {
  const int tiles = ((task.widths[0] + kTile - 1) / kTile) * ((task.heights[0] + kTile - 1) / kTile);
  std::vector<int64_t> order(task.B * task.Q), start(tiles + 1);
  std::vector<int> tile(task.Q);
  for (int64_t first = 0; first < task.B * task.Q; first += task.Q) {
    std::fill(start.begin(), start.end(), 0);
    for (int64_t q = 0; q < task.Q; ++q) ++start[(tile[q] = tile_of(task, first + q)) + 1];
    for (int t = 0; t < tiles; ++t) start[t + 1] += start[t];
    for (int64_t q = 0; q < task.Q; ++q) order[first + start[tile[q]]++] = first + q;
  }
  return order;
}

template <int D, class Number>
void forward(const Task& task) {
  const Plan plan(task, task.H);
  const std::vector<int64_t> order = visiting_order(task);
  const int64_t rows = task.B * task.Q, stride = int64_t(task.H) * task.D;
  const int64_t tasks = (rows + kQueriesPerTask - 1) / kQueriesPerTask;
  const bool many = rows * stride * plan.N > kParallelWork;
#pragma omp parallel num_threads(task.threads) if (many)
  {
    Samples s(plan);
#pragma omp for schedule(dynamic)
    for (int64_t part = 0; part < tasks; ++part) {
      const int64_t end = std::min(rows, (part + 1) * kQueriesPerTask);
      for (int64_t i = part * kQueriesPerTask; i < end; ++i) {
        const int64_t row = order[i], b = row / task.Q;
        set_reference(task, plan, row, s);
        const Number* image = static_cast<const Number*>(task.value) + b * task.S * stride;
        set_attention(task, plan, task.mixing + row * plan.count, s);
        set_corners<false>(plan, task.positions + row * plan.count * 2, s);
        for (int h = 0; h < task.H; ++h) {
          const Number* head = image + h * task.D;
          float* out = task.output + row * stride + h * task.D;
          if constexpr (D == 0)
            gather_any(s, h * plan.N, plan.N, head, stride, task.D, out);
          else
            gather<D>(s, h * plan.N, plan.N, head, stride, out);
        }
      }
    }
  }
}

template <int D, class Number>
void backward(const Task& task) {
  const Plan plan(task, 1);
  const int64_t pairs = task.B * task.H, stride = int64_t(task.H) * task.D;
  const bool many = task.B * task.Q * stride * plan.N > kParallelWork;
#pragma omp parallel num_threads(task.threads) if (many)
  {
    Samples s(plan);
#pragma omp for schedule(dynamic)
    for (int64_t pair = 0; pair < pairs; ++pair) {
      const int64_t b = pair / task.H, h = pair % task.H;
      const int64_t corner = b * task.S * stride + h * task.D;
      const Number* value = static_cast<const Number*>(task.value) + corner;
      for (int64_t row = b * task.Q; row < (b + 1) * task.Q; ++row) {
        const int64_t at = row * task.H + h;
        set_reference(task, plan, row, s);
        set_attention(task, plan, task.mixing + at * plan.N, s);
        set_corners<true>(plan, task.positions + at * plan.N * 2, s);
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
