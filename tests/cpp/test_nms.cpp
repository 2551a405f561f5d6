#include "threedfa/nms.hpp"

#include <doctest/doctest.h>
