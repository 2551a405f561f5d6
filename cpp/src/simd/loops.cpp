#include "loops.hpp"

#include <cstdlib>
#include <cstring>

namespace threedfa::simd {

#ifdef THREEDFA_SIMD_X86
extern const Loops avx2_loops;
extern const Loops avx512_loops;
#elif defined(THREEDFA_SIMD_ARM)
extern const Loops neon_loops;
#endif

namespace {

struct Available {
  const Loops* builds[3] = {&scalar_loops};
  std::size_t count = 1;

  Available() {
#ifdef THREEDFA_SIMD_X86
    if (__builtin_cpu_supports("avx2")) builds[count++] = &avx2_loops;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      builds[count++] = &avx512_loops;
    }
#elif defined(THREEDFA_SIMD_ARM)
    builds[count++] = &neon_loops;  // every processor of this kind has it
#endif
  }
};

const Available& all() {
  static const Available instance;
  return instance;
}

const Loops& choose() {
  const Available& known = all();
  const char* const wanted = std::getenv("THREEDFA_SIMD");
  for (std::size_t i = 0; wanted != nullptr && i < known.count; ++i) {
    if (std::strcmp(known.builds[i]->name, wanted) == 0) return *known.builds[i];
  }
  return *known.builds[known.count - 1];
}

}  // namespace

const Loops* const* available(std::size_t& count) {
  count = all().count;
  return all().builds;
}

const Loops& loops() {
  static const Loops& chosen = choose();
  return chosen;
}

}  // namespace threedfa::simd
