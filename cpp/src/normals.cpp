#include "threedfa/normals.hpp"
