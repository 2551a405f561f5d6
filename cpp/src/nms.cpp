#include "threedfa/nms.hpp"
