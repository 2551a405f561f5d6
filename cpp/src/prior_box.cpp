#include "threedfa/prior_box.hpp"
