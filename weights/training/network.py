"""The regressor's network, and how it starts from an exported one.

MobileNet-V1 (Howard et al. 2017) for 120 x 120 pixels, at half width as upstream's ``mb05`` or a
little wider. Two things are different: beside the global average, the last layer sees small maps of
three resolutions with their positions kept (averages lose where things are; no ReLU, behind which
maps could die), and one more output says whether the crop holds a well aligned face. At half width
50 million multiply-adds, at 0.625 71 million, so two passes cost less than one of upstream's
``mb1`` (183 million).
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

INPUT_SIZE = 120
WIDTH = 0.5  # of the shipped network
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)  # of the 13 depthwise blocks
STEM_CHANNELS = 32  # at width 1
CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)  # at width 1
DISTURBANCE = 0.5  # of a new channel's filter, times the deviation of its layer's weights
BLOCK = 16  # channels come in multiples of it, up to which ONNX Runtime would fill them anyway
TAPS = {4: (15, 8), 10: (8, 32), 12: (4, 64)}  # after block: side of the map, channels kept


def channel_counts(width: float) -> list[int]:
    """Channels of the stem and of the blocks."""
    counts = (STEM_CHANNELS, *CHANNELS)
    return [BLOCK * max(1, round(count * width / BLOCK)) for count in counts]


class _Block(nn.Module):
    """Depthwise 3 x 3, then pointwise convolution, each with batch norm and ReLU."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels_in, channels_in, 3, stride, 1, groups=channels_in, bias=False
        )
        self.depthwise_norm = nn.BatchNorm2d(channels_in)
        self.pointwise = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        if self.depthwise.stride == (1, 1):
            x = self.depthwise(x)
        else:  # the gradient of strided ones is ten times slower in bfloat16
            with torch.autocast(x.device.type, enabled=False):
                x = self.depthwise(x.float())
        x = torch.relu(self.depthwise_norm(x))
        return torch.relu(self.pointwise_norm(self.pointwise(x)))


class Regressor(nn.Module):
    """Crops to parameters and a confidence.

    Input (N, 3, 120, 120) float32, BGR, ``(pixel - 127.5) / 128``. Outputs: (N, P) parameters,
    of which ``output * param_std + param_mean`` is in the frame of the crop, and (N, 1) a logit,
    positive where the crop holds a face about where the region rule puts it.
    """

    def __init__(self, param_count: int, width: float = WIDTH) -> None:
        super().__init__()
        self.param_count = param_count
        self.width = width
        self.frozen = False  # whether the batch norms' statistics stay as they are
        channels = channel_counts(width)
        self.stem = nn.Conv2d(3, channels[0], 3, 2, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels[0])
        self.blocks = nn.ModuleList(
            _Block(a, b, stride) for (a, b), stride in zip(pairwise(channels), STRIDES, strict=True)
        )
        self.taps = nn.ModuleDict(
            {str(i): nn.Conv2d(channels[i + 1], kept, 1) for i, (_, kept) in TAPS.items()}
        )
        features = channels[-1] + sum(side * side * kept for side, kept in TAPS.values())
        self.head = nn.Linear(features, param_count + 1)
        self.register_buffer("param_mean", torch.zeros(param_count))
        self.register_buffer("param_std", torch.ones(param_count))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for tap in self.taps.values():
            nn.init.normal_(tap.weight, std=0.1 * tap.in_channels**-0.5)
            nn.init.zeros_(tap.bias)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def train(self, mode: bool = True) -> Regressor:
        """As torch's, but frozen statistics stay."""
        super().train(mode)
        if self.frozen:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def features(self, x: Tensor) -> Tensor:
        """(N, F) what the last layer sees: the global average first, then the small maps."""
        x = torch.relu(self.stem_norm(self.stem(x)))
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if str(i) in self.taps:
                maps.append(self.taps[str(i)](x).flatten(1))
        return torch.cat([x.mean((2, 3)), *maps], 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.outputs(self.features(x))

    def outputs(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The last layer."""
        with torch.autocast(features.device.type, enabled=False):  # 8 bits would round off pixels
            out = self.head(features.float())
        return out[:, : self.param_count], out[:, self.param_count :]


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that both are while the norm's statistics stay."""
    gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return conv.weight * gain[:, None, None, None], norm.bias - norm.running_mean * gain


def unfold(conv: nn.Conv2d, norm: nn.BatchNorm2d, filters: Tensor, bias: Tensor) -> None:
    """Give both what :func:`folded` made of them: the norm becomes the identity for statistics that
    stay, with the scale of the filters as its gain, so that all filters begin alike."""
    gain = filters.square().sum((1, 2, 3)).clamp(min=1e-8).sqrt()
    conv.weight.copy_(filters / gain[:, None, None, None])
    norm.weight.copy_(gain)
    norm.bias.copy_(bias)
    assert norm.running_var is not None
    norm.running_var.fill_(1 - norm.eps)


def exported_weights(path: Path) -> dict[str, Tensor]:
    """The weights in an ONNX file, by their names there."""
    return {
        tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).astype(np.float32))
        for tensor in onnx.load(path).graph.initializer
    }


def widened(weights: dict[str, Tensor], width: float, seed: int) -> dict[str, Tensor]:
    """Exported weights for a wider network that computes the same.

    A new channel is a disturbed copy of an old one to which no layer listens yet (after Net2Net,
    Chen et al. 2016, whose copies take over a part of the old channel's work).

    Raises:
        ValueError: if the network is wider already.
    """
    generator = torch.Generator().manual_seed(seed)
    stem, *counts = channel_counts(width)
    layers = [("stem", stem)]
    for i, count in enumerate(counts):
        layers += [(f"block{i}.depthwise", 0), (f"block{i}.pointwise", count)]
    result = dict(weights)
    origin = torch.arange(3)  # the old channel that each channel is, or is a copy of
    for name, count in layers:
        old, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        inputs = len(origin)
        if count:  # else depthwise
            if count < len(old):
                raise ValueError(f"{name}: expected at most {count} channels, got {len(old)}")
            copies = torch.randint(len(old), (count - len(old),), generator=generator)
            origin = torch.cat([torch.arange(len(old)), copies])
        noise = (
            DISTURBANCE * old.std() * torch.randn(len(origin), *old.shape[1:], generator=generator)
        )
        noise[: len(old)] = 0
        filters = old[origin] + noise
        result[f"{name}.weight"] = _deaf(filters, inputs) if count else filters
        result[f"{name}.bias"] = bias[origin]
    for i in TAPS:
        result[f"tap{i}.weight"] = _deaf(weights[f"tap{i}.weight"], counts[i])
    for name in ("params.weight", "confidence.weight"):  # channels first, then the taps' maps
        channels, maps = weights[name].split([len(bias), weights[name].shape[1] - len(bias)], 1)
        result[name] = torch.cat([_deaf(channels, counts[-1]), maps], 1)
    return result


def _deaf(filters: Tensor, inputs: int) -> Tensor:
    """Filters that take more inputs and do not listen to the new ones."""
    added = filters.new_zeros(len(filters), inputs - filters.shape[1], *filters.shape[2:])
    return torch.cat([filters, added], 1)


def load_network(pack: Path, width: float | None = None, seed: int = 1) -> Regressor:
    """The regressor of a pack that ``make_pack.py`` put together, to train it further.

    Batch norms are folded away there; here their statistics stay (``frozen``).

    Args:
        pack: the pack's folder.
        width: to widen it to; without one it stays as wide as it is.
        seed: for new channels.

    Raises:
        ValueError: if it is not this network, or wider than ``width``.
    """
    entry = json.loads((pack / "pack.json").read_text())["regressor"]
    weights = exported_weights(pack / entry["file"])
    try:
        if width is None:
            width = len(weights[f"block{len(CHANNELS) - 1}.pointwise.weight"]) / CHANNELS[-1]
        else:
            weights = widened(weights, width, seed)
        network = Regressor(len(entry["param_mean"]), width)
        with torch.no_grad():
            _fill(network, weights)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{pack}: expected a network of export.py: {error}") from error
    network.param_mean.copy_(torch.tensor(entry["param_mean"]))
    network.param_std.copy_(torch.tensor(entry["param_std"]))
    network.frozen = True
    return network


def _fill(network: Regressor, weights: dict[str, Tensor]) -> None:
    """Give the network exported weights, by the names they have there."""
    layers: dict[str, tuple[nn.Conv2d, nn.BatchNorm2d]] = {
        "stem": (network.stem, network.stem_norm)
    }
    for i, block in enumerate(network.blocks):
        layers[f"block{i}.depthwise"] = (block.depthwise, block.depthwise_norm)
        layers[f"block{i}.pointwise"] = (block.pointwise, block.pointwise_norm)
    for name, (conv, norm) in layers.items():
        unfold(conv, norm, weights[f"{name}.weight"], weights[f"{name}.bias"])
    for i, tap in network.taps.items():
        tap.weight.copy_(weights[f"tap{i}.weight"])
        tap.bias.copy_(weights[f"tap{i}.bias"])
    for part, rows in (("params", slice(0, -1)), ("confidence", slice(-1, None))):
        network.head.weight[rows] = weights[f"{part}.weight"]
        network.head.bias[rows] = weights[f"{part}.bias"]
