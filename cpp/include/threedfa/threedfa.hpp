#pragma once

// Everything at once; each header can also be included alone.
#include "threedfa/camera.hpp"
#include "threedfa/crop.hpp"
#include "threedfa/image.hpp"
#include "threedfa/morphable_model.hpp"
#include "threedfa/nms.hpp"
#include "threedfa/normals.hpp"
#include "threedfa/pose.hpp"
#include "threedfa/prior_box.hpp"
#include "threedfa/rasterizer.hpp"
#include "threedfa/roi.hpp"
#include "threedfa/shading.hpp"
#include "threedfa/span.hpp"
#include "threedfa/subdivision.hpp"
#include "threedfa/tensor_file.hpp"
#include "threedfa/text.hpp"
#include "threedfa/texture.hpp"
