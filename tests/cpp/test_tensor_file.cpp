#include "threedfa/tensor_file.hpp"

#include <doctest/doctest.h>
