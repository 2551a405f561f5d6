#include "threedfa/normals.hpp"

#include <cstddef>
#include <vector>

#include "simd/loops.hpp"
#include "triangle_indices.hpp"

namespace threedfa {

void vertex_normals(Span<const float> vertices, Span<const std::int32_t> triangles,
                    std::vector<double>& workspace, Span<float> out) {
  const std::size_t count = require_vertices(vertices);
  require_triangles(triangles, count);
  require_size("out", vertices.size(), out.size());

  // In double no finite float coordinate makes a product or a square overflow or vanish.
  workspace.assign(vertices.size(), 0.0);
  double* const sums = workspace.data();
  for (std::size_t t = 0; t < triangles.size(); t += 3) {
    const std::size_t corner[3] = {3 * static_cast<std::size_t>(triangles[t]),
                                   3 * static_cast<std::size_t>(triangles[t + 1]),
                                   3 * static_cast<std::size_t>(triangles[t + 2])};
    const float* a = &vertices[corner[0]];
    const float* b = &vertices[corner[1]];
    const float* c = &vertices[corner[2]];
    const double ux = double(b[0]) - double(a[0]);
    const double uy = double(b[1]) - double(a[1]);
    const double uz = double(b[2]) - double(a[2]);
    const double vx = double(c[0]) - double(a[0]);
    const double vy = double(c[1]) - double(a[1]);
    const double vz = double(c[2]) - double(a[2]);
    const double nx = uy * vz - uz * vy;
    const double ny = uz * vx - ux * vz;
    const double nz = ux * vy - uy * vx;
    for (const std::size_t k : corner) {
      sums[k] += nx;
      sums[k + 1] += ny;
      sums[k + 2] += nz;
    }
  }
  simd::loops().unit_vectors(sums, count, out.data());
}

void vertex_normals(Span<const float> vertices, Span<const std::int32_t> triangles,
                    Span<float> out) {
  std::vector<double> workspace;
  vertex_normals(vertices, triangles, workspace, out);
}

}  // namespace threedfa
