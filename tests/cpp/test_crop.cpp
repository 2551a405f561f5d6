#include "threedfa/crop.hpp"

#include <doctest/doctest.h>
