"""The network that says whether a region shows a human face.

A small MobileNet (Howard et al. 2017) on 64 x 64 pixels. It sees the regressor's first region of
interest with something around it: what is on top of a muzzle, beside a wheel or below a mask tells
more than its middle.
"""

from __future__ import annotations

import torch
from detector_network import Convolution
from torch import Tensor, nn

SIDE = 64  # pixels of the input
ROI_SCALE = 1.3  # of the region seen, in sides of the regressor's region
MEAN = 127.5
SCALE = 1 / 64
BLOCKS = ((32, 1), (64, 2), (64, 1), (96, 2), (96, 1), (96, 1), (160, 2), (160, 1))


class Separable(nn.Module):
    """Depthwise 3 x 3 convolution, pointwise convolution, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels_in, channels_in, 3, stride, 1, groups=channels_in, bias=False
        )
        self.pointwise = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.pointwise(self.depthwise(x))))


class Presence(nn.Module):
    """Crops to logits: (N, 3, 64, 64) float32 BGR to (N,)."""

    def __init__(self) -> None:
        super().__init__()
        channels = 16
        layers: list[nn.Module] = [Convolution(3, channels, 5, 2)]
        for width, stride in BLOCKS:
            layers.append(Separable(channels, width, stride))
            channels = width
        self.trunk = nn.Sequential(*layers)
        self.drop = nn.Dropout(0.2)
        self.last = nn.Linear(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.drop(self.trunk(x).mean((2, 3))))[:, 0]
        return result


def normalize(pixels: Tensor) -> Tensor:
    """uint8 (N, 64, 64, 3) BGR to the network's input."""
    return (pixels.permute(0, 3, 1, 2).float() - MEAN) * SCALE


def count_parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def calibrate(logits: Tensor, truth: Tensor, weights: Tensor) -> tuple[float, float]:
    """Gain and shift under which sigmoid(gain * logit + shift) is a probability (Platt 1999).

    Args:
        logits: (N,) of held-out regions.
        truth: (N,) 1 for a face.
        weights: (N,) of each region.
    """
    values = torch.tensor([1.0, 0.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([values], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        error = nn.functional.binary_cross_entropy_with_logits(
            logits * values[0] + values[1], truth.float(), weight=weights
        )
        error.backward()
        return error

    optimizer.step(loss)
    gain, shift = (float(v) for v in values.detach())
    return gain, shift
