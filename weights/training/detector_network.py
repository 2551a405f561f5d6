"""The face detector's network and its prior boxes.

YuNet (Wu et al. 2023) with its pools moved forward. YuNet spends two thirds of its time at strides
2 and 4. Here one 5 x 5 convolution of stride 4 stands for its first two, and the two units of 64
channels that YuNet runs at stride 4 run at stride 8; the rest is YuNet's, unit by unit: a pointwise
and a depthwise convolution each, maps at strides 8, 16 and 32 (and 64, for faces as large as the
image), the coarse ones added to the finer ones, one box and one logit a cell. So the weights can
begin as YuNet's; the front then learns to give what YuNet's gives. A front of two layers only, half
as costly, was tried and is not enough (README.md).

A cell answers with the offsets of its box from a prior of the size of the cell (YuNet's decoding in
the words of SSD, Liu et al. 2016).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
import torch
from network import exported_weights
from torch import Tensor, nn

from threedfa.priors import PriorConfig, PriorLevel, PriorSize

STRIDES = (8, 16, 32, 64)
MERGED = 3  # levels that get the coarser map, as in YuNet; the coarsest of all is on its own
DIVISOR = STRIDES[-1]  # height and width of the input must be multiples of it
PRIORS = PriorConfig(tuple(PriorLevel(s, (PriorSize(s, 1, 0.0),)) for s in STRIDES))
VARIANCES = (1.0, 1.0)
STEM = 16  # channels of the first convolution and unit
WIDTH = 64  # of all others, as YuNet has
NUMBERS = 5  # of each cell: four offsets and a logit
MEAN = 127.5  # of each of blue, green and red
SCALE = 1 / 64


class Convolution(nn.Module):
    """Convolution, batch norm and ReLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))


class Unit(nn.Module):
    """YuNet's unit: pointwise convolution, depthwise 3 x 3 convolution, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(channels_in, channels_out, 1)
        self.depthwise = nn.Conv2d(channels_out, channels_out, 3, 1, 1, groups=channels_out)
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.depthwise(self.pointwise(x))))


class Head(nn.Module):
    """Offsets and logit of each cell."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(channels, NUMBERS, 1)
        self.depthwise = nn.Conv2d(NUMBERS, NUMBERS, 3, 1, 1, groups=NUMBERS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.pointwise(x))
        return x.permute(0, 2, 3, 1).reshape(len(x), -1, NUMBERS)


class Detector(nn.Module):
    """Images to offsets and logits.

    Input (N, 3, H, W) float32, H and W multiples of ``DIVISOR``. Outputs: (N, P, 4) offsets from
    the priors, as :func:`threedfa.ops.decode_boxes` takes them, and (N, P) logits, positive for a
    face, in the order of :func:`threedfa.ops.prior_boxes`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, STEM, 5, 4)
        self.fine = nn.Sequential(Unit(STEM, STEM), Unit(STEM, WIDTH))  # at stride 4
        self.coarse = nn.Sequential(Unit(WIDTH, WIDTH), Unit(WIDTH, WIDTH))  # at stride 8
        self.levels = nn.ModuleList(
            nn.Sequential(Unit(WIDTH, WIDTH), Unit(WIDTH, WIDTH)) for _ in STRIDES
        )
        self.merges = nn.ModuleList(Unit(WIDTH, WIDTH) for _ in STRIDES)
        self.towers = nn.ModuleList(Unit(WIDTH, WIDTH) for _ in STRIDES)
        self.heads = nn.ModuleList(Head(WIDTH) for _ in STRIDES)

    def front(self) -> list[nn.Module]:
        """The parts up to the first map at stride 8."""
        return [self.stem, self.fine, self.coarse]

    def behind_front(self) -> list[nn.Module]:
        """All others."""
        return [self.levels, self.merges, self.towers, self.heads]

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The front's maps at strides 4 (16 channels) and 8."""
        first = self.stem(x)
        return first, self.coarse(nn.functional.max_pool2d(self.fine(first), 2))

    def rows(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs from the front's map."""
        maps = []
        for i, level in enumerate(self.levels):
            x = level(x if i == 0 else nn.functional.max_pool2d(x, 2))
            maps.append(x)
        merged, found = maps[-1], []
        for i in reversed(range(len(STRIDES))):
            if i < MERGED - 1:
                merged = maps[i] + nn.functional.interpolate(merged, scale_factor=2.0)
            else:
                merged = maps[i]
            merged = self.merges[i](merged)
            found.append(self.heads[i](self.towers[i](merged)))
        out = torch.cat(found[::-1], 1)
        return out[..., :4], out[..., 4]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.rows(self.features(x)[1])


def normalize(pixels: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) BGR to the network's input."""
    return (pixels.permute(0, 3, 1, 2).float() - MEAN) * SCALE


# --- YuNet ----------------------------------------------------------------------------------------


class YuNetUnit(nn.Module):
    """A unit of YuNet as its file has it, the norm folded into the depthwise convolution."""

    def __init__(self, pointwise: nn.Conv2d, depthwise: nn.Conv2d) -> None:
        super().__init__()
        self.pointwise = pointwise
        self.depthwise = depthwise

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.depthwise(self.pointwise(x)))


class YuNetFront(nn.Module):
    """YuNet up to stride 8: what the own front learns to give.

    Input uint8 (N, H, W, 3) BGR; outputs (N, 16, H / 4, W / 4) and (N, 64, H / 8, W / 8).
    """

    def __init__(self, stem: nn.Conv2d, units: dict[str, YuNetUnit]) -> None:
        super().__init__()
        self.stem = stem
        self.unit0 = units["model0.conv2"]
        self.block1 = nn.Sequential(units["model1.conv1"], units["model1.conv2"])
        self.block2 = nn.Sequential(units["model2.conv1"], units["model2.conv2"])

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = pixels.permute(0, 3, 1, 2).float()
        first = nn.functional.max_pool2d(self.unit0(torch.relu(self.stem(x))), 2)
        return first, nn.functional.max_pool2d(self.block2(self.block1(first)), 2)


def read_yunet(path: Path) -> tuple[nn.Conv2d, dict[str, YuNetUnit]]:
    """The first convolution and the units of YuNet's ONNX file (``yunet_n``), by their names.

    Raises:
        ValueError: if the file has no such units.
    """
    graph = onnx.load(path).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == "Conv"]
    convolutions = []
    for node in nodes:
        weight, bias = (torch.from_numpy(arrays[name].copy()) for name in node.input[1:3])
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        groups, kernel = given["group"], weight.shape[-1]
        conv = nn.Conv2d(
            weight.shape[1] * groups, len(weight), kernel, given["strides"], kernel // 2, 1, groups
        )
        conv.load_state_dict({"weight": weight, "bias": bias})
        convolutions.append(conv)
    units = {}
    for i, node in enumerate(nodes[:-1]):
        name = node.input[1]
        if name.endswith(".conv1.weight"):  # its depthwise one follows
            units[name.removesuffix(".conv1.weight").partition(".")[2]] = YuNetUnit(
                convolutions[i], convolutions[i + 1]
            )
    if not units:
        raise ValueError(f"{path}: expected yunet_n, found no unit of it")
    return convolutions[0], units


@torch.no_grad()
def begin_from_yunet(network: Detector, path: Path) -> YuNetFront:
    """Give a network YuNet's weights from stride 8 on; the front is what remains to be learnt.

    The norms, which YuNet's file does not have, are set by :func:`measure_norms`.

    Args:
        network: fresh.
        path: YuNet's ONNX file (`yunet_n`, 640 x 640 or any other size).

    Returns:
        YuNet's own front.

    Raises:
        ValueError: if the file is not YuNet's.
    """
    stem, units = read_yunet(path)
    try:
        for k in range(2):
            _copy_unit(network.fine[k], units[f"model1.conv{k + 1}"])
            _copy_unit(network.coarse[k], units[f"model2.conv{k + 1}"])
        for i in range(len(STRIDES)):
            j = min(i, 2)
            for k in range(2):
                _copy_unit(network.levels[i][k], units[f"model{3 + j}.conv{k + 1}"])
            _copy_unit(network.merges[i], units[f"lateral_convs.{j}"])
            _copy_unit(network.towers[i], units[f"multi_level_share_convs.{j}.0"])
            box, score, thing = (units[f"multi_level_{k}.{j}"] for k in ("bbox", "cls", "obj"))
            head = network.heads[i]
            for part in ("pointwise", "depthwise"):
                into, of_box = getattr(head, part), getattr(box, part)
                one, other = getattr(score, part), getattr(thing, part)
                # sqrt(sigmoid(a) sigmoid(b)) is about sigmoid((a + b) / 2)
                into.bias.copy_(torch.cat([of_box.bias, (one.bias + other.bias) / 2]))
                into.weight.copy_(torch.cat([of_box.weight, (one.weight + other.weight) / 2]))
    except KeyError as error:
        raise ValueError(f"{path}: expected yunet_n, which has {error}") from error
    return YuNetFront(stem, units).eval()


def _copy_unit(unit: nn.Module, source: YuNetUnit) -> None:
    for part in ("pointwise", "depthwise"):
        getattr(unit, part).load_state_dict(getattr(source, part).state_dict())


@torch.no_grad()
def measure_norms(parts: Sequence[nn.Module], run: Callable[[], object]) -> None:
    """Let fresh norms change nothing of what they are given while ``run`` runs, but add their bias.

    Each one's gain becomes the deviation that it measures, its mean is added to its bias; so a
    network of folded weights can be trained on with batch norm.

    Args:
        parts: the modules whose norms are set.
        run: uses all of them, in evaluation mode.
    """

    def set_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3))
        variance = variance.clamp(min=1e-6)
        module.weight.copy_((variance + module.eps).sqrt())
        module.bias.add_(mean)
        assert module.running_mean is not None and module.running_var is not None
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)

    hooks = [
        module.register_forward_pre_hook(set_norm)
        for part in parts
        for module in part.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    run()
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def load_detector(pack: Path, images: Tensor) -> Detector:
    """The detector of a pack that ``make_pack.py`` put together, to train it further.

    Args:
        pack: the pack's folder.
        images: the network's input for some images, by which the norms are set.

    Raises:
        ValueError: if it is not this network.
    """
    path = pack / json.loads((pack / "pack.json").read_text())["detector"]["file"]
    weights = exported_weights(path)
    network = Detector()
    parts = {"stem": network.stem, "fine": network.fine, "coarse": network.coarse}
    for kind, modules in (("level", network.levels), ("merge", network.merges)):
        parts |= {f"{kind}{i}": module for i, module in enumerate(modules)}
    parts |= {f"tower{i}": module for i, module in enumerate(network.towers)}
    parts |= {f"head{i}": module for i, module in enumerate(network.heads)}
    try:
        for name, part in parts.items():
            for key, module in part.named_modules():
                if isinstance(module, nn.Conv2d):
                    module.weight.copy_(weights[f"{name}.{key}.weight"])
                    if module.bias is not None:
                        module.bias.copy_(weights[f"{name}.{key}.bias"])
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{pack}: expected a network of export_detector.py: {error}") from error
    network.stem.norm.bias.copy_(weights["stem.conv.bias"])  # its convolution has none in training
    measure_norms([network], lambda: network.eval()(images))
    return network
