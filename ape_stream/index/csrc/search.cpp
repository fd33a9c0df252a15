// The inner loops of a search. What they compute is what `Levels.candidates` and `Scanner` compute in
// NumPy. Sums of fixed point are exact in any order (decisions/0009), and bounds have a slack for it:
// so compilers may order both as they like.

#include <cmath>
#include <cstdint>

namespace {

// Of `ape_stream.index.levels.Levels`, in its order; those of float16 are their bits.
struct Levels {
  const int32_t* first;          // [S + 1]
  const int8_t* middle;          // [S, C]
  const float* middle_step;      // [S]
  const uint16_t* spread;        // [S]
  const uint16_t* longest_rest;  // [S]
  const int8_t* codes;           // [N, k]
  const uint16_t* rest;          // [N]
  const int32_t* order;          // [N]
  const float* halves;           // [65536] what the bits of each float16 are
  int64_t width;                 // C
  int64_t directions;            // k
};

// Of P texts; see `Slopes`.
struct Texts {
  const float* vectors;  // [P, C]
  const float* lengths;  // [P]
  const float* along;    // [P, k] of codes
  const float* outside;  // [P] of rests
  const float* needed;   // [P]
  int64_t count;         // P
};

constexpr int kLanes = 32;

// Sums `kLanes` products side by side: several vectors, which do not wait for one another.
template <typename Number, typename Code>
Number product(const Code* codes, const Number* numbers, int64_t width) {
  Number lanes[kLanes] = {};
  int64_t first = 0;
  for (; first + kLanes <= width; first += kLanes)
    for (int lane = 0; lane < kLanes; ++lane)
      lanes[lane] += static_cast<Number>(codes[first + lane]) * numbers[first + lane];
  for (; first < width; ++first) lanes[0] += static_cast<Number>(codes[first]) * numbers[first];
  for (int half = kLanes / 2; half; half /= 2)
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

}  // namespace

// Rows of open segments that may reach a floor; see `Levels.candidates`.
// segments, words, highest [pairs]: what is open, and its bound without a middle
// -> keys [32 pairs]: row * P + word. Returns how many.
extern "C" int64_t candidates(const Levels* levels, const Texts* texts, const int64_t* segments,
                              const int64_t* words, const float* highest, int64_t pairs,
                              int64_t* keys) {
  const int64_t width = levels->width, k = levels->directions;
  const float* halves = levels->halves;
  int64_t count = 0;
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const int64_t segment = segments[pair], word = words[pair];
    const float length = texts->lengths[word];
    const float middle =
        product(levels->middle + segment * width, texts->vectors + word * width, width);
    const float left = texts->needed[word] - middle * levels->middle_step[segment];
    const float reach = halves[levels->spread[segment]] * length -
                        halves[levels->longest_rest[segment]] * texts->outside[word];
    if (highest[pair] + reach < left) continue;  // what is no number is looked at, too
    const float* along = texts->along + word * k;
    for (int64_t row = levels->first[segment]; row < levels->first[segment + 1]; ++row) {
      const float bound =
          halves[levels->rest[row]] * length + product(levels->codes + row * k, along, k);
      if (!(bound < left)) keys[count++] = levels->order[row] * texts->count + word;
    }
  }
  return count;
}

// Exact products of states and texts that are large enough; see `Codes` and `fixed_point`.
// code [N, width], exponent [N]; rows, columns [pairs]; texts [P, width] in fixed point, least [P]
// -> products, kept [pairs]: the positions of those that are. Returns how many.
extern "C" int64_t products(const int16_t* code, const int16_t* exponent, const int64_t* rows,
                            const int64_t* columns, int64_t pairs, const double* texts,
                            int64_t width, const double* least, double* products, int64_t* kept) {
  int64_t count = 0;
  double unit = 1;
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const int16_t* state = code + rows[pair] * width;
    const double* text = texts + columns[pair] * width;
    if (pair == 0 || rows[pair] != rows[pair - 1]) unit = std::ldexp(1.0, exponent[rows[pair]]);
    const double total = product(state, text, width) * unit;  // a power of two
    if (!(total < least[columns[pair]])) products[count] = total, kept[count++] = pair;
  }
  return count;
}
