"""The pack that comes with the package, on the package's own picture and on two real photographs
that come with libraries: nothing here needs the network or another file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import trimesh
from PIL import Image

import threedfa
from threedfa import Face, FaceAnalyzer, Pack, render, save_mesh, uv_texture
from threedfa.blendshapes import ARKIT_NAMES
from threedfa.cli import SAMPLE
from threedfa.pack import PACK_JSON

Array = npt.NDArray[Any]

MOST_BYTES = 14_000_000
RIGHT_EYE, LEFT_EYE, NOSE_TIP, MOUTH = slice(36, 42), slice(42, 48), 30, slice(48, 68)


def astronaut() -> Path:
    """Eileen Collins, smiling, turned a little to the image's left."""
    skimage = pytest.importorskip("skimage", reason="needs scikit-image, for its photograph")
    return Path(skimage.__file__).parent / "data" / "astronaut.png"


def grace_hopper() -> Path:
    """Grace Hopper in uniform, with glasses."""
    matplotlib = pytest.importorskip("matplotlib", reason="needs Matplotlib, for its photograph")
    return Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


@pytest.fixture(scope="module")
def analyzer() -> FaceAnalyzer:
    return FaceAnalyzer(num_threads=1)


@pytest.fixture(scope="module")
def faces(analyzer: FaceAnalyzer) -> list[Face]:
    return sorted(analyzer.analyze(SAMPLE), key=lambda face: float(face.bbox[0]))


def test_it_is_small_and_sound(default_pack: Path) -> None:
    Pack.load(default_pack, verify=True)
    listed = set(json.loads((default_pack / PACK_JSON).read_text())["files"]) | {PACK_JSON}
    assert {path.name for path in default_pack.iterdir()} == listed
    assert sum(path.stat().st_size for path in default_pack.iterdir()) <= MOST_BYTES


def test_both_heads_of_the_sample(faces: list[Face]) -> None:
    """Where they look and what they do is written in weights/sample/make_sample.py."""
    assert len(faces) == 2
    left, right = faces
    for face, center in ((left, (250, 262)), (right, (575, 286))):
        assert np.abs(face.landmarks[NOSE_TIP, :2] - center).max() < 60
        assert face.confidence is not None and face.confidence > 0.5
    assert 5 < left.pose.yaw < 25
    assert left.blendshapes["mouthSmileLeft"] > right.blendshapes["mouthSmileLeft"]


def test_every_result(faces: list[Face], tmp_path: Path) -> None:
    image = threedfa.load_image(SAMPLE)
    for mode in ("landmarks", "dense", "box", "pose", "mesh", "wireframe", "depth", "pncc"):
        drawn = render(image, faces, mode)
        assert drawn.shape == image.shape
        assert (drawn != image).any()
    face = faces[0]
    assert face.landmarks_in("mediapipe468").shape == (468, 3)
    assert len(face.dense_vertices) >= 35_568
    assert set(face.blendshapes) <= set(ARKIT_NAMES)
    assert uv_texture(image, face, size=64).std() > 5
    pose = face.metric_pose(field_of_view=50, image_size=image.shape[:2])
    assert 20 < pose.transform("opencv")[2, 3] < 200  # centimetres
    save_mesh(tmp_path / "face.glb", image, faces)
    assert len(trimesh.load(tmp_path / "face.glb").geometry) == 2


@pytest.mark.parametrize(
    ("photograph", "eyes", "nose", "mouth"),
    [
        (astronaut, ((204, 101), (247, 104)), (224, 125), (223, 147)),
        (grace_hopper, ((225, 192), (304, 188)), (269, 236), (269, 281)),
    ],
)
def test_real_faces(
    analyzer: FaceAnalyzer,
    photograph: Any,
    eyes: tuple[tuple[int, int], ...],
    nose: tuple[int, int],
    mouth: tuple[int, int],
) -> None:
    """Eyes, nose and mouth lie where a person pointed, to a tenth of the face's width."""
    best = max(analyzer.analyze(photograph()), key=lambda face: face.score)
    points = best.landmarks[:, :2]
    found = [points[RIGHT_EYE].mean(0), points[LEFT_EYE].mean(0), points[NOSE_TIP]]
    found.append(points[MOUTH].mean(0))
    width = float(best.bbox[2] - best.bbox[0])
    for place, truth in zip(found, (*eyes, nose, mouth), strict=True):
        assert np.linalg.norm(place - truth) < 0.1 * width
    assert abs(best.pose.yaw) < 30
    assert abs(best.pose.pitch) < 30
    assert abs(best.pose.roll) < 20


def test_no_faces_in_noise_and_nothing(analyzer: FaceAnalyzer) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (300, 400, 3), np.uint8)
    for image in (noise, np.zeros((200, 200, 3), np.uint8), np.full((1, 1, 3), 255, np.uint8)):
        assert analyzer.analyze(image) == []


def test_turned_and_shrunk(analyzer: FaceAnalyzer, tmp_path: Path) -> None:
    """The same two heads at half the size and leaning to each side."""
    with Image.open(SAMPLE) as sample:
        for turn in (-30, 0, 30):
            small = sample.convert("RGB").rotate(turn, expand=True).reduce(2)
            found = analyzer.analyze(np.array(small))
            assert len(found) == 2
            rolls = sorted(face.pose.roll for face in found)
            assert rolls[0] == pytest.approx(-turn, abs=15)
            assert rolls[1] == pytest.approx(-turn, abs=15)
