#include "threedfa/texture.hpp"
