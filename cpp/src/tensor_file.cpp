#include "threedfa/tensor_file.hpp"
