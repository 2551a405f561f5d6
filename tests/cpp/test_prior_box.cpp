#include "threedfa/prior_box.hpp"

#include <doctest/doctest.h>
