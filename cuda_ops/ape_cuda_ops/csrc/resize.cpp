// Before the network, on a CPU: Pillow's antialiased bilinear resize of bytes, one axis at a time.
//
// Sums of integers: the order of the loops changes no bit. Compilers make whole vectors of a loop
// over contiguous bytes, as `weigh` has it for rows. For columns, blocks of rows are transposed, so
// that the same loop runs across the rows of a block.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int kPrecision = 22;  // bits of a weight after the point
constexpr int kChannels = 3;
constexpr int kTile = 16;
constexpr int kRows = 2 * kTile;  // of a block; that of an image of 1080p has 184 kB

// What each pixel of the resized axis reads: `count` cells from `first` on.
struct Taps {
  const int64_t* first;    // [pixels]
  const int32_t* weights;  // [pixels, count]
  int64_t count;
  int64_t cells;  // of the given axis; a tap beyond it has no weight and is left out
};

// Sums `width` numbers of each cell that a pixel reads.
void weigh(const uint8_t* cells, int64_t width, const Taps& taps, int64_t pixel, int32_t* total,
           uint8_t* out) {
  const int64_t first = taps.first[pixel], end = std::min(taps.count, taps.cells - first);
  const int32_t* weights = taps.weights + pixel * taps.count;
  // A pointer that moves: from an index GCC concludes that the loops may change places, and then the
  // inner one is slow.
  const uint8_t* cell = cells + first * width;
  for (int64_t i = 0; i < width; ++i) total[i] = 1 << (kPrecision - 1);  // rounds to nearest
  for (int64_t tap = 0; tap < end; ++tap, cell += width) {
    const int32_t weight = weights[tap];
    for (int64_t i = 0; i < width; ++i) total[i] += cell[i] * weight;
  }
  for (int64_t i = 0; i < width; ++i) out[i] = static_cast<uint8_t>(total[i] >> kPrecision);
}

// A perfect shuffle moves byte i to 2 i, modulo 255: the bits of its index go round by one. After
// four of them, those of the row and of the column have changed places.
void transpose_tile(uint8_t* tile) {
  constexpr int kHalf = kTile * kTile / 2;
  uint8_t other[2 * kHalf];
  for (int turn = 0; turn < 2; ++turn) {
    for (int i = 0; i < kHalf; ++i) other[2 * i] = tile[i], other[2 * i + 1] = tile[kHalf + i];
    for (int i = 0; i < kHalf; ++i) tile[2 * i] = other[i], tile[2 * i + 1] = other[kHalf + i];
  }
}

// rows [kRows] of `width` bytes each -> out [width, kRows].
void transpose(const uint8_t* const* rows, int64_t width, uint8_t* out) {
  int64_t x = 0;
  for (; x + kTile <= width; x += kTile) {
    for (int first = 0; first < kRows; first += kTile) {
      uint8_t tile[kTile * kTile];
      for (int i = 0; i < kTile; ++i) std::memcpy(tile + i * kTile, rows[first + i] + x, kTile);
      transpose_tile(tile);
      for (int i = 0; i < kTile; ++i)
        std::memcpy(out + (x + i) * kRows + first, tile + i * kTile, kTile);
    }
  }
  for (; x < width; ++x)
    for (int row = 0; row < kRows; ++row) out[x * kRows + row] = rows[row][x];
}

}  // namespace

// image [cells, width] -> out [pixels, width], a row of `width` bytes being a cell.
extern "C" void resize_rows(const uint8_t* image, int64_t cells, int64_t width,
                            const int64_t* first, const int32_t* weights, int64_t count,
                            int64_t pixels, uint8_t* out) {
  const Taps taps{first, weights, count, cells};
  std::vector<int32_t> total(width);
  for (int64_t y = 0; y < pixels; ++y)
    weigh(image, width, taps, y, total.data(), out + y * width);
}

// image [height, cells, kChannels] -> out [height, pixels, kChannels].
extern "C" void resize_columns(const uint8_t* image, int64_t height, int64_t cells,
                               const int64_t* first, const int32_t* weights, int64_t count,
                               int64_t pixels, uint8_t* out) {
  const Taps taps{first, weights, count, cells};
  const int64_t stride = kChannels * cells;
  std::vector<uint8_t> block(stride * kRows);  // [cells, kChannels, kRows]
  int32_t total[kChannels * kRows];
  uint8_t sums[kChannels * kRows];
  for (int64_t top = 0; top < height; top += kRows) {
    const int rows = static_cast<int>(std::min<int64_t>(kRows, height - top));
    const uint8_t* lines[kRows];
    for (int i = 0; i < kRows; ++i) lines[i] = image + (top + std::min(i, rows - 1)) * stride;
    transpose(lines, stride, block.data());
    for (int64_t x = 0; x < pixels; ++x) {
      weigh(block.data(), kChannels * kRows, taps, x, total, sums);
      for (int i = 0; i < rows; ++i)
        for (int c = 0; c < kChannels; ++c)
          out[((top + i) * pixels + x) * kChannels + c] = sums[c * kRows + i];
    }
  }
}
