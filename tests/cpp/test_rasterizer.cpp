#include "threedfa/rasterizer.hpp"

#include <doctest/doctest.h>
