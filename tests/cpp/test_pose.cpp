#include "threedfa/pose.hpp"

#include <doctest/doctest.h>
