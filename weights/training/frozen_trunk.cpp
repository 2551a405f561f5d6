// What frozen_trunk.py has no fast PyTorch operator for: depthwise 3 x 3 convolutions with bias and
// ReLU, forward and backward, with the ReLU of the layer before, and the first layer's pixels as
// the rows of a matrix.
//
// Activations are bfloat16 (N, H, W, C), C a multiple of 16, padding 1; sums are float32. Sixteen
// channels at a time: their nine weights, and the nine sums of the weights' gradient, stay in
// registers.

#include <torch/extension.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <tuple>
#include <vector>

namespace {

constexpr int64_t kLanes = 16;
using Floats = float __attribute__((vector_size(4 * kLanes)));
using Words = uint32_t __attribute__((vector_size(4 * kLanes)));
using Halves = uint16_t __attribute__((vector_size(2 * kLanes)));

Floats load(const uint16_t* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  return reinterpret_cast<Floats>(__builtin_convertvector(halves, Words) << 16);
}

Floats load(const float* from) {
  Floats value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

void store(float* to, Floats value) { std::memcpy(to, &value, sizeof value); }

// Rounded to nearest, ties to even.
void store(uint16_t* to, Floats value) {
  const Words words = reinterpret_cast<Words>(value);
  const Halves halves =
      __builtin_convertvector((words + 0x7fff + ((words >> 16) & 1)) >> 16, Halves);
  std::memcpy(to, &halves, sizeof halves);
}

Floats where_positive(Floats decides, Floats value) {
  return reinterpret_cast<Floats>(reinterpret_cast<Words>(value) &
                                  reinterpret_cast<Words>(decides > 0));
}

Floats relu(Floats value) { return where_positive(value, value); }

const uint16_t* halves_of(const torch::Tensor& tensor) {
  TORCH_CHECK(tensor.scalar_type() == torch::kBFloat16 && tensor.is_contiguous(),
              "expected contiguous bfloat16");
  return static_cast<const uint16_t*>(tensor.data_ptr());
}

struct Layer {
  int64_t count, height, width, channels, stride, height_out, width_out;

  Layer(const torch::Tensor& x, const torch::Tensor& weight, int64_t stride_)
      : count(x.size(0)),
        height(x.size(1)),
        width(x.size(2)),
        channels(x.size(3)),
        stride(stride_),
        height_out((height - 1) / stride + 1),
        width_out((width - 1) / stride + 1) {
    TORCH_CHECK(channels % kLanes == 0, "expected a multiple of 16 channels, got ", channels);
    TORCH_CHECK(weight.scalar_type() == torch::kFloat && weight.is_contiguous() &&
                    weight.sizes() == torch::IntArrayRef({9, channels}),
                "expected contiguous float32 weights (9, C)");
  }
};

}  // namespace

// relu(conv(relu(x), weight) + bias): x (N, H, W, C) bfloat16, weight (9, C) and bias (C,) float32.
torch::Tensor forward(torch::Tensor x, torch::Tensor weight, torch::Tensor bias, int64_t stride) {
  const Layer layer(x, weight, stride);
  auto y =
      torch::empty({layer.count, layer.height_out, layer.width_out, layer.channels}, x.options());
  const uint16_t* in = halves_of(x);
  auto* out = static_cast<uint16_t*>(y.data_ptr());
  const float* weights = weight.data_ptr<float>();
  const float* biases = bias.data_ptr<float>();
  py::gil_scoped_release release;
  const int64_t column = layer.channels, row = layer.width * column;
  std::vector<float> padded((layer.height + 2) * (layer.width + 2) * kLanes, 0.0F);
  const int64_t padded_row = (layer.width + 2) * kLanes;
  for (int64_t n = 0; n < layer.count; ++n) {
    for (int64_t c = 0; c < layer.channels; c += kLanes) {
      for (int64_t y0 = 0; y0 < layer.height; ++y0) {
        float* to = padded.data() + (y0 + 1) * padded_row + kLanes;
        const uint16_t* from = in + (n * layer.height + y0) * row + c;
        for (int64_t x0 = 0; x0 < layer.width; ++x0)
          store(to + x0 * kLanes, relu(load(from + x0 * column)));
      }
      Floats w[9];
      for (int k = 0; k < 9; ++k) w[k] = load(weights + k * layer.channels + c);
      const Floats b = load(biases + c);
      for (int64_t yo = 0; yo < layer.height_out; ++yo) {
        const float* top = padded.data() + yo * stride * padded_row;
        uint16_t* to = out + (n * layer.height_out + yo) * layer.width_out * column + c;
        for (int64_t xo = 0; xo < layer.width_out; ++xo) {
          const float* corner = top + xo * stride * kLanes;
          Floats sum = b;
          for (int ky = 0; ky < 3; ++ky)
            for (int kx = 0; kx < 3; ++kx)
              sum += w[3 * ky + kx] * load(corner + ky * padded_row + kx * kLanes);
          store(to + xo * column, relu(sum));
        }
      }
    }
  }
  return y;
}

// Gradients of a loss for what made y = forward(x): from its gradient for y.
//
// `extra`, another gradient for relu(x), is added. Returns the gradients for x (N, H, W, C), its
// sum over all pixels (C,), and those of weight (9, C) and bias (C,), float32.
std::tuple<torch::Tensor, torch::Tensor, torch::Tensor, torch::Tensor> backward(
    torch::Tensor gradient, torch::Tensor y, torch::Tensor x, torch::Tensor weight, int64_t stride,
    std::optional<torch::Tensor> extra) {
  const Layer layer(x, weight, stride);
  auto for_x = torch::empty_like(x);
  auto for_weight = torch::zeros_like(weight);
  auto for_bias = torch::zeros({layer.channels}, weight.options());
  auto sums = torch::zeros({layer.channels}, weight.options());
  const uint16_t *in = halves_of(x), *out = halves_of(y), *slope = halves_of(gradient);
  const uint16_t* more = extra ? halves_of(*extra) : nullptr;
  auto* to_x = static_cast<uint16_t*>(for_x.data_ptr());
  float *to_weight = for_weight.data_ptr<float>(), *to_bias = for_bias.data_ptr<float>();
  float* to_sums = sums.data_ptr<float>();
  const float* weights = weight.data_ptr<float>();
  py::gil_scoped_release release;
  const int64_t column = layer.channels;
  const int64_t padded_row = (layer.width + 2) * kLanes;
  // The gradient before this layer's ReLU, with zeros between and around where it has a stride.
  std::vector<float> spread((layer.height + 2) * padded_row, 0.0F);
  for (int64_t n = 0; n < layer.count; ++n) {
    for (int64_t c = 0; c < layer.channels; c += kLanes) {
      Floats bias_sum = load(to_bias + c);
      for (int64_t yo = 0; yo < layer.height_out; ++yo) {
        const int64_t start = (n * layer.height_out + yo) * layer.width_out * column + c;
        float* to = spread.data() + (yo * stride + 1) * padded_row + kLanes;
        for (int64_t xo = 0; xo < layer.width_out; ++xo) {
          const Floats value =
              where_positive(load(out + start + xo * column), load(slope + start + xo * column));
          bias_sum += value;
          store(to + xo * stride * kLanes, value);
        }
      }
      store(to_bias + c, bias_sum);
      Floats w[9], for_w[9];
      for (int k = 0; k < 9; ++k) {
        w[k] = load(weights + k * layer.channels + c);
        for_w[k] = load(to_weight + k * layer.channels + c);
      }
      Floats sum = load(to_sums + c);
      for (int64_t yi = 0; yi < layer.height; ++yi) {
        const int64_t start = (n * layer.height + yi) * layer.width * column + c;
        const float* bottom = spread.data() + (yi + 2) * padded_row;
        for (int64_t xi = 0; xi < layer.width; ++xi) {
          const Floats value = load(in + start + xi * column), positive = relu(value);
          const float* corner = bottom + (xi + 2) * kLanes;
          Floats found = {};
          for (int ky = 0; ky < 3; ++ky) {
            for (int kx = 0; kx < 3; ++kx) {
              const Floats after = load(corner - ky * padded_row - kx * kLanes);
              found += w[3 * ky + kx] * after;
              for_w[3 * ky + kx] += positive * after;
            }
          }
          if (more != nullptr) found += load(more + start + xi * column);
          found = where_positive(value, found);
          sum += found;
          store(to_x + start + xi * column, found);
        }
      }
      store(to_sums + c, sum);
      for (int k = 0; k < 9; ++k) store(to_weight + k * layer.channels + c, for_w[k]);
    }
  }
  return {for_x, sums, for_weight, for_bias};
}

// Rows for a 3 x 3 convolution with stride 2 and padding 1 as a product of matrices: from uint8
// (N, H, W, 3), H and W even, to bfloat16 (N * H/2 * W/2, 32): (pixel - 127.5) / 128 of the nine
// pixels, row by row, then five zeros.
torch::Tensor rows(torch::Tensor images) {
  TORCH_CHECK(images.scalar_type() == torch::kByte && images.is_contiguous() && images.dim() == 4 &&
                  images.size(3) == 3 && images.size(1) % 2 == 0 && images.size(2) % 2 == 0,
              "expected contiguous uint8 (N, H, W, 3), H and W even");
  const int64_t count = images.size(0), height = images.size(1), width = images.size(2);
  auto result = torch::zeros({count * (height / 2) * (width / 2), 32},
                             images.options().dtype(torch::kBFloat16));
  const uint8_t* in = images.data_ptr<uint8_t>();
  auto* to = static_cast<uint16_t*>(result.data_ptr());
  py::gil_scoped_release release;
  uint16_t table[256];
  for (int value = 0; value < 256; ++value) {  // all are exact: at most eight bits
    const float scaled = (static_cast<float>(value) - 127.5F) / 128.0F;
    uint32_t bits;
    std::memcpy(&bits, &scaled, sizeof bits);
    table[value] = static_cast<uint16_t>(bits >> 16);
  }
  for (int64_t n = 0; n < count; ++n) {
    for (int64_t y = 0; y < height; y += 2) {
      for (int64_t x = 0; x < width; x += 2, to += 32) {
        for (int64_t ky = 0; ky < 3; ++ky) {
          const int64_t yi = y + ky - 1;
          if (yi < 0) continue;
          for (int64_t kx = x == 0 ? 1 : 0; kx < 3; ++kx) {
            const uint8_t* pixel = in + ((n * height + yi) * width + x + kx - 1) * 3;
            for (int64_t c = 0; c < 3; ++c) to[(ky * 3 + kx) * 3 + c] = table[pixel[c]];
          }
        }
      }
    }
  }
  return result;
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  module.def("rows", &rows);
  module.def("forward", &forward);
  module.def("backward", &backward);
}
