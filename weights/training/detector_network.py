"""The face detector's network and its prior boxes.

It sees grey: without colours, too, it finds all faces of AFW, and a third as many numbers come in.
One strided 5 x 5 convolution, then depthwise separable blocks (Howard et al. 2017); predictions at
strides 16, 32 and 64 (SSD, Liu et al. 2016). One square prior an octave: a face is at most a
factor sqrt(2) away from its prior. The smallest priors stand four to a cell, 8 pixels apart, which
is much cheaper than a map of stride 8 (the densification of FaceBoxes, Zhang et al. 2017).

The cost lies in memory traffic rather than arithmetic: hence the stride of 4 at once, and channels
in multiples of 16, the width in which ONNX Runtime blocks them. What helps training for nothing at
run time: no ReLU after the depthwise convolutions, and a normalised identity beside each
convolution that keeps size and channels, which is folded into its weights (RepVGG, Ding et al.
2021). With both, 350 steps bring what took 1,200 without.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from network import exported_weights, unfold
from torch import Tensor, nn

from threedfa.priors import PriorConfig, PriorLevel, PriorSize

MEAN = 127.5
SCALE = 1 / 128  # the network sees (grey - MEAN) * SCALE
GREY = (15 / 128, 75 / 128, 38 / 128)  # of blue, green, red: threedfa/crop.hpp
VARIANCES = (0.1, 0.2)
PRIORS = PriorConfig(
    (
        PriorLevel(16, (PriorSize(14, 2, 0.0), PriorSize(28, 1, 0.0), PriorSize(56, 1, 0.0))),
        PriorLevel(32, (PriorSize(112, 1, 0.0),)),
        PriorLevel(64, (PriorSize(224, 1, 0.0), PriorSize(448, 1, 0.0))),
    )
)
STEM = 16  # channels after the first convolution, stride 4
# (channels, stride) of the blocks; a prediction is made after the last block of each of the levels
TRUNK = (
    ((32, 2), (32, 1), (80, 2), (80, 1), (80, 1), (80, 1)),
    ((128, 2), (128, 1), (128, 1)),
    ((128, 2), (128, 1)),
)
NUMBERS = 5  # of each prior: four offsets and a logit
LEAST_VARIANCE = 1e-2  # of a channel, when training is over


class ConvNorm(nn.Module):
    """Convolution to ceil(size / stride) and batch norm; where nothing changes size, plus the
    normalised input; ReLU unless it is depthwise."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(channels_out)
        same = stride == 1 and channels_in == channels_out
        self.identity = nn.BatchNorm2d(channels_in) if same else None
        self.relu = groups == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        if self.identity is not None:
            y = y + self.identity(x)
        return torch.relu(y) if self.relu else y

    @torch.no_grad()
    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution that this amounts to after training (float32)."""
        gain, bias = _linear(self.norm)
        weight = self.conv.weight.double() * gain[:, None, None, None]
        if self.identity is not None:
            gain, more = _linear(self.identity)
            out = torch.arange(len(gain))
            middle = self.conv.kernel_size[0] // 2
            weight[out, out % weight.shape[1], middle, middle] += gain
            bias = bias + more
        return weight.float(), bias.float()


def _linear(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A trained batch norm as gain and bias of each channel (float64)."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    gain = norm.weight.double() / (variance.double() + norm.eps).sqrt()
    return gain, norm.bias.double() - mean.double() * gain


def _block(channels_in: int, channels_out: int, stride: int) -> list[ConvNorm]:
    return [
        ConvNorm(channels_in, channels_in, 3, stride, channels_in),
        ConvNorm(channels_in, channels_out, 1, 1),
    ]


class Detector(nn.Module):
    """Pictures to offsets and logits.

    Input (N, 1, H, W) float32, any H and W. Outputs: (N, P, 4) offsets from the priors, as
    :func:`threedfa.ops.decode_boxes` takes them, and (N, P) logits, positive for a face, in the
    order of :func:`threedfa.ops.prior_boxes`.
    """

    def __init__(self) -> None:
        super().__init__()
        channels = STEM
        levels, heads = [], []
        layers: list[ConvNorm] = [ConvNorm(1, STEM, 5, 4)]
        for blocks, level in zip(TRUNK, PRIORS.levels, strict=True):
            for width, stride in blocks:
                layers += _block(channels, width, stride)
                channels = width
            levels.append(nn.Sequential(*layers))
            layers = []
            priors = sum(size.density**2 for size in level.sizes)
            heads.append(
                nn.Sequential(
                    ConvNorm(channels, channels, 3, 1, channels),
                    nn.Conv2d(channels, NUMBERS * priors, 1),
                )
            )
        self.levels = nn.ModuleList(levels)
        self.heads = nn.ModuleList(heads)
        for head in heads:  # at first nearly every prior is background
            bias = head[-1].bias.data.view(-1, NUMBERS)
            bias.zero_()
            bias[:, 4] = -4.0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rows = []
        for level, head in zip(self.levels, self.heads, strict=True):
            x = level(x)
            rows.append(head(x).permute(0, 2, 3, 1).reshape(len(x), -1, NUMBERS))
        out = torch.cat(rows, 1)
        return out[..., :4], out[..., 4]


@torch.no_grad()
def tame(network: Detector) -> None:
    """Take the force from channels that training never saw awake.

    Their measured variance is near zero, so batch norm multiplies what little a strange picture
    puts into them by hundreds, layer after layer. Ordinary pictures hardly change.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var.clamp_(min=LEAST_VARIANCE)


def normalize(pixels: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) BGR to the network's input."""
    grey = pixels.float() @ torch.tensor(GREY, device=pixels.device)
    return (grey[:, None] - MEAN) * SCALE


def load_detector(pack: Path) -> Detector:
    """The detector of a pack that ``make_pack.py`` put together, to train it further.

    Of what is folded away there, the norms' statistics must stay (in evaluation mode), and the
    identities beside convolutions begin at zero.

    Args:
        pack: the pack's folder.

    Raises:
        ValueError: if it is not this network.
    """
    path = pack / json.loads((pack / "pack.json").read_text())["detector"]["file"]
    weights = exported_weights(path)
    network = Detector()
    try:
        with torch.no_grad():
            for kind, parts in (("level", network.levels), ("head", network.heads)):
                for i, part in enumerate(parts):
                    for j, layer in enumerate(part):
                        name = f"{kind}{i}.{j}"
                        _fill(layer, weights[f"{name}.weight"], weights[f"{name}.bias"])
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{pack}: expected a network of export_detector.py: {error}") from error
    return network


def _fill(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Give a layer exported weights."""
    if isinstance(layer, nn.Conv2d):
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
        return
    assert isinstance(layer, ConvNorm)
    unfold(layer.conv, layer.norm, weight, bias)
    if layer.identity is not None:
        layer.identity.weight.zero_()
