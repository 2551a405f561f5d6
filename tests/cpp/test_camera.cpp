#include "threedfa/camera.hpp"

#include <doctest/doctest.h>
