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

float product(const int8_t* codes, const float* numbers, int64_t width) {
  float total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t c = 0; c < width; ++c) total += static_cast<float>(codes[c]) * numbers[c];
  return total;
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
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const int16_t* state = code + rows[pair] * width;
    const double* text = texts + columns[pair] * width;
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t c = 0; c < width; ++c) total += static_cast<double>(state[c]) * text[c];
    total = std::ldexp(total, exponent[rows[pair]]);  // exact: a power of two
    if (!(total < least[columns[pair]])) products[count] = total, kept[count++] = pair;
  }
  return count;
}
