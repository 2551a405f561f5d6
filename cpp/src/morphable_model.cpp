#include "threedfa/morphable_model.hpp"
