#include "threedfa/pose.hpp"
