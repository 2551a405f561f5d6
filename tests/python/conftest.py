"""Files and packs that many tests use.

``default_pack``, ``upstream_files``, ``synthetic_pack`` and ``toy_pack`` need nothing but the
checkout.
``synthetic_pack`` is what importing ``upstream_files`` gives: networks of the upstream
architectures with random weights and a face model of 80 vertices. ``toy_pack`` finds faces where a
picture is red, with results that are known beforehand: see ``toy_pack.py``; ``model`` is its head.
``reference`` and ``reference_pack`` are the reference data beside the checkout; tests that use them
are skipped where it is absent.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings

from file_formats import mat_file, npy_file, torch_file
from head import load_head
from threedfa import MorphableModel, pack_path
from threedfa.upstream.convert import import_reference_pack, import_upstream_pack
from toy_pack import build_toy_pack
from training_steps import MODEL, tool

Array = npt.NDArray[Any]

settings.register_profile("untimed", deadline=None)  # machines that test may be busy
settings.load_profile("untimed")

BLOCKS = [f"dw{block}" for block in ("2_1", "2_2", "3_1", "3_2", "4_1", "4_2", "6")]
BLOCKS += [f"dw5_{i}" for i in range(1, 7)]
GRID = (10, 8)  # vertices down and across the synthetic face


@pytest.fixture(scope="session")
def reference() -> Path:
    folder = Path(__file__).resolve().parents[3] / "shared" / "reference"
    if not folder.is_dir():
        pytest.skip("needs the reference data in ../shared/reference")
    return folder


@pytest.fixture(scope="session")
def reference_pack(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pack 3ddfa_v2-mb05 with the stand-in basis."""
    return import_reference_pack(reference / "weights", tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="session")
def default_pack() -> Path:
    """The pack that comes with the package."""
    return pack_path("default")


@pytest.fixture(scope="session")
def upstream_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out like a 3DDFA_V2 checkout. Not to be changed: copy it first."""
    root = tmp_path_factory.mktemp("upstream")
    rng = np.random.default_rng(7)
    contents = {
        "FaceBoxes/weights/FaceBoxesProd.pth": torch_file(faceboxes_state(rng)),
        "weights/mb1_120x120.pth": torch_file({"state_dict": mobilenet_state(rng, 8)}),
        "weights/mb05_120x120.pth": torch_file({"state_dict": mobilenet_state(rng, 4)}),
        **face_model_files(rng),
    }
    for path, content in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


@pytest.fixture(scope="session")
def synthetic_pack(upstream_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack with random networks and a face model of 80 vertices."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these are not the published files
        return import_upstream_pack(
            upstream_files, "3ddfa_v2-mb05", destination=tmp_path_factory.mktemp("synthetic")
        )


@pytest.fixture(scope="session")
def toy_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pack of ``toy_pack.py``."""
    return build_toy_pack(tmp_path_factory.mktemp("toy") / "toy")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> MorphableModel:
    """The head of ``toy_pack.py``. Not to be changed."""
    return load_head(tmp_path_factory.mktemp("model") / "head.safetensors")


@pytest.fixture(scope="session")
def web_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy pack that servers serve under the name ``toy``. Not to be changed."""
    from web_server import build_web_pack

    return build_web_pack(tmp_path_factory.mktemp("web") / "toy")


@pytest.fixture(scope="session")
def face_model() -> Any:
    """The default pack's face model, as the training steps use it."""
    if not MODEL.exists():
        pytest.skip("needs weights/default/model.safetensors")
    return tool("face").Morphable.load(MODEL)


def faceboxes_state(rng: np.random.Generator) -> dict[str, Array]:
    shapes = {
        "conv1": (24, 3, 7, 7),
        "conv2": (64, 48, 5, 5),
        "conv3_1": (128, 128, 1, 1),
        "conv3_2": (256, 128, 3, 3),
        "conv4_1": (128, 256, 1, 1),
        "conv4_2": (256, 128, 3, 3),
    }
    for i in (1, 2, 3):
        shapes |= {
            f"inception{i}.branch1x1": (32, 128, 1, 1),
            f"inception{i}.branch1x1_2": (32, 128, 1, 1),
            f"inception{i}.branch3x3_reduce": (24, 128, 1, 1),
            f"inception{i}.branch3x3": (32, 24, 3, 3),
            f"inception{i}.branch3x3_reduce_2": (24, 128, 1, 1),
            f"inception{i}.branch3x3_2": (32, 24, 3, 3),
            f"inception{i}.branch3x3_3": (32, 32, 3, 3),
        }
    state: dict[str, Array] = {}
    for name, shape in shapes.items():
        state[f"module.{name}.conv.weight"] = kernel(rng, shape)
        state |= batch_norm(rng, f"module.{name}.bn", shape[0])
    for i, (anchors, channels) in enumerate([(21, 128), (1, 256), (1, 256)]):
        for head, size in (("loc", 4), ("conf", 2)):
            name = f"module.{head}.{i}"
            # Small: boxes grow exponentially with the outputs.
            state[f"{name}.weight"] = 0.002 * kernel(rng, (anchors * size, channels, 3, 3))
            state[f"{name}.bias"] = floats(rng.normal(size=anchors * size))
    return state


def mobilenet_state(rng: np.random.Generator, width: int) -> dict[str, Array]:
    """Every layer has ``width`` channels, which upstream has not but which any width includes."""
    state = {"module.conv1.weight": kernel(rng, (width, 3, 3, 3))}
    state |= batch_norm(rng, "module.bn1", width)
    for block in BLOCKS:
        state[f"module.{block}.conv_dw.weight"] = kernel(rng, (width, 1, 3, 3))
        state |= batch_norm(rng, f"module.{block}.bn_dw", width)
        state[f"module.{block}.conv_sep.weight"] = kernel(rng, (width, width, 1, 1))
        state |= batch_norm(rng, f"module.{block}.bn_sep", width)
    for head, outputs in (("fc_param", 62), ("fc_lm", 136)):
        state[f"module.{head}.weight"] = floats(0.1 * rng.normal(size=(outputs, width)))
        state[f"module.{head}.bias"] = floats(0.1 * rng.normal(size=outputs))
    return state


def face_model_files(rng: np.random.Generator) -> dict[str, bytes]:
    """A curved sheet of 80 vertices that looks along +z, with upstream's peculiarities."""
    rows, columns = GRID
    count = rows * columns
    down, across = (grid.ravel() for grid in np.mgrid[0:rows, 0:columns])
    x, y = across / (columns - 1) - 0.5, 0.5 - down / (rows - 1)
    mean = np.stack([1.5e5 * x, 1.8e5 * y, 1e5 * (0.5 - x**2 - y**2)], axis=1)
    corner = (down * columns + across).reshape(rows, columns)
    a, b, c, d = (
        part.ravel()
        for part in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:])
    )
    clockwise = np.concatenate([np.stack([a, b, c]), np.stack([b, d, c])], axis=1)
    keypoints = 3 * np.arange(68)[:, None] + np.arange(3)
    keypoints[44, 2] = 3 * 70 + 2  # of another vertex, as published
    basis = {
        "u": floats(mean.reshape(-1, 1)),
        "w_shp": floats(rng.normal(size=(3 * count, 40))),
        "w_exp": floats(rng.normal(size=(3 * count, 10))),
        "tri": np.asfortranarray(clockwise, np.int32),
        "keypoints": keypoints.ravel(),
    }
    # A frontal face that fills two thirds of the crop.
    camera = [6e-4, 0, 0, 60, 0, 6e-4, 0, 60, 0, 0, 6e-4, 0]
    statistics = {
        "mean": floats([*camera, *[0] * 50]),
        "std": floats([*np.where(np.array(camera) > 1, 1, 1e-5), *[100] * 50]),
    }
    uv = np.concatenate([rng.random((20, 2)), np.stack([x, y], axis=1) + 0.5])
    return {
        "configs/bfm_noneck_v3.pkl": pickle.dumps(basis),
        "configs/tri.pkl": pickle.dumps(np.asfortranarray(clockwise, np.int32)),
        "configs/param_mean_std_62d_120x120.pkl": pickle.dumps(statistics),
        "configs/BFM_UV.mat": mat_file("UV", uv),
        "configs/indices.npy": npy_file(20 + np.arange(count, dtype=np.int32)),
    }


def floats(values: Any) -> Array:
    return np.asarray(values, np.float32)


def kernel(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Weights that keep the size of what they are given."""
    return floats(rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:])))


def batch_norm(rng: np.random.Generator, name: str, channels: int) -> dict[str, Array]:
    return {
        f"{name}.weight": floats(rng.uniform(0.5, 1.5, channels)),
        f"{name}.bias": floats(0.1 * rng.normal(size=channels)),
        f"{name}.running_mean": floats(0.1 * rng.normal(size=channels)),
        f"{name}.running_var": floats(rng.uniform(0.5, 1.5, channels)),
    }
