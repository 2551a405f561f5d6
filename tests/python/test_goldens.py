"""Kernels, faces and pictures against the predecessor's results, stored in ../shared/reference.

``pytest -rP`` (or ``-s``) shows a table of the largest differences that were found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from threedfa import (
    Face,
    FaceAligner,
    FaceDetector,
    PriorConfig,
    _core,
    load_image,
    ops,
    render,
)
from threedfa.rendering import Mode

Array = npt.NDArray[Any]
Record = Callable[[str, float, float, str], None]

PHOTOGRAPHS = {"1": "1.jpeg", "2": "2.jpeg", "3": "3.jpeg", "JianzhuGuo": "JianzhuGuo.jpg"}
DETECTED = (*PHOTOGRAPHS, "2_small320x240", "black_80x100")
ALIGNED = ("1", "2", "3")  # those with the predecessor's dense vertices and pictures
SOUND = np.delete(np.arange(68), 44)  # landmark 44's z is another vertex's in the published basis
PICTURES: dict[Mode, str] = {"mesh": "base", "depth": "depth", "pncc": "pncc"}
EDGE = (
    1e-6  # weights below are rounding errors of the predecessor's float32: it draws nothing there
)

every_photograph = pytest.mark.parametrize("name", PHOTOGRAPHS)
every_aligned = pytest.mark.parametrize("name", ALIGNED)


@pytest.fixture(scope="module")
def record() -> Iterator[Record]:
    """Asserts that a figure is within its limit, and prints all figures in the end."""
    figures: dict[str, tuple[float, float, str]] = {}

    def note(what: str, figure: float, limit: float, unit: str) -> None:
        worst = max(float(figure), figures.get(what, (0.0,))[0])
        figures[what] = (worst, limit, unit)
        assert figure <= limit, f"{what}: {figure:.3g} {unit}, more than {limit:g}"

    yield note
    print(f"\n{'largest difference from the predecessor':52} {'found':>10} {'allowed':>10}")
    for what, (worst, limit, unit) in figures.items():
        print(f"{what:52} {worst:10.3g} {limit:10.3g} {unit}")


def golden(reference: Path, name: str) -> dict[str, Array]:
    with np.load(reference / "goldens" / f"{name}.npz") as arrays:
        return dict(arrays)


def photograph(reference: Path, name: str) -> Array:
    if name == "black_80x100":
        return np.zeros((100, 80, 3), np.uint8)
    if name in PHOTOGRAPHS:
        return load_image(reference / "images" / PHOTOGRAPHS[name])
    return load_image(reference / "goldens" / "facebox" / f"{name}.png")


def difference(actual: Array, expected: Array) -> float:
    assert actual.shape == expected.shape
    return float(np.abs(actual.astype(np.float64) - expected).max(initial=0))


def up_to_common_z(actual: Array, expected: Array) -> float:
    """Largest difference of points (N, 3), of which the predecessor gives z from its minimum."""
    moved = actual.astype(np.float64) - expected
    moved[:, 2] -= np.median(moved[:, 2])
    return float(np.abs(moved).max())


# --- Detector ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DETECTED)
def test_detections(reference: Path, reference_pack: Path, record: Record, name: str) -> None:
    stored = golden(reference, f"facebox/{name}")
    image = photograph(reference, name)
    weak = FaceDetector(reference_pack, score_threshold=0.05)
    for detector, expected in (
        (FaceDetector(reference_pack), stored["final"]),
        (weak, stored["dets_kept"]),
    ):
        found = detector.single_pass(image)
        assert len(found) == len(expected)
        record("detected boxes", difference(found.xyxy, expected[:, :4]), 0.05, "px")
        record("detected scores", difference(found.confidence, expected[:, 4]), 1e-4, "")


def test_priors(reference: Path, record: Record) -> None:
    stored = golden(reference, "facebox/priors")
    assert len(stored) == 10
    for size, expected in stored.items():
        height, width = (int(part[1:]) for part in size.split("_"))
        priors = ops.prior_boxes(height, width, PriorConfig.faceboxes())
        record("priors", difference(priors, expected), 1e-6, "of the image")


def test_decoding(reference: Path, record: Record) -> None:
    stored = golden(reference, "facebox/decode")
    boxes = ops.decode_boxes(stored["loc"], stored["priors"])
    scale = np.maximum(1, np.abs(stored["boxes"]))
    record("decoded boxes", difference(boxes / scale, stored["boxes"] / scale), 1e-6, "")


def test_nms(reference: Path, record: Record) -> None:
    sets = golden(reference, "nms/nms")
    compared = 0
    for key, expected in sets.items():
        name, found, threshold = key.rpartition("_keepstable_")
        if not found:
            continue
        dets = sets[f"{name}_dets"]
        keep = ops.nms(dets[:, :4], dets[:, 4], float(threshold), offset=1)
        if expected.tolist() == [-999]:  # the predecessor divided by zero
            assert len(keep) > 0
            continue
        record("indices kept by NMS", not np.array_equal(keep, expected), 0, "sets differ")
        compared += 1
    assert compared == 12


# --- Aligner -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aligner(reference_pack: Path) -> FaceAligner:
    return FaceAligner(reference_pack)


@pytest.mark.parametrize("suffix", ["rgb", "bgr", "lmpolicy_bgr"])
@every_photograph
def test_crops(reference: Path, record: Record, name: str, suffix: str) -> None:
    stored = golden(reference, f"tddfa/{name}")
    image = photograph(reference, name)
    if suffix != "rgb":
        image = image[:, :, ::-1]
    for roi, expected in zip(stored[f"roi_{suffix}"], stored[f"crops_{suffix}"], strict=True):
        crop = _core.crop_resize(image, roi, 120, 120)
        record("crops", difference(crop, expected), 1, "grey levels")


def test_synthetic_crops(reference: Path, record: Record) -> None:
    stored = golden(reference, "tddfa/crop_resize_synthetic")
    for i, roi in enumerate(stored["rois"]):
        crop = _core.crop_resize(stored["img"], roi, 120, 120)
        record("synthetic crops", difference(crop, stored[f"resized120_{i}"]), 0, "grey levels")
    for key, expected in stored.items():
        if key.startswith("rs_dst_"):
            source = stored[key.replace("dst", "src")]
            roi = (0, 0, source.shape[1], source.shape[0])
            resized = _core.crop_resize(source, roi, *expected.shape[:2])
            record("resized pictures", difference(resized, expected), 0, "grey levels")


@every_photograph
def test_parameters_and_landmarks(
    reference: Path, aligner: FaceAligner, record: Record, name: str
) -> None:
    stored = golden(reference, f"tddfa/{name}")
    image = photograph(reference, name)
    previous = stored["sparse_fit9_bgr"].transpose(0, 2, 1)
    for suffix, faces in (
        ("bgr", aligner.align(image, stored["bboxes"])),
        ("lmpolicy_bgr", aligner.align_from_landmarks(image, previous)),
        ("rgb", aligner.align(image, stored["bboxes"], color="bgr")),
    ):
        std = np.array(aligner.spec.param_std)
        assert len(faces) == len(stored["bboxes"])
        for face, roi, params, sparse in zip(
            faces,
            *(stored[f"{key}_{suffix}"] for key in ("roi", "params62", "sparse_fit9")),
            strict=True,
        ):
            record("regions of interest", difference(face.roi, roi), 1e-3, "px")
            off = difference(face.params / std, params / std)
            record(f"parameters ({suffix})", off, 2e-3, "std")
            off = up_to_common_z(face.landmarks[SOUND], sparse.T[SOUND])
            record(f"67 landmarks ({suffix})", off, 0.05, "px")


# --- Dense vertices and pictures -----------------------------------------------------------------


def swapped_faces(reference: Path, aligner: FaceAligner, name: str) -> list[Face]:
    """threedfa gave RGB to a network trained on BGR; its references need that mistake."""
    boxes = golden(reference, f"tddfa/{name}")["bboxes"]
    return aligner.align(photograph(reference, name), boxes, color="bgr")


def faces_of_reference(reference: Path, aligner: FaceAligner, name: str) -> list[Face]:
    """Faces with exactly the predecessor's vertices."""
    stored = golden(reference, f"tddfa/{name}")
    faces = swapped_faces(reference, aligner, name)
    for i, face in enumerate(faces):
        vars(face)["vertices"] = np.ascontiguousarray(stored[f"dense_ref_{i}"].T)
    return faces


@every_aligned
def test_dense_vertices(reference: Path, aligner: FaceAligner, record: Record, name: str) -> None:
    stored = golden(reference, f"tddfa/{name}")
    for i, face in enumerate(swapped_faces(reference, aligner, name)):
        off = up_to_common_z(face.vertices, stored[f"dense_ref_{i}"].T)
        record("38365 dense vertices", off, 0.05, "px")


@every_aligned
def test_normals_light_and_depth(
    reference: Path, aligner: FaceAligner, record: Record, name: str
) -> None:
    height, width = photograph(reference, name).shape[:2]
    faces = faces_of_reference(reference, aligner, name)
    (path,) = (reference / "goldens" / "render").glob(f"{name}_face*_numeric.npz")
    stored = golden(reference, f"render/{path.stem}")
    face = faces[int(stored["face"])]

    normals = face.normals
    record("normals", difference(normals, stored["normal"]), 1e-5, "")
    record("light", difference(_core.shade(face.vertices, normals), stored["light"]), 1e-5, "")

    raster = ops.rasterize(face.vertices, face.triangles, height, width)
    left, top, right, bottom = stored["zbuf_xyxy"]
    window = np.s_[top:bottom, left:right]
    depth, theirs = raster.depth[window], stored["zbuf"] > -1e7
    ours = np.isfinite(depth)
    assert np.all(ours[theirs])
    assert ours.sum() == np.isfinite(raster.depth).sum()
    assert raster.barycentric[window][ours & ~theirs].min(axis=-1).max(initial=0) < EDGE
    # In float32 the weights of thin triangles have few digits.
    record("depth", difference(depth[theirs], stored["zbuf"][theirs]), 0.05, "px")


def undrawn(faces: list[Face], height: int, width: int) -> Array:
    """Pixels (height, width) that the predecessor leaves undrawn on an edge of a triangle."""
    result = np.zeros((height, width), bool)
    for face in faces:
        raster = ops.rasterize(face.vertices, face.triangles, height, width)
        result |= (raster.triangle >= 0) & (raster.barycentric.min(axis=-1) < EDGE)
    return result


@pytest.mark.parametrize("mode", PICTURES)
@pytest.mark.parametrize("background", ["photograph", "black"])
@every_aligned
def test_pictures(
    reference: Path, aligner: FaceAligner, record: Record, name: str, mode: Mode, background: str
) -> None:
    folder = reference / "goldens" / "render"
    meta = json.loads((folder / f"{name}_meta.json").read_text())
    left, top, right, bottom = meta["crop_xyxy"]
    image = photograph(reference, name)
    suffix, alpha = "", None
    if background == "black":
        image, suffix, alpha = np.zeros_like(image), "_nobg", 1.0
    expected = image.copy()
    expected[top:bottom, left:right] = load_image(
        folder / f"{name}_{PICTURES[mode]}{suffix}_crop.png"
    )

    faces = faces_of_reference(reference, aligner, name)
    picture = render(image, faces, mode, alpha=alpha)
    differs = np.abs(picture.astype(int) - expected).max(axis=2) > 2
    share = differs[top:bottom, left:right].mean()
    record(f"{PICTURES[mode]}: pixels off by more than 2 levels", 100 * share, 0.1, "%")
    elsewhere = differs & ~undrawn(faces, *image.shape[:2])
    record(f"{PICTURES[mode]}: such pixels not on an edge", elsewhere.sum(), 0, "pixels")


@every_aligned
def test_textures(reference: Path, aligner: FaceAligner, record: Record, name: str) -> None:
    size = 256
    image = photograph(reference, name)
    stored = load_image(reference / "goldens" / "render" / f"{name}_uvtex.png")
    for i, face in enumerate(faces_of_reference(reference, aligner, name)):
        expected = stored[:, size * i : size * (i + 1)]
        uv = face.model.uv
        assert uv is not None
        texture = _core.uv_texture(image, face.vertices, uv, face.triangles, size)
        differs = np.abs(texture.astype(int) - expected).max(axis=2) > 2
        # The outermost vertices of the layout lie on the centres of the outermost pixels, which
        # the predecessor therefore leaves black.
        border = np.ones((size, size), bool)
        border[1:-1, 1:-1] = False
        assert np.all(expected[differs & border] == 0)
        record(
            "uvtex: pixels off by more than 2 levels, not on its border",
            100 * (differs & ~border).mean(),
            0.1,
            "%",
        )
        assert face.model.uv is not None
        u, v = (size - 1) * face.model.uv.T
        flat = np.stack([u, size - 1 - v, 0 * u], axis=1)
        raster = ops.rasterize(flat, face.triangles, size, size)
        inside = (raster.triangle >= 0) & (raster.barycentric.min(axis=-1) >= EDGE)
        record("uvtex: such pixels not on an edge", (differs & inside).sum(), 0, "pixels")
        record(
            "uvtex: pixels off that the predecessor draws",
            np.any(expected[differs] != 0, axis=-1).sum(),
            0,
            "pixels",
        )
