"""The regressor's network, and how it starts from a trained trunk.

MobileNet-V1 (Howard et al. 2017) at half width, as upstream's ``mb05``, for 120 x 120 pixels. Two
things are different: beside the global average, the last layer sees small maps of three resolutions
with their positions kept (averages lose where things are), and one more output says whether the
crop holds a well aligned face. 50 million multiply-adds, so two passes cost less than one of
upstream's ``mb1`` (183 million).
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

INPUT_SIZE = 120
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)  # of the 13 depthwise blocks
CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)  # at width 1
TAPS = {4: (15, 6), 10: (8, 24), 12: (4, 48)}  # after block: side of the map, channels kept


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

    def __init__(self, param_count: int, width: float = 0.5) -> None:
        super().__init__()
        self.param_count = param_count
        self.width = width
        channels = [int(c * width) for c in (32, *CHANNELS)]
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
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def features(self, x: Tensor) -> Tensor:
        """(N, F) what the last layer sees: the global average first, then the small maps."""
        x = torch.relu(self.stem_norm(self.stem(x)))
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if str(i) in self.taps:
                maps.append(torch.relu(self.taps[str(i)](x)).flatten(1))
        return torch.cat([x.mean((2, 3)), *maps], 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        with torch.autocast(x.device.type, enabled=False):  # 8 bits would round off pixels
            out = self.head(features.float())
        return out[:, : self.param_count], out[:, self.param_count :]


def load_trunk(network: Regressor, path: Path, crops: Tensor) -> None:
    """Start the convolutions from an ONNX network of the same trunk.

    Batch norm is folded away in ONNX. Here each layer's statistics are measured on ``crops``
    (N, 3, 120, 120) and its scale and offset set so that the layer computes what it computed, in
    training as in evaluation.

    Raises:
        ValueError: if the convolutions do not fit one by one.
    """
    graph = onnx.load(path).graph
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    folded = [
        [torch.from_numpy(np.array(weights[name])) for name in node.input[1:3]]
        for node in graph.node
        if node.op_type == "Conv"
    ]
    layers: list[tuple[nn.Module, nn.Module]] = [(network.stem, network.stem_norm)]
    for block in network.blocks:
        layers += [
            (block.depthwise, block.depthwise_norm),
            (block.pointwise, block.pointwise_norm),
        ]
    found, expected = [f[0].shape for f in folded], [conv.weight.shape for conv, _ in layers]
    if found != expected:
        raise ValueError(
            f"{path}: expected convolutions {expected}, got {found}; is it this trunk?"
        )
    with torch.no_grad():
        x = crops
        for (conv, norm), (weight, bias) in zip(layers, folded, strict=True):
            conv.weight.copy_(weight)
            x = conv(x)
            variance, mean = torch.var_mean(x, (0, 2, 3), unbiased=False)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.copy_((variance + norm.eps).sqrt())
            norm.bias.copy_(mean + bias)
            x = torch.relu(x + bias[:, None, None])


def fit_head(network: Regressor, features: Tensor, targets: Tensor, ridge: float = 1.0) -> None:
    """Set the last layer to the least-squares map from the global average to the targets.

    For a network whose trunk is already trained: without it the first steps on a random last layer
    spoil the trunk. The small maps start with weight zero.

    Args:
        features: (N, F) from ``network.features``.
        targets: (N, P) normalised parameters.
        ridge: added to the diagonal of the normal equations.
    """
    used = network.blocks[-1].pointwise.out_channels
    with torch.no_grad():
        x = features[:, :used].double()
        center_x, center_y = x.mean(0), targets.double().mean(0)
        x = x - center_x
        gram = x.T @ x + ridge * torch.eye(used, dtype=x.dtype, device=x.device)
        weight = torch.linalg.solve(gram, x.T @ (targets.double() - center_y)).T
        network.head.weight.zero_()
        network.head.bias.zero_()
        network.head.weight[:-1, :used] = weight.float()
        network.head.bias[:-1] = (center_y - weight @ center_x).float()
