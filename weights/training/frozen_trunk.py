"""The regressor's trunk with the statistics of its batch norms frozen, fast on a CPU.

A batch norm with frozen statistics is a gain and an offset for each channel, so every layer is a
convolution, a bias and a ReLU, with nothing to measure in between. Layers run on bfloat16
activations (N, H, W, C): pointwise ones as products of matrices, depthwise ones in
``frozen_trunk.cpp`` together with the ReLUs before and after them; gradients are written out by
hand. More than twice as many crops a second as with PyTorch's own layers and moving statistics.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from network import STRIDES, TAPS, Regressor, folded
from torch import Tensor, nn
from torch.utils.cpp_extension import load


@cache
def _kernels() -> Any:
    """The compiled layers; the first call on a machine takes half a minute and needs ninja."""
    source = Path(__file__).with_suffix(".cpp")
    return load("threedfa_frozen_trunk", [str(source)], extra_cflags=["-O3", "-march=native"])


def _layers(network: Regressor) -> list[Tensor]:
    """Weights and biases of all layers, as :class:`_Trunk` takes them."""
    weight, bias = folded(network.stem, network.stem_norm)
    weight = weight.permute(0, 2, 3, 1).flatten(1)  # as the kernels' rows
    found = [nn.functional.pad(weight, (0, 5)).bfloat16(), bias.bfloat16()]
    for i, block in enumerate(network.blocks):
        weight, bias = folded(block.depthwise, block.depthwise_norm)
        found += [weight.flatten(1).t().contiguous(), bias]
        weight, bias = folded(block.pointwise, block.pointwise_norm)
        found += [weight.flatten(1).bfloat16(), bias.bfloat16()]
        if i in TAPS:
            tap = network.taps[str(i)]
            found += [tap.weight.flatten(1).bfloat16(), tap.bias.bfloat16()]
    return found


class _Trunk(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, *layers: Tensor) -> Tensor:
        kernels, rest = _kernels(), list(layers)
        count, side = len(images), images.shape[1] // 2
        rows = kernels.rows(images)
        x = nn.functional.linear(rows, *rest[:2]).view(count, side, side, -1)
        del rest[:2]
        inputs, middles, outputs, maps = [], [], [], []
        for i, stride in enumerate(STRIDES):
            inputs.append(x)
            y = kernels.forward(x, *rest[:2], stride)
            middles.append(y)
            x = nn.functional.linear(y, *rest[2:4])
            outputs.append(x)
            del rest[:4]
            if i in TAPS:
                tap = nn.functional.linear(x.relu(), *rest[:2]).flatten(1, 2)
                maps.append(tap.transpose(1, 2).flatten(1).float())
                del rest[:2]
        ctx.layers, ctx.rows = layers, rows
        ctx.inputs, ctx.middles, ctx.outputs = inputs, middles, outputs
        return torch.cat([x.relu().float().mean((1, 2)), *maps], 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        kernels, (gradient,) = _kernels(), gradients
        last = ctx.outputs[-1]
        count = len(last)
        sizes = [side * side * kept for side, kept in TAPS.values()]
        mean, *maps = gradient.split([last.shape[3], *sizes], 1)
        for_tap = dict(zip(TAPS, maps, strict=True))
        rest = list(ctx.layers)
        found: list[Tensor] = []  # gradients of the layers, last first

        def through_tap(i: int) -> Tensor:
            """The gradient that comes to a block's output by its tap."""
            _, weight = rest.pop(), rest.pop()
            slope = for_tap[i].reshape(count, TAPS[i][1], -1).transpose(1, 2).flatten(0, 1)
            found.append(slope.sum(0).bfloat16())
            slope = slope.bfloat16()
            x = ctx.outputs[i]
            found.append(slope.t() @ x.relu().flatten(0, 2))
            return (slope @ weight).view(x.shape)

        end = len(STRIDES) - 1
        slope = (mean / (last.shape[1] * last.shape[2])).bfloat16()[:, None, None]
        slope = slope + through_tap(end)
        slope = torch.where(last > 0, slope, 0)
        sums = slope.float().sum((0, 1, 2))
        for i in range(end, -1, -1):
            _, weight = rest.pop(), rest.pop()
            y, x = ctx.middles[i], ctx.inputs[i]
            flat = slope.flatten(0, 2)
            found += [sums.bfloat16(), flat.t() @ y.flatten(0, 2)]
            slope = (flat @ weight).view(y.shape)
            _, weight = rest.pop(), rest.pop()
            extra = through_tap(i - 1) if i - 1 in TAPS else None
            slope, sums, for_weight, for_bias = kernels.backward(
                slope, y, x, weight, STRIDES[i], extra
            )
            # Bias and weight of this depthwise layer precede the tap's in the order of layers.
            place = len(found) - (2 if extra is not None else 0)
            found[place:place] = [for_bias, for_weight]
        found += [sums.bfloat16(), slope.flatten(0, 2).t() @ ctx.rows]
        return (None, *reversed(found))


def features(network: Regressor, images: Tensor) -> Tensor:
    """What ``network.features`` gives in evaluation, with gradients for its parameters.

    Args:
        network: on the CPU; channels in multiples of 16.
        images: uint8 (B, 120, 120, 3) BGR.

    Returns:
        (B, F) float32, from bfloat16 activations.
    """
    found: Tensor = _Trunk.apply(images, *_layers(network))
    return found
