#include "threedfa/shading.hpp"

#include <doctest/doctest.h>
