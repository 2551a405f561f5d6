#include "threedfa/morphable_model.hpp"

#include <doctest/doctest.h>
