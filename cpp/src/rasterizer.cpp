#include "threedfa/rasterizer.hpp"
