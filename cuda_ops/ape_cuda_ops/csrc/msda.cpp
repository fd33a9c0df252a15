// Multi-scale deformable attention on a CPU: forward and backward, plain C ABI.
//
// One query and head reads N = L * P samples, each the weighted sum of four value rows of D
// numbers:
//
//     1. samples:  x[N], y[N]  ->  token[4][N], weight[4][N]       kLanes samples at a time
//     2. gather:   for n, corner:  sum[0..D) += weight[corner][n] * value[token[corner][n]][0..D)
//
// Step 1 is arithmetic on short arrays and is done for all heads of a query at once. Step 2 reads
// whole rows: D is a template argument (8, 16, 32 or 64), so the sums stay in registers.
//
// Threads: forward splits the queries, tile by tile (visiting_order below). Backward splits the
// (image, head) pairs: each pair writes to its own columns of value_grad, so no atomics are needed
// and every run gives the same bits.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "samples.h"
#include "vectors.h"

namespace {

constexpr int kTile = 8;
constexpr int kQueriesPerChunk = kTile * kTile;  // what a thread takes at a time
// Below this many multiplications a second thread costs more than it saves (measured).
constexpr int64_t kParallelWork = 1 << 17;

template <class Number>
inline void prefetch(const Number* row, int count) {
  constexpr int kLine = 64 / sizeof(Number);
  for (int i = 0; i < count; i += kLine) __builtin_prefetch(row + i);
}

// Step 2 for N samples from `first` on. `value` points to (b, token 0, h, 0); rows are `stride`
// numbers apart. Each corner adds to a sum of its own: one sum for all would make every addition
// wait for the one before. The rows of the next head are prefetched meanwhile.
template <int D, class Number>
void gather(const Samples& s, int first, int N, const Number* value, int64_t stride, float* out) {
  constexpr int kWide = std::min(D, kLanes), kVectors = D / kWide, kSums = kVectors > 2 ? 2 : 4;
  typename Vector<kWide>::Floats sums[kSums][kVectors] = {};
  for (int n = first; n < first + N; ++n) {
    if (s.inside[n] == 0.0f) continue;
    for (int corner = 0; corner < 4; ++corner) {
      const Number* row = value + s.token[corner][n] * stride;
      const float weight = s.weight[corner][n];
      prefetch(value + D + s.token[corner][n + N] * stride, D);
      for (int v = 0; v < kVectors; ++v)
        sums[corner % kSums][v] += weight * floats<kWide>(row + v * kWide);
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    for (int i = 1; i < kSums; ++i) sums[0][v] += sums[i][v];
    store(out + v * kWide, sums[0][v]);
  }
}

// The same for a D that is no template argument.
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

// dot[corner] = <grad, value row>; value_grad row += weight * grad. D = 0: `any` is the D.
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

// Gradients of coordinates and of logits or weights, from the four dot products of every sample.
void finish_backward(const Arguments& args, const Plan& plan, Samples& s, float* coordinate_grad,
                     float* logit_or_weight_grad) {
  float mean = 0.0f;
  for (int n = 0; n < plan.N; ++n) {
    const float upper = s.left[n] * s.dot[0][n] + s.right[n] * s.dot[1][n];
    const float lower = s.left[n] * s.dot[2][n] + s.right[n] * s.dot[3][n];
    const float west = s.top[n] * s.dot[0][n] + s.bottom[n] * s.dot[2][n];
    const float east = s.top[n] * s.dot[1][n] + s.bottom[n] * s.dot[3][n];
    const float by_x = s.has_right[n] * east - s.has_left[n] * west;
    const float by_y = s.has_bottom[n] * lower - s.has_top[n] * upper;
    const bool of_location = args.axes == 0;
    coordinate_grad[2 * n] = s.attention[n] * by_x * (of_location ? plan.width[n] : 1.0f);
    coordinate_grad[2 * n + 1] = s.attention[n] * by_y * (of_location ? plan.height[n] : 1.0f);
    logit_or_weight_grad[n] = s.top[n] * upper + s.bottom[n] * lower;
    mean += s.attention[n] * logit_or_weight_grad[n];
  }
  if (args.axes == 0) return;
  for (int n = 0; n < plan.N; ++n)  // backward of the softmax
    logit_or_weight_grad[n] = s.attention[n] * (logit_or_weight_grad[n] - mean);
}

int tile_columns(const Arguments& args) { return (args.widths[0] + kTile - 1) / kTile; }
int tile_rows(const Arguments& args) { return (args.heights[0] + kTile - 1) / kTile; }

// The tile of the finest level that a query samples around: from its reference, or from its first
// location when there is no reference. NaN and far points go to the nearest tile.
int tile_of(const Arguments& args, int64_t row) {
  const float* point = args.axes == 0
                           ? args.offsets_or_locations + row * args.H * args.L * args.P * 2
                           : args.reference + row * args.L * args.axes;
  const auto cell = [](float fraction, int cells) {
    const float at = fraction * cells;
    return at > 0.0f ? static_cast<int>(std::min(at, cells - 1.0f)) : 0;
  };
  return cell(point[1], tile_rows(args)) * tile_columns(args) + cell(point[0], tile_columns(args));
}

// The order of the queries: tile by tile of 8 x 8 pixels, image by image (a counting sort).
// Queries of one tile sample nearby pixels, so all but the first find them in the cache.
std::vector<int64_t> visiting_order(const Arguments& args) {
  const int tiles = tile_columns(args) * tile_rows(args);
  std::vector<int64_t> order(args.B * args.Q), start(tiles + 1);
  std::vector<int> tile(args.Q);
  for (int64_t first = 0; first < args.B * args.Q; first += args.Q) {
    std::fill(start.begin(), start.end(), 0);
    for (int64_t q = 0; q < args.Q; ++q) ++start[(tile[q] = tile_of(args, first + q)) + 1];
    for (int t = 0; t < tiles; ++t) start[t + 1] += start[t];
    for (int64_t q = 0; q < args.Q; ++q) order[first + start[tile[q]]++] = first + q;
  }
  return order;
}

template <int D, class Number>
void forward(const Arguments& args) {
  const Plan plan(args, args.H);
  const std::vector<int64_t> order = visiting_order(args);
  const int64_t rows = args.B * args.Q, stride = int64_t(args.H) * args.D;
  const int64_t chunks = (rows + kQueriesPerChunk - 1) / kQueriesPerChunk;
  const bool parallel = rows * stride * plan.N > kParallelWork;
#pragma omp parallel num_threads(args.threads) if (parallel)
  {
    Samples s(plan);
#pragma omp for schedule(dynamic)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t end = std::min(rows, (chunk + 1) * kQueriesPerChunk);
      for (int64_t i = chunk * kQueriesPerChunk; i < end; ++i) {
        const int64_t row = order[i], b = row / args.Q;
        set_reference(args, plan, row, s);
        const Number* image = static_cast<const Number*>(args.value) + b * args.S * stride;
        set_attention(args, plan, args.logits_or_weights + row * plan.count, s);
        set_corners<false>(plan, args.offsets_or_locations + row * plan.count * 2, s);
        for (int h = 0; h < args.H; ++h) {
          const Number* head = image + h * args.D;
          float* out = args.output + row * stride + h * args.D;
          if constexpr (D == 0)
            gather_any(s, h * plan.N, plan.N, head, stride, args.D, out);
          else
            gather<D>(s, h * plan.N, plan.N, head, stride, out);
        }
      }
    }
  }
}

template <int D, class Number>
void backward(const Arguments& args) {
  const Plan plan(args, 1);
  const int64_t pairs = args.B * args.H, stride = int64_t(args.H) * args.D;
  const bool parallel = args.B * args.Q * stride * plan.N > kParallelWork;
#pragma omp parallel num_threads(args.threads) if (parallel)
  {
    Samples s(plan);
#pragma omp for schedule(dynamic)
    for (int64_t pair = 0; pair < pairs; ++pair) {
      const int64_t b = pair / args.H, h = pair % args.H;
      const int64_t corner = b * args.S * stride + h * args.D;
      const Number* value = static_cast<const Number*>(args.value) + corner;
      for (int64_t row = b * args.Q; row < (b + 1) * args.Q; ++row) {
        const int64_t at = row * args.H + h;
        set_reference(args, plan, row, s);
        set_attention(args, plan, args.logits_or_weights + at * plan.N, s);
        set_corners<true>(plan, args.offsets_or_locations + at * plan.N * 2, s);
        scatter<D>(s, plan.N, value, args.value_grad + corner, stride, args.D,
                   args.output_grad + at * args.D);
        finish_backward(args, plan, s, args.coordinate_grad + at * plan.N * 2,
                        args.logit_or_weight_grad + at * plan.N);
      }
    }
  }
}

template <class Number>
void run(const Arguments& args, bool is_forward) {
  switch (args.D) {
    case 8: return is_forward ? forward<8, Number>(args) : backward<8, Number>(args);
    case 16: return is_forward ? forward<16, Number>(args) : backward<16, Number>(args);
    case 32: return is_forward ? forward<32, Number>(args) : backward<32, Number>(args);
    case 64: return is_forward ? forward<64, Number>(args) : backward<64, Number>(args);
    default: return is_forward ? forward<0, Number>(args) : backward<0, Number>(args);
  }
}

}  // namespace

extern "C" void msda_forward(const Arguments* args) {
  args->bfloat16 ? run<Bfloat16>(*args, true) : run<float>(*args, true);
}

extern "C" void msda_backward(const Arguments* args) {
  args->bfloat16 ? run<Bfloat16>(*args, false) : run<float>(*args, false);
}
