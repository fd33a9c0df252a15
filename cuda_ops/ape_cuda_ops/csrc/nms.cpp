// After the network, on a CPU: non-maximum suppression in groups of any size.
//
// Compiled without fused multiply-add: each product is rounded by itself, as in the reference
// implementation, so that an IoU exactly at the threshold gives the same result everywhere.

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

// The sides and areas of a group, each in an array of its own: the inner loop reads whole vectors.
struct Group {
  std::vector<float> x1, y1, x2, y2, area;

  void fill(const float* boxes, int64_t count) {
    for (auto* side : {&x1, &y1, &x2, &y2, &area}) side->resize(count);
    for (int64_t i = 0; i < count; ++i) {
      const float* box = boxes + 4 * i;
      x1[i] = box[0], y1[i] = box[1], x2[i] = box[2], y2[i] = box[3];
      area[i] = (box[2] - box[0]) * (box[3] - box[1]);
    }
  }

  // Clears `keep` of each later box that box `i` overlaps by more than the threshold.
  void suppress(int64_t i, int64_t count, float threshold, uint8_t* keep) const {
    for (int64_t j = i + 1; j < count; ++j) {
      const float width = std::min(x2[i], x2[j]) - std::max(x1[i], x1[j]);
      const float height = std::min(y2[i], y2[j]) - std::max(y1[i], y1[j]);
      const float overlap = std::max(width, 0.0f) * std::max(height, 0.0f);
      const float iou = overlap / (area[i] + area[j] - overlap);
      keep[j] &= !(iou > threshold);  // of two empty boxes it is NaN: both stay
    }
  }
};

}  // namespace

// boxes [N, 4] xyxy, group after group, in each by falling score; starts [groups + 1] first box of
// each group and the end of the last one; keep [N], zeroed: what no group holds is padding.
extern "C" void nms_grouped(const float* boxes, const int64_t* starts, int64_t groups,
                            float threshold, uint8_t* keep) {
  Group group;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t count = starts[g + 1] - starts[g];
    uint8_t* kept = keep + starts[g];
    std::fill(kept, kept + count, 1);
    group.fill(boxes + 4 * starts[g], count);
    for (int64_t i = 0; i < count; ++i)
      if (kept[i]) group.suppress(i, count, threshold, kept);
  }
}
