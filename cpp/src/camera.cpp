#include "threedfa/camera.hpp"
