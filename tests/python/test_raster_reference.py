"""Rasterizer and normals against Sim3DR's results on a random mesh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from threedfa import ops

Reference = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def mesh() -> Reference:
    path = Path(__file__).parents[1] / "data" / "render_synthetic.npz"
    with np.load(path) as stored:
        return dict(stored)


def test_normals(mesh: Reference) -> None:
    normals = ops.vertex_normals(mesh["vertices"], mesh["triangles"])
    np.testing.assert_allclose(normals, mesh["normals"], atol=1e-6)


def test_depth_and_colours(mesh: Reference) -> None:
    height, width = mesh["depth"].shape
    raster = ops.rasterize(
        mesh["vertices"],
        mesh["triangles"],
        height,
        width,
        attributes=mesh["colours"] * 255,
        background=mesh["background"],
    )
    assert raster.image is not None
    drawn = np.isfinite(raster.depth)
    away_from_edges = drawn & (raster.barycentric.min(axis=-1) > 1e-4)
    assert away_from_edges.sum() > 2500

    # Sim3DR draws nothing that we do not, and leaves out nothing but pixels on edges.
    assert not np.any((mesh["depth"] > -1e7) & ~drawn)
    assert np.all(mesh["depth"][away_from_edges] > -1e7)
    np.testing.assert_allclose(
        raster.depth[away_from_edges], mesh["depth"][away_from_edges], rtol=0, atol=0.01
    )
    levels = np.abs(raster.image.astype(np.uint8).astype(int) - mesh["image"])
    assert levels[away_from_edges].max() <= 1
    assert levels[~drawn].max() == 0
