// The inner loops of indexing. Each has a plain form in NumPy, whose results it has bit for bit:
// comparisons, whole numbers, and single operations in the same order and precision. So products are
// rounded by themselves: compile it with -ffp-contract=off.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr uint8_t kThing = 1, kStuff = 2;  // of `ape_stream.index.cells`

struct Box {
  float x1, y1, x2, y2;
};

float common_area(const Box& a, const Box& b) {
  const float width = std::min(a.x2, b.x2) - std::max(a.x1, b.x1);
  const float height = std::min(a.y2, b.y2) - std::max(a.y1, b.y1);
  return std::max(width, 0.0f) * std::max(height, 0.0f);
}

// Which cells of a map are in a block of 2 x 2 cells with both signs.
class Borders {
 public:
  Borders(int64_t height, int64_t width, const int64_t* filled)
      : height_(height),
        width_(width),
        filled_height_(std::min(height, filled[0])),
        filled_width_(std::min(width, filled[1])),
        cells_((height + 1) * (width + 1)),
        mixed_((height + 1) * (width + 1)) {}

  // A row of the map: a byte of 0 or 1 for each cell.
  uint8_t* row(int64_t y) { return cells_.data() + y * (width_ + 1); }

  // Sets `near` [height, width]. Returns whether four positive cells of what the image fills are a
  // square.
  bool find(uint8_t* near) {
    // What is written are bytes, which may be any object: only locals are known not to change.
    const int64_t height = height_, width = width_, stride = width + 1;
    const int64_t corners = filled_width_ - 1;
    // Border pixels read border cells twice.
    for (int64_t y = 0; y < height; ++y) row(y)[width] = row(y)[width - 1];
    std::memcpy(row(height), row(height - 1), stride);
    bool square = false;
    for (int64_t y = 0; y < height; ++y) {
      const uint8_t *a = row(y), *c = row(y + 1);
      // By the lower right cell of the block; the first row and column stay 0.
      uint8_t* mixed = mixed_.data() + (y + 1) * stride + 1;
      for (int64_t x = 0; x < width; ++x)
        mixed[x] = (a[x] | a[x + 1] | c[x] | c[x + 1]) ^ (a[x] & a[x + 1] & c[x] & c[x + 1]);
      if (square || y + 1 >= filled_height_) continue;
      uint8_t found = 0;
      for (int64_t x = 0; x < corners; ++x) found |= a[x] & a[x + 1] & c[x] & c[x + 1];
      square = found;
    }
    for (int64_t y = 0; y < height; ++y, near += width) {
      const uint8_t *above = mixed_.data() + y * stride, *below = above + stride;
      for (int64_t x = 0; x < width; ++x)
        near[x] = above[x] | above[x + 1] | below[x] | below[x + 1];
    }
    return square;
  }

 private:
  int64_t height_, width_, filled_height_, filled_width_;
  std::vector<uint8_t> cells_, mixed_;
};

// The largest absolute value, by its bits, which without a sign are in the order of the numbers: of a
// maximum of integers a compiler makes vectors, of one of floats it may not.
template <typename Value>
float largest_of(int64_t count, Value given) {
  int32_t largest = 0;
  for (int64_t c = 0; c < count; ++c) {
    const float value = given(c);
    int32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    largest = std::max(largest, bits & 0x7fffffff);
  }
  float value;
  std::memcpy(&value, &largest, sizeof value);
  return value;
}

// Appends the numbers of the cells that are kept.
int8_t* append(const int8_t* logits, const uint8_t* kept, int64_t cells, int8_t* end) {
  int64_t first = 0;
  const auto take = [&](int64_t last) {
    for (; first < last; ++first) {
      *end = logits[first];
      end += kept[first];
    }
  };
  for (uint64_t some; first + 8 <= cells;) {
    std::memcpy(&some, kept + first, sizeof some);
    if (some)
      take(first + 8);
    else  // most are not near a border
      first += 8;
  }
  take(cells);
  return end;
}

}  // namespace

// See `survivors`. logits [words, queries], boxes [queries] -> best, lead [queries].
extern "C" void survivors(const float* logits, const Box* boxes, int64_t words, int64_t queries,
                          float floor, float iou, float* best, float* lead) {
  std::vector<uint8_t> near(queries * queries);
  for (int64_t a = 0; a < queries; ++a)
    for (int64_t b = 0; b < a; ++b) {
      const float overlap = common_area(boxes[a], boxes[b]);
      const float own = (boxes[a].x2 - boxes[a].x1) * (boxes[a].y2 - boxes[a].y1);
      const float other = (boxes[b].x2 - boxes[b].x1) * (boxes[b].y2 - boxes[b].y1);
      near[a * queries + b] = near[b * queries + a] = overlap / (own + other - overlap) > iou;
    }
  std::fill(best, best + queries, -kInfinity);
  std::fill(lead, lead + queries, kInfinity);
  std::vector<int64_t> alive(queries);
  for (int64_t word = 0; word < words; ++word) {
    const float* row = logits + word * queries;
    uint8_t any = 0;
    for (int64_t query = 0; query < queries; ++query) any |= floor <= row[query];
    if (!any) continue;  // as most words of most frames
    int64_t left = 0;
    for (int64_t query = 0; query < queries; ++query)
      if (floor <= row[query]) alive[left++] = query;
    while (left) {
      int64_t first = alive[0];
      for (int64_t k = 1; k < left; ++k)
        if (row[alive[k]] > row[first]) first = alive[k];
      best[first] = std::max(best[first], row[first]);
      const int64_t some = left;
      left = 0;
      for (int64_t k = 0; k < some; ++k) {
        const int64_t query = alive[k];
        if (near[first * queries + query])
          lead[query] = std::min(lead[query], row[first] - row[query]);
        else if (query != first)
          alive[left++] = query;
      }
    }
  }
}

// See `grouped`. boxes [count], order [count], the strongest first -> leaders, owner [count].
// Returns how many groups there are.
extern "C" int64_t groups(const Box* boxes, const int64_t* order, int64_t count, float iou,
                          int64_t* leaders, int64_t* owner) {
  const auto area = [](const Box& box) {
    return std::max(box.x2 - box.x1, 0.0f) * std::max(box.y2 - box.y1, 0.0f);
  };
  std::fill(owner, owner + count, -1);
  int64_t found = 0;
  for (int64_t k = 0; k < count; ++k) {
    const int64_t row = order[k];
    if (owner[row] >= 0) continue;
    for (int64_t other = 0; other < count; ++other) {
      if (owner[other] >= 0) continue;
      const float common = common_area(boxes[row], boxes[other]);
      const float together = area(boxes[row]) + area(boxes[other]) - common;
      // A box without area overlaps not even itself.
      if (other == row || (together > 0 && common / together > iou)) owner[other] = found;
    }
    leaders[found++] = row;
  }
  return found;
}

// See `pack_maps` and `surely_drawn`.
// logits, positive [count, height, width] (0 or 1); down [count, height] and across [count, width]
// of `inside_boxes`, null where masks are not cut; filled: whole rows and columns of the image
// -> counts, drawn [count], numbers [.]. Returns how many numbers there are.
extern "C" int64_t deciding(const int8_t* logits, const uint8_t* positive, const uint8_t* down,
                            const uint8_t* across, int64_t count, const int64_t* sides,
                            const int64_t* filled, uint32_t* counts, int8_t* numbers,
                            uint8_t* drawn) {
  const int64_t height = sides[0], width = sides[1], cells = height * width;
  Borders borders(height, width, filled);
  std::vector<uint8_t> kept(cells), near(cells);
  int8_t* end = numbers;
  for (int64_t mask = 0; mask < count; ++mask, logits += cells, positive += cells) {
    for (int64_t y = 0; y < height; ++y)
      std::memcpy(borders.row(y), positive + y * width, width);
    bool square = borders.find(kept.data());
    drawn[mask] = square ? kStuff : 0;
    if (down) {
      const uint8_t *rows = down + mask * height, *columns = across + mask * width;
      uint8_t cut = 0;
      for (int64_t y = 0; y < height; ++y) {
        const uint8_t *given = positive + y * width, row = rows[y];
        uint8_t* own = borders.row(y);
        for (int64_t x = 0; x < width; ++x) {
          const uint8_t inside = given[x] & row & columns[x];
          cut |= given[x] ^ inside;
          own[x] = inside;
        }
      }
      if (cut) {  // of most maps the box cuts nothing
        square = borders.find(near.data());
        for (int64_t y = 0; y < height; ++y) {
          const uint8_t *found = near.data() + y * width, row = rows[y];
          uint8_t* own = kept.data() + y * width;
          for (int64_t x = 0; x < width; ++x) own[x] |= found[x] & row & columns[x];
        }
      }
    }
    drawn[mask] |= square ? kThing : 0;
    int8_t* begin = end;
    end = append(logits, kept.data(), cells, end);
    counts[mask] = static_cast<uint32_t>(end - begin);
  }
  return end - numbers;
}

// See `differences`. states [count, width], kept [., width], base [count]
// -> code [count, width], step, lost [count].
extern "C" void differences(const float* states, const float* kept, const int64_t* base,
                            int64_t count, int64_t width, int8_t* code, float* step, double* lost) {
  for (int64_t k = 0; k < count; ++k, states += width, code += width) {
    const float* nearest = kept + base[k] * width;
    const auto difference = [=](int64_t c) { return states[c] - nearest[c]; };
    const float own = std::max(largest_of(width, difference) / 127.0f, 1e-30f);
    for (int64_t c = 0; c < width; ++c)
      code[c] = static_cast<int8_t>(std::rint(difference(c) / own));
    double total = 0;
    for (int64_t c = 0; c < width; ++c) {
      const double wide = static_cast<double>(states[c]) - static_cast<double>(nearest[c]);
      const double rest = wide - static_cast<double>(code[c]) * static_cast<double>(own);
      total += rest * rest;
    }
    step[k] = own;
    lost[k] = std::sqrt(total);
  }
}

// See `nearest_of_far`. distances [points, points] -> owner [points].
extern "C" void nearest_of_far(const float* distances, int64_t points, int64_t count,
                               int64_t* owner) {
  std::fill(owner, owner + points, 0);
  std::vector<float> nearest(distances, distances + points);
  for (int64_t number = 1; number < std::min(count, points); ++number) {
    const auto chosen = std::max_element(nearest.begin(), nearest.end()) - nearest.begin();
    const float* own = distances + chosen * points;
    for (int64_t k = 0; k < points; ++k)
      if (own[k] < nearest[k]) owner[k] = number, nearest[k] = own[k];
  }
}

// See `state_codes` and `Codes.states`. given [count, width] -> code, state [count, width],
// exponent [count].
extern "C" void codes(const float* given, int64_t count, int64_t width, int64_t bits,
                      int64_t least_exponent, int16_t* code, int16_t* exponent, float* state) {
  const double limit = std::ldexp(1.0, static_cast<int>(bits)) - 1;
  for (int64_t k = 0; k < count; ++k, given += width, code += width, state += width) {
    int own = 0;
    std::frexp(largest_of(width, [=](int64_t c) { return given[c]; }), &own);  // it is < 2^own
    own = std::max<int>(own, static_cast<int>(least_exponent)) - static_cast<int>(bits);
    exponent[k] = static_cast<int16_t>(own);
    const double scale = std::ldexp(1.0, -own);
    const float unit = static_cast<float>(std::ldexp(1.0, own));
    for (int64_t c = 0; c < width; ++c) {
      const double rounded = std::rint(static_cast<double>(given[c]) * scale);
      // The largest may be rounded up to one more than there is room for.
      code[c] = static_cast<int16_t>(std::min(std::max(rounded, -limit), limit));
      state[c] = static_cast<float>(code[c]) * unit;
    }
  }
}
