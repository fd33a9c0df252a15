// Label maps for pages. Each function has a plain form in NumPy, in labels.py, whose bytes it has.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

namespace {

// How many of these bytes of 0 or 1 are 1.
int64_t count_of(const uint8_t* bits, int64_t count) {
  int64_t found = 0, k = 0;
  for (uint64_t eight; k + 8 <= count; k += 8) {
    std::memcpy(&eight, bits + k, 8);
    found += __builtin_popcountll(eight);
  }
  for (; k < count; ++k) found += bits[k];
  return found;
}

// Gives every pixel whose bit is 1 a label; a step that is known makes it several times as fast.
template <int64_t known_step>
void paint_row(const uint8_t* bits, int64_t count, int64_t step, uint8_t label, uint8_t* target) {
  if (known_step) step = known_step;
  for (int64_t x = 0; x < count; ++x) target[x] = bits[x * step] ? label : target[x];
}

// Writes unsigned LEB128; returns what follows it.
uint8_t* write_leb128(uint8_t* at, uint64_t value) {
  for (; value >= 128; value >>= 7) *at++ = static_cast<uint8_t>(value) | 128;
  *at++ = static_cast<uint8_t>(value);
  return at;
}

}  // namespace

extern "C" {

// Paints masks into `painted` [height, width], every `step`-th pixel of every `step`-th row, small
// ones over large ones; of two equal ones the earlier is on top.
//
// bitmaps: of each mask a byte of 0 or 1 for each pixel, in one piece
// extents: [count, 4] y, x, height and width in the frame
void paint(const uint8_t* const* bitmaps, const int64_t* extents, int64_t count, int64_t step,
           uint8_t* painted, int64_t width) {
  std::vector<int64_t> areas(count), order(count);
  for (int64_t k = 0; k < count; ++k)
    areas[k] = count_of(bitmaps[k], extents[4 * k + 2] * extents[4 * k + 3]);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return areas[a] < areas[b]; });
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    const int64_t top = extents[4 * *it], left = extents[4 * *it + 1];
    const int64_t rows = extents[4 * *it + 2], columns = extents[4 * *it + 3];
    const auto label = static_cast<uint8_t>(*it + 1);
    // The first row and column of the crop that the map has.
    const int64_t first_row = (step - top % step) % step;
    const int64_t first_column = (step - left % step) % step;
    const int64_t there = (columns - first_column + step - 1) / step;
    for (int64_t row = first_row; row < rows; row += step) {
      const uint8_t* bits = bitmaps[*it] + row * columns + first_column;
      uint8_t* target = painted + (top + row) / step * width + (left + first_column) / step;
      (step == 2 ? paint_row<2> : paint_row<0>)(bits, there, step, label, target);
    }
  }
}

// Runs of equal bytes among `count` >= 1 bytes: their values, and their lengths as unsigned LEB128.
//
// values, lengths: [count] each, which is enough for every map
// lengths_size: gets the bytes of the lengths
// Returns how many runs there are.
int64_t runs(const uint8_t* labels, int64_t count, uint8_t* values, uint8_t* lengths,
             int64_t* lengths_size) {
  int64_t found = 0, begin = 0;
  uint8_t* at = lengths;
  for (int64_t k = 1; k <= count;) {
    // Eight at a time while nothing changes; most pixels are like the one before.
    uint64_t here, before;
    while (k + 8 <= count) {
      std::memcpy(&here, labels + k, 8);
      std::memcpy(&before, labels + k - 1, 8);
      if (here != before) break;
      k += 8;
    }
    while (k < count && labels[k] == labels[k - 1]) ++k;
    values[found++] = labels[begin];
    at = write_leb128(at, k - begin);
    begin = k++;
  }
  *lengths_size = at - lengths;
  return found;
}

}  // extern "C"
