#include "threedfa/normals.hpp"

#include <doctest/doctest.h>
