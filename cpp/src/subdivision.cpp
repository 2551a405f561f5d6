#include "threedfa/subdivision.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "triangle_indices.hpp"

namespace threedfa {

namespace {

using Index = std::int32_t;
constexpr Index kNone = -1;
constexpr std::size_t kRegular = 6;
constexpr std::size_t kMaxRing = 16;

// One side of one triangle: from its start to the start of the next side of the same triangle.
struct Side {
  Index start, end;
  std::size_t edge;
};

// Who is beside whom. Side 3 t + k runs from corner k of triangle t to the next corner.
struct Topology {
  std::vector<Side> sides;
  std::vector<Index> edges;                 // E x 2, lower vertex first
  std::vector<std::size_t> opposite;        // for each side the other side of its edge, or `none()`
  std::vector<bool> border;                 // for each edge: of one triangle alone
  std::vector<std::array<Index, 2>> along;  // for each vertex its neighbours along the border
  std::vector<std::size_t> border_count;    // for each vertex how many borders meet in it

  static constexpr std::size_t none() { return static_cast<std::size_t>(-1); }
  static std::size_t next(std::size_t side) { return side % 3 == 2 ? side - 2 : side + 1; }
  static std::size_t previous(std::size_t side) { return side % 3 == 0 ? side + 2 : side - 1; }

  Topology(Span<const Index> triangles, std::size_t vertex_count) {
    const std::size_t count = triangles.size();
    sides.resize(count);
    for (std::size_t s = 0; s < count; ++s) {
      sides[s] = {triangles[s], triangles[next(s)], 0};
    }
    // Sides of one edge come together; edges are numbered by their first side.
    std::vector<std::size_t> order(count);
    for (std::size_t s = 0; s < count; ++s) order[s] = s;
    const auto key = [this](std::size_t s) { return std::minmax(sides[s].start, sides[s].end); };
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      const auto ka = key(a), kb = key(b);
      return ka.first != kb.first ? ka.first < kb.first : ka.second < kb.second;
    });

    opposite.assign(count, none());
    along.assign(vertex_count, {kNone, kNone});
    border_count.assign(vertex_count, 0);
    for (std::size_t begin = 0, end = 0; begin < count; begin = end) {
      const std::size_t side = order[begin];
      const Index low = key(side).first, high = key(side).second;
      for (end = begin; end < count; ++end) {
        if (key(order[end]).first != low || key(order[end]).second != high) break;
        sides[order[end]].edge = edges.size() / 2;
      }
      edges.insert(edges.end(), {low, high});
      border.push_back(end - begin == 1 && low != high);
      if (border.back()) {
        add_border(low, high);
        add_border(high, low);
      }
      const std::size_t other = order[std::min(begin + 1, count - 1)];
      if (end - begin == 2 && sides[side].start == sides[other].end && low != high) {
        opposite[side] = other;
        opposite[other] = side;
      }
    }
  }

  void add_border(Index vertex, Index neighbour) {
    const auto v = static_cast<std::size_t>(vertex);
    if (border_count[v] < 2) along[v][border_count[v]] = neighbour;
    ++border_count[v];
  }

  // The corner of a side's triangle that is not on the side.
  Index apex(std::size_t side) const { return sides[previous(side)].start; }

  // The ends of the sides around the start of `side`, counter-clockwise, beginning with its own
  // end; empty if triangles do not close around it or are more than kMaxRing.
  std::vector<Index> ring(std::size_t side) const {
    std::vector<Index> ends;
    std::size_t at = side;
    do {
      ends.push_back(sides[at].end);
      at = opposite[previous(at)];
    } while (at != none() && at != side && ends.size() < kMaxRing);
    return at == side ? ends : std::vector<Index>{};
  }
};

// The terms of one new vertex.
class Stencil {
 public:
  void clear() { terms_.clear(); }

  void add(Index vertex, double weight) {
    const auto same = [vertex](const Term& term) { return term.first == vertex; };
    const auto found = std::find_if(terms_.begin(), terms_.end(), same);
    if (found != terms_.end()) {
      found->second += weight;
    } else {
      terms_.emplace_back(vertex, weight);
    }
  }

  using Term = std::pair<Index, double>;
  const std::vector<Term>& terms() const { return terms_; }

 private:
  std::vector<Term> terms_;
};

// The point beyond one side of a wing of the butterfly.
void add_wing(const Topology& mesh, std::size_t side, double weight, Stencil& stencil) {
  const std::size_t beyond = mesh.opposite[side];
  if (beyond != Topology::none()) {
    stencil.add(mesh.apex(beyond), weight);
    return;
  }
  stencil.add(mesh.sides[side].start, weight);
  stencil.add(mesh.sides[side].end, weight);
  stencil.add(mesh.apex(side), -weight);
}

void add_butterfly(const Topology& mesh, std::size_t side, Stencil& stencil) {
  for (const std::size_t half : {side, mesh.opposite[side]}) {
    stencil.add(mesh.sides[half].start, 1.0 / 2);
    stencil.add(mesh.apex(half), 1.0 / 8);
    add_wing(mesh, Topology::next(half), -1.0 / 16, stencil);
    add_wing(mesh, Topology::previous(half), -1.0 / 16, stencil);
  }
}

// Weights of the ring of K points around a vertex that has 3/4 itself, for the new vertex
// on the edge to the ring's first point.
double ring_weight(std::size_t k, std::size_t count) {
  if (count == 3) return k == 0 ? 5.0 / 12 : -1.0 / 12;
  if (count == 4) return k == 0 ? 3.0 / 8 : (k == 2 ? -1.0 / 8 : 0.0);
  const double turn = 2 * 3.141592653589793 * static_cast<double>(k) / static_cast<double>(count);
  return (0.25 + std::cos(turn) + 0.5 * std::cos(2 * turn)) / static_cast<double>(count);
}

// Whether a closed ring asks for its own stencil. Two triangles alone do not span a ring.
bool irregular(const std::vector<Index>& ring) {
  return ring.size() > 2 && ring.size() != kRegular;
}

void add_ring(Index center, const std::vector<Index>& ring, double share, Stencil& stencil) {
  stencil.add(center, 0.75 * share);
  for (std::size_t k = 0; k < ring.size(); ++k) {
    stencil.add(ring[k], ring_weight(k, ring.size()) * share);
  }
}

void add_inner(const Topology& mesh, std::size_t side, Stencil& stencil) {
  const std::vector<Index> start = mesh.ring(side), end = mesh.ring(mesh.opposite[side]);
  const double share = irregular(start) && irregular(end) ? 0.5 : 1.0;
  if (irregular(start)) add_ring(mesh.sides[side].start, start, share, stencil);
  if (irregular(end)) add_ring(mesh.sides[side].end, end, share, stencil);
  if (stencil.terms().empty()) add_butterfly(mesh, side, stencil);
}

void add_border(const Topology& mesh, Index a, Index b, Stencil& stencil) {
  const auto beyond = [&mesh](Index vertex, Index from) {
    const auto v = static_cast<std::size_t>(vertex);
    if (mesh.border_count[v] != 2) return kNone;  // borders cross here
    return mesh.along[v][mesh.along[v][0] == from ? 1 : 0];
  };
  const Index before = beyond(a, b), after = beyond(b, a);
  const bool curve = before != kNone && after != kNone;
  stencil.add(a, curve ? 9.0 / 16 : 1.0 / 2);
  stencil.add(b, curve ? 9.0 / 16 : 1.0 / 2);
  if (curve) {
    stencil.add(before, -1.0 / 16);
    stencil.add(after, -1.0 / 16);
  }
}

}  // namespace

Subdivision::Subdivision(Span<const Index> triangles, std::size_t vertex_count)
    : base_count_(vertex_count) {
  require_triangles(triangles, vertex_count);
  const Topology mesh(triangles, vertex_count);
  edges_ = mesh.edges;
  constexpr auto kMax = static_cast<std::size_t>(std::numeric_limits<Index>::max());
  require(dense_count() <= kMax, "triangles", "at most " + std::to_string(kMax) + " dense vertices",
          dense_count());

  std::vector<std::size_t> side_of(edges_.size() / 2);
  for (std::size_t s = mesh.sides.size(); s-- > 0;) side_of[mesh.sides[s].edge] = s;
  Stencil stencil;
  first_.push_back(0);
  for (std::size_t e = 0; e < side_of.size(); ++e) {
    const Index a = edges_[2 * e], b = edges_[2 * e + 1];
    stencil.clear();
    if (mesh.opposite[side_of[e]] != Topology::none()) {
      add_inner(mesh, side_of[e], stencil);
    } else if (mesh.border[e]) {
      add_border(mesh, a, b, stencil);
    } else {
      stencil.add(a, 0.5);
      stencil.add(b, 0.5);
    }
    for (const Stencil::Term& term : stencil.terms()) {
      if (term.second == 0.0) continue;
      vertices_.push_back(term.first);
      weights_.push_back(static_cast<float>(term.second));
    }
    first_.push_back(vertices_.size());
  }

  triangles_.reserve(4 * triangles.size());
  for (std::size_t s = 0; s < triangles.size(); s += 3) {
    Index middle[3];
    for (std::size_t k = 0; k < 3; ++k) {
      middle[k] = static_cast<Index>(vertex_count + mesh.sides[s + k].edge);
    }
    for (std::size_t k = 0; k < 3; ++k) {
      triangles_.insert(triangles_.end(), {triangles[s + k], middle[k], middle[(k + 2) % 3]});
    }
    triangles_.insert(triangles_.end(), {middle[0], middle[1], middle[2]});
  }
}

void Subdivision::apply(Span<const float> base, Span<float> dense) const {
  if (base_count_ == 0) {
    require_size("base", 0, base.size());
    require_size("dense", 0, dense.size());
    return;
  }
  if (base.size() % base_count_ != 0) {
    require(false, "base",
            "the same number of values for each of " + std::to_string(base_count_) + " vertices",
            base.size(), " values");
  }
  const std::size_t channels = base.size() / base_count_;
  require_size("dense", dense_count() * channels, dense.size());

  std::copy(base.begin(), base.end(), dense.begin());
  float* const out = dense.data() + base.size();
  // Three at a time, whose sums are kept in registers.
  std::size_t channel = 0;
  for (; channel + 3 <= channels; channel += 3) combine<3>(base.data(), channels, channel, out);
  for (; channel < channels; ++channel) combine<1>(base.data(), channels, channel, out);
}

template <std::size_t kChannels>
void Subdivision::combine(const float* base, std::size_t channels, std::size_t channel,
                          float* out) const {
  for (std::size_t e = 0; e + 1 < first_.size(); ++e) {
    float sums[kChannels] = {};
    for (std::size_t term = first_[e]; term < first_[e + 1]; ++term) {
      const float* const from =
          base + static_cast<std::size_t>(vertices_[term]) * channels + channel;
      for (std::size_t c = 0; c < kChannels; ++c) sums[c] += weights_[term] * from[c];
    }
    for (std::size_t c = 0; c < kChannels; ++c) out[e * channels + channel + c] = sums[c];
  }
}

}  // namespace threedfa
