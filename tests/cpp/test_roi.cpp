#include "threedfa/roi.hpp"

#include <doctest/doctest.h>
