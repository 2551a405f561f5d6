"""The regressor's trunk with frozen statistics against PyTorch's own layers."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from training_steps import tool

torch = pytest.importorskip("torch", reason="training needs torch: pip install 'threedfa[train]'")
if shutil.which("ninja") is None or shutil.which("c++") is None:
    pytest.skip("needs ninja and a C++ compiler", allow_module_level=True)


@pytest.fixture(scope="module")
def trunk() -> Any:
    return tool("frozen_trunk")


def whole(low: int, high: int, *shape: int, seed: int) -> Any:
    """Whole numbers, so small that bfloat16 and float32 sums of them are exact."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high + 1, shape, generator=generator).float()


@pytest.mark.parametrize("side, channels, stride", [(6, 16, 1), (7, 32, 1), (8, 16, 2), (5, 48, 2)])
def test_depthwise_layer_is_torchs(trunk: Any, side: int, channels: int, stride: int) -> None:
    kernels = trunk._kernels()
    x = whole(-2, 2, 3, side, side, channels, seed=1)
    weight = whole(-1, 1, 9, channels, seed=2)
    bias = whole(-3, 3, channels, seed=3)
    before = x.permute(0, 3, 1, 2).clone().requires_grad_()
    filters = weight.t().reshape(channels, 1, 3, 3).clone().requires_grad_()
    offset = bias.clone().requires_grad_()
    after = torch.relu(
        torch.nn.functional.conv2d(torch.relu(before), filters, offset, stride, 1, groups=channels)
    )
    found = kernels.forward(x.bfloat16(), weight, bias, stride)
    assert (found.float() == after.permute(0, 2, 3, 1)).all()

    slope = whole(-1, 1, *found.shape, seed=4)
    extra = whole(-1, 1, *x.shape, seed=5)
    loss = (after.permute(0, 2, 3, 1) * slope).sum()
    loss = loss + (torch.relu(before).permute(0, 2, 3, 1) * extra).sum()
    loss.backward()
    for_x, sums, for_weight, for_bias = kernels.backward(
        slope.bfloat16(), found, x.bfloat16(), weight, stride, extra.bfloat16()
    )
    expected = before.grad.permute(0, 2, 3, 1)
    assert (for_x.float() == expected).all()
    assert (sums == expected.sum((0, 1, 2))).all()
    assert (for_weight.t().reshape(channels, 1, 3, 3) == filters.grad).all()
    assert (for_bias == offset.grad).all()


def test_first_layer_sees_the_pixels_around_each(trunk: Any) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 6, 3), np.uint8)
    rows = trunk._kernels().rows(torch.from_numpy(images)).float()
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127.5) / 128
    expected = torch.nn.functional.unfold(x, 3, padding=1, stride=2)  # (N, 27, 12), channel first
    expected = expected.reshape(2, 3, 9, 12).permute(0, 3, 2, 1).reshape(24, 27)
    assert (rows[:, :27] == expected).all()
    assert (rows[:, 27:] == 0).all()


def test_trunk_has_the_values_and_gradients_of_the_network(trunk: Any) -> None:
    torch.manual_seed(0)
    network = tool("network").Regressor(20, 0.5)
    images = torch.randint(0, 256, (6, 120, 120, 3), dtype=torch.uint8)
    x = (images.permute(0, 3, 1, 2).float() - 127.5) / 128
    for _ in range(20):
        network(x)  # for the statistics
    network.frozen = True
    network.train()

    def gradients(features: Any) -> dict[str, Any]:
        network.zero_grad()
        features.square().sum().backward()
        return {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}

    expected, found = network.features(x), trunk.features(network, images)
    missed = (found - expected).detach().norm() / expected.detach().norm()
    assert float(missed) < 0.01  # bfloat16 has 8 bits
    wanted, got = gradients(expected), gradients(found)
    assert (
        wanted.keys()
        == got.keys()
        == set(dict(network.named_parameters()))
        - {
            "head.weight",
            "head.bias",
        }
    )
    for name, slope in wanted.items():
        cosine = torch.nn.functional.cosine_similarity(slope.flatten(), got[name].flatten(), dim=0)
        assert float(cosine) > 0.95, name
        assert float(got[name].norm() / slope.norm()) == pytest.approx(1, abs=0.1), name
