#include "threedfa/roi.hpp"
