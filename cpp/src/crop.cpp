#include "threedfa/crop.hpp"
