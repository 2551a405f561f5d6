#include "threedfa/vertex_rings.hpp"

#include <algorithm>

#include "triangle_indices.hpp"

namespace threedfa {
namespace {

using Index = std::int32_t;

constexpr Index kNone = -1;

std::size_t at(Index index) { return static_cast<std::size_t>(index); }

/// The sides of triangles that lie opposite to one vertex, each from its start to its end in the
/// triangle's sense of rotation.
struct Side {
  Index start, end;
};

/// Strings sides together to walks. Its memory serves one vertex after the other.
class Walker {
 public:
  explicit Walker(std::size_t vertex_count)
      : first_(vertex_count, kNone), arrivals_(vertex_count) {}

  /// The points of the walk around `vertex`, see VertexRings; valid until the next call.
  const std::vector<Index>& walk(Index vertex, Span<const Side> sides) {
    next_.assign(sides.size(), kNone);
    for (std::size_t i = sides.size(); i-- > 0;) {
      Index& first = first_[at(sides[i].start)];
      next_[i] = first;
      first = static_cast<Index>(i);
      ++arrivals_[at(sides[i].end)];
    }
    points_.clear();
    // Fans that begin at a border are taken first: begun in the middle, they would be two.
    for (const Side& side : sides) {
      if (arrivals_[at(side.start)] == 0) add_fan(vertex, side.start, sides);
    }
    for (const Side& side : sides) add_fan(vertex, side.start, sides);
    for (const Side& side : sides) arrivals_[at(side.end)] = 0;

    const bool one_fan = std::count(points_.begin(), points_.end(), vertex) == 1;
    if (one_fan && points_[1] == points_.back()) {  // the ring needs neither its vertex nor its end
      points_.erase(points_.begin());
      points_.pop_back();
    }
    if (points_.size() < 3) points_.clear();
    if (points_.size() % 2 == 1) points_.push_back(points_.front());
    return points_;
  }

 private:
  /// Goes on from `point` while there are sides left.
  void add_fan(Index vertex, Index point, Span<const Side> sides) {
    if (first_[at(point)] == kNone) return;
    points_.insert(points_.end(), {vertex, point});
    while (first_[at(point)] != kNone) {
      const std::size_t side = at(first_[at(point)]);
      first_[at(point)] = next_[side];
      point = sides[side].end;
      points_.push_back(point);
    }
  }

  std::vector<Index> first_;     // for each vertex the first unused side that starts there
  std::vector<Index> next_;      // for each side the next one that starts where it does
  std::vector<Index> arrivals_;  // for each vertex how many sides end there
  std::vector<Index> points_;
};

/// The sides opposite to each vertex: those of vertex v from first[v] to first[v + 1] - 1.
struct Surroundings {
  std::vector<std::size_t> first;
  std::vector<Side> sides;

  Surroundings(Span<const Index> triangles, std::size_t vertex_count) : first(vertex_count + 1) {
    const auto has_area = [&](std::size_t t) {
      return triangles[t] != triangles[t + 1] && triangles[t + 1] != triangles[t + 2] &&
             triangles[t + 2] != triangles[t];
    };
    for (std::size_t t = 0; t < triangles.size(); t += 3) {
      if (!has_area(t)) continue;
      for (std::size_t k = 0; k < 3; ++k) ++first[at(triangles[t + k]) + 1];
    }
    for (std::size_t v = 0; v < vertex_count; ++v) first[v + 1] += first[v];
    sides.resize(first[vertex_count]);
    std::vector<std::size_t> place(first.begin(), first.end() - 1);
    for (std::size_t t = 0; t < triangles.size(); t += 3) {
      if (!has_area(t)) continue;
      for (std::size_t k = 0; k < 3; ++k) {
        std::size_t& next = place[at(triangles[t + k])];
        sides[next++] = {triangles[t + (k + 1) % 3], triangles[t + (k + 2) % 3]};
      }
    }
  }

  Span<const Side> of(std::size_t vertex) const {
    return {sides.data() + first[vertex], first[vertex + 1] - first[vertex]};
  }
};

}  // namespace

VertexRings::VertexRings(Span<const Index> triangles, std::size_t vertex_count)
    : vertex_count_(vertex_count) {
  require_triangles(triangles, vertex_count);
  require(vertex_count <= (std::size_t{1} << 30), "vertex_count", "at most 2^30", vertex_count);
  const Surroundings around(triangles, vertex_count);
  Walker walker(vertex_count);
  struct Walk {
    std::vector<Index> points;
    std::uint16_t slot = kBlock;
  };
  for (std::size_t begin = 0; begin < vertex_count; begin += kBlock) {
    std::vector<Walk> walks;
    Start start{pairs_.size(), corners_.size(), 0, false};
    for (std::size_t v = begin; v < std::min(begin + kBlock, vertex_count); ++v) {
      const auto& points = walker.walk(static_cast<Index>(v), around.of(v));
      if (points.empty()) {
        ++start.without_walk;
      } else {
        walks.push_back({points, static_cast<std::uint16_t>(v - begin)});
      }
    }
    std::stable_sort(walks.begin(), walks.end(), [](const Walk& a, const Walk& b) {
      return a.points.size() < b.points.size();
    });
    if (walks.size() % 2 == 1) walks.push_back({walks.back().points});
    for (std::size_t i = 0; i < walks.size(); i += 2) {
      std::vector<Index>&a = walks[i].points, &b = walks[i + 1].points;
      a.resize(b.size(), a.front());
      pairs_.push_back({static_cast<std::uint32_t>(b.size()), {walks[i].slot, walks[i + 1].slot}});
      for (std::size_t k = 0; k < b.size(); ++k) {
        for (const Index point : {a[k], b[k]}) {
          corners_.push_back(3 * static_cast<std::uint32_t>(point));
          start.reaches_last |= at(point) + 1 == vertex_count;
        }
      }
    }
    starts_.push_back(start);
  }
}

VertexRings::Block VertexRings::block(std::size_t b) const {
  const Start& start = starts_[b];
  const std::size_t end = b + 1 < starts_.size() ? starts_[b + 1].pair : pairs_.size();
  return {std::min(kBlock, vertex_count_ - b * kBlock),
          start.without_walk,
          {pairs_.data() + start.pair, end - start.pair},
          corners_.data() + start.corner,
          start.reaches_last};
}

}  // namespace threedfa
