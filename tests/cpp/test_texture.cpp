#include "threedfa/texture.hpp"

#include <doctest/doctest.h>
