#include "threedfa/shading.hpp"
