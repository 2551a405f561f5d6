"""The predecessors' interface: their calls, shapes and, on the reference data, numbers."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import plyfile
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from threedfa import compat
from threedfa.detections import Detections
from threedfa.detector import FaceDetector
from threedfa.errors import BackendError, ExportError, ImageError, PackError
from threedfa.face import Pose

Array = npt.NDArray[Any]

BOX = [40.0, 30.0, 140.0, 150.0]
PARAMS = np.float32([6e-4, 2e-5, 1e-5, 60, -2e-5, 6e-4, 3e-5, 62, 0, 0, 6e-4, 0, *[0] * 50])
GOLDEN_FACES = [("1", "jpeg"), ("2", "jpeg"), ("3", "jpeg"), ("JianzhuGuo", "jpg")]


@pytest.fixture(scope="session")
def tddfa(synthetic_pack: Path) -> compat.TDDFA_ONNX:
    return compat.TDDFA_ONNX(pack=synthetic_pack)


@pytest.fixture(scope="session")
def instance(synthetic_pack: Path) -> compat.Instance:
    return compat.Instance(pack=synthetic_pack)


@pytest.fixture
def image() -> Array:
    """BGR, read-only, as an array of the caller's that must not change."""
    picture = np.random.default_rng(3).integers(0, 256, (160, 200, 3), np.uint8)
    picture.flags.writeable = False
    return picture


@pytest.fixture(scope="session")
def faces(tddfa: compat.TDDFA_ONNX) -> dict[str, list[Array]]:
    """Two faces, read-only: parameters, landmarks and vertices."""
    params = [PARAMS, PARAMS]
    rois = [[20.0, 10.0, 140.0, 130.0], [90.0, 60.0, 170.0, 140.0]]
    result = {
        "params": params,
        "sparse": tddfa.recon_vers(params, rois),
        "dense": tddfa.recon_vers(params, rois, dense_flag=True),
    }
    for arrays in result.values():
        for array in arrays:
            array.flags.writeable = False
    return result


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Detections:
    """What the detector finds in every picture: the network of the synthetic pack is random."""
    detections = Detections(np.float32([BOX]), np.float32([0.75]))

    def single_pass(self: FaceDetector, image: Array) -> Detections:
        return detections

    monkeypatch.setattr(FaceDetector, "single_pass", single_pass)
    return detections


# --- 3DDFA_V2's demo scripts ----------------------------------------------------------------------


def test_still_image_demo_calls(
    synthetic_pack: Path,
    found: Detections,
    image: Array,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("threedfa.pack._search_folders", lambda: [synthetic_pack.parent])
    config = {
        "arch": "mobilenet",
        "widen_factor": 0.5,
        "checkpoint_fp": "weights/mb05_120x120.pth",
        "bfm_fp": "configs/bfm_noneck_v3.pkl",
        "size": 120,
        "num_params": 62,
    }
    face_boxes = compat.FaceBoxes()
    tddfa = compat.TDDFA(gpu_mode=False, **config)
    boxes = face_boxes(image)
    assert boxes == [[*BOX, 0.75]]
    param_lst, roi_box_lst = tddfa(image, boxes)
    name = compat.get_suffix("folder/photo.x.jpeg")
    assert name == ".jpeg"
    for option, dense_flag in [("2d_sparse", False), ("2d_dense", True), ("3d", True),
                               ("depth", True), ("pncc", True), ("uv_tex", True), ("pose", False),
                               ("ply", True), ("obj", True)]:  # fmt: skip
        suffix = f".{option}" if option in ("ply", "obj") else ".jpg"
        wfp = f"{tmp_path}/photo_{option}{suffix}"
        ver_lst = tddfa.recon_vers(param_lst, roi_box_lst, dense_flag=dense_flag)
        if option in ("2d_sparse", "2d_dense"):
            compat.draw_landmarks(image, ver_lst, show_flag=False, dense_flag=dense_flag, wfp=wfp)
        elif option == "3d":
            compat.render(image, ver_lst, tddfa.tri, alpha=0.6, show_flag=False, wfp=wfp)
        elif option == "depth":
            compat.depth(image, ver_lst, tddfa.tri, show_flag=False, wfp=wfp, with_bg_flag=True)
        elif option == "pncc":
            compat.pncc(image, ver_lst, tddfa.tri, show_flag=False, wfp=wfp, with_bg_flag=True)
        elif option == "uv_tex":
            compat.uv_tex(image, ver_lst, tddfa.tri, show_flag=False, wfp=wfp)
        elif option == "pose":
            compat.viz_pose(image, param_lst, ver_lst, show_flag=False, wfp=wfp)
            assert "yaw: " in capsys.readouterr().out
        elif option == "ply":
            compat.ser_to_ply(ver_lst, tddfa.tri, height=image.shape[0], wfp=wfp)
        else:
            compat.ser_to_obj(image, ver_lst, tddfa.tri, height=image.shape[0], wfp=wfp)
        assert Path(wfp).stat().st_size > 0
        if suffix == ".jpg":
            with Image.open(wfp) as picture:
                size = (256, 256) if option == "uv_tex" else (image.shape[1], image.shape[0])
                assert picture.size == size


@pytest.mark.parametrize("dense_flag", [False, True])
def test_video_demo_calls(tddfa: compat.TDDFA_ONNX, image: Array, dense_flag: bool) -> None:
    frame_bgr = image[..., ::-1]  # of negative stride, as the scripts make them
    param_lst, roi_box_lst = tddfa(frame_bgr, [BOX])
    ver = tddfa.recon_vers(param_lst, roi_box_lst, dense_flag=dense_flag)[0]
    param_lst, roi_box_lst = tddfa(frame_bgr, [ver], crop_policy="landmark")
    x1, y1, x2, y2 = roi_box_lst[0]
    side = max(np.ptp(ver[:2], axis=1)) * np.sqrt(2)
    assert abs(x2 - x1) == pytest.approx(side, rel=1e-5)
    assert abs(y2 - y1) == pytest.approx(side, rel=1e-5)
    ver = tddfa.recon_vers(param_lst, roi_box_lst, dense_flag=dense_flag)[0]
    if dense_flag:
        res = compat.render(frame_bgr, [ver], tddfa.tri)
    else:
        res = compat.cv_draw_landmark(frame_bgr, ver)
    assert res.shape == image.shape
    assert (res != frame_bgr).any()


# --- TDDFA_ONNX and FaceBoxes_ONNX ----------------------------------------------------------------


def test_what_comes_back(tddfa: compat.TDDFA_ONNX, image: Array) -> None:
    params, rois = tddfa(image, [BOX, np.float32([*BOX, 0.9])])
    assert isinstance(params, list)
    assert isinstance(rois, list)
    assert [(p.dtype, p.shape) for p in params] == [(np.float32, (62,))] * 2
    assert all(isinstance(value, float) for roi in rois for value in roi)
    np.testing.assert_array_equal(rois[0], rois[1])
    assert all(p.flags.writeable for p in params)  # as upstream's, unlike those of a Face
    for dense_flag, count in [(False, 68), (True, 80)]:
        for points in tddfa.recon_vers(params, rois, dense_flag=dense_flag):
            assert points.dtype == np.float32
            assert points.shape == (3, count)
            assert points[2].min() == 0
    assert tddfa(image, []) == ([], [])
    assert tddfa(image, [], crop_policy="landmark") == ([], [])
    assert tddfa.recon_vers([], []) == []


def test_triangles_are_upstreams(tddfa: compat.TDDFA_ONNX, upstream_files: Path) -> None:
    triangles = pickle.loads((upstream_files / "configs/tri.pkl").read_bytes()).T
    np.testing.assert_array_equal(tddfa.tri, triangles)
    assert tddfa.tri.dtype == np.int32


def test_landmark_44_keeps_upstreams_z(tddfa: compat.TDDFA_ONNX) -> None:
    params, roi = PARAMS.copy(), [0.0, 0.0, 120.0, 120.0]
    params[:12] = [6e-4, 0, 0, 60, 0, 6e-4, 0, 60, 0, 0, 6e-4, 0]  # a frontal face: z is z
    sparse = tddfa.recon_vers([params], [roi])[0]
    vertices = tddfa.recon_vers([params], [roi], dense_flag=True)[0]
    expected = vertices[:, :68].copy()
    expected[2, 44] = vertices[2, 70]
    assert abs(expected[2, 44] - vertices[2, 44]) > 1
    expected[2] -= expected[2].min()
    np.testing.assert_allclose(sparse, expected, atol=1e-4)


def test_a_pack_without_upstreams_rows_uses_its_own_landmarks(
    tddfa: compat.TDDFA_ONNX, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tddfa, "_landmarks", None)
    roi = [0.0, 0.0, 120.0, 120.0]
    sparse = tddfa.recon_vers([PARAMS], [roi])[0]
    vertices = tddfa.recon_vers([PARAMS], [roi], dense_flag=True)[0][:, :68]
    np.testing.assert_allclose(sparse[:2], vertices[:2], atol=1e-4)
    np.testing.assert_allclose(sparse[2], vertices[2] - vertices[2].min(), atol=1e-4)


@pytest.mark.parametrize(
    "arguments",
    [{"checkpoint": "mb1.pth"}, {"mode": "cpu"}, {"show_flag": True}],
)
def test_unknown_keywords_are_refused(synthetic_pack: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="unexpected keyword"):
        compat.TDDFA_ONNX(pack=synthetic_pack, **arguments)
    with pytest.raises(TypeError, match="unexpected keyword"):
        compat.FaceBoxes_ONNX(pack=synthetic_pack, **arguments)


@pytest.mark.parametrize(
    ("name", "value"), [("size", 128), ("num_params", 102), ("shape_dim", 10), ("exp_dim", 5)]
)
def test_a_configuration_that_is_not_the_packs(synthetic_pack: Path, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected .* got {value}"):
        compat.TDDFA_ONNX(pack=synthetic_pack, **{name: value})


def test_the_checkpoint_chooses_the_pack(
    synthetic_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("threedfa.pack._search_folders", lambda: [synthetic_pack.parent])
    compat.TDDFA_ONNX(checkpoint_fp="weights/mb05_120x120.pth", shape_dim=40, exp_dim=10)
    compat.Instance("configs/default_120x120.yml")
    with pytest.raises(PackError, match="3ddfa_v2-mb1"):
        compat.TDDFA_ONNX(checkpoint_fp=Path("weights/mb1_120x120.pth"))
    with pytest.raises(PackError, match="3ddfa_v2-mb1"):
        compat.Instance("configs/mb1_120x120.yml")
    with pytest.raises(ValueError, match=r"checkpoint_fp: .*resnet22"):
        compat.TDDFA_ONNX(checkpoint_fp="weights/resnet22.pth")
    monkeypatch.setattr("threedfa.pack._search_folders", list)
    with pytest.raises(PackError, match="threedfa pack import"):
        compat.FaceBoxes_ONNX()


def test_gpu_mode_never_falls_back(synthetic_pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "threedfa.backend_onnxruntime.available_providers", lambda: ["CPUExecutionProvider"]
    )
    with pytest.raises(BackendError, match="CUDAExecutionProvider"):
        compat.TDDFA_ONNX(gpu_mode=True, pack=synthetic_pack)
    with pytest.raises(ValueError, match="gpu_id: expected 0, got 1"):
        compat.TDDFA_ONNX(gpu_mode=True, gpu_id=1, pack=synthetic_pack)


def test_bad_calls(tddfa: compat.TDDFA_ONNX, image: Array) -> None:
    with pytest.raises(ValueError, match="crop_policy"):
        tddfa(image, [BOX], crop_policy="boxes")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        tddfa(image, [BOX], crop="box")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="finite"):
        tddfa(image, [[0, 0, np.nan, 9]])
    with pytest.raises(ValueError, match=r"expected shape \(3, N\)"):
        tddfa(image, [np.zeros((68, 3))], crop_policy="landmark")
    with pytest.raises(TypeError, match=r"cv2\.imread"):
        tddfa(None, [BOX])  # type: ignore[arg-type]
    with pytest.raises(ImageError):
        tddfa(image.astype(float), [BOX])
    with pytest.raises(ValueError, match=r"shorter|longer"):
        tddfa.recon_vers([PARAMS], [])
    for params in (PARAMS[:61], PARAMS[None], np.full(62, np.nan, np.float32)):
        with pytest.raises(ValueError, match="params: expected"):
            tddfa.recon_vers([params], [BOX])


def test_timers_print(
    synthetic_pack: Path,
    found: Detections,
    tddfa: compat.TDDFA_ONNX,
    image: Array,
    capsys: pytest.CaptureFixture[str],
) -> None:
    compat.FaceBoxes_ONNX(timer_flag=True, pack=synthetic_pack)(image)
    tddfa(image, [BOX], timer_flag=True)
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "detection",
        "alignment",
    ]


# --- pictures -------------------------------------------------------------------------------------


def drawings(
    image: Array, faces: dict[str, list[Array]], tddfa: compat.TDDFA_ONNX
) -> Iterator[tuple[str, Callable[..., Array]]]:
    dense, sparse, params = faces["dense"], faces["sparse"], faces["params"]
    tri, model = tddfa.tri, tddfa.model
    yield "render", lambda **kw: compat.render(image, dense, tri, **kw)
    yield "depth", lambda **kw: compat.depth(image, dense, tri, **kw)
    yield "pncc", lambda **kw: compat.pncc(image, dense, tri, model=model, **kw)
    yield "uv_tex", lambda **kw: compat.uv_tex(image, dense, tri, model=model, **kw)
    yield "pose", lambda **kw: compat.viz_pose(image, params, sparse, **kw)
    yield "landmarks", lambda **kw: compat.draw_landmarks(image, sparse, **kw)
    yield (
        "dense landmarks",
        lambda **kw: compat.draw_landmarks(image, dense, dense_flag=True, **kw),
    )


def test_drawing_changes_no_argument_and_writes_what_it_returns(
    image: Array, faces: dict[str, list[Array]], tddfa: compat.TDDFA_ONNX, tmp_path: Path
) -> None:
    for name, draw in drawings(image, faces, tddfa):  # the arguments are read-only
        path = tmp_path / f"{name}.png"
        picture = draw(wfp=path)
        assert picture.dtype == np.uint8
        assert picture.flags.writeable
        assert not np.shares_memory(picture, image)
        with Image.open(path) as stored:
            np.testing.assert_array_equal(np.asarray(stored)[..., ::-1], picture, name)
        if name != "uv_tex":
            assert picture.shape == image.shape
            assert 0 < (picture != image).any(axis=2).mean() < 0.9, name


def test_pictures_that_cannot_be_written_or_shown(
    image: Array,
    faces: dict[str, list[Array]],
    tddfa: compat.TDDFA_ONNX,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    for _, draw in drawings(image, faces, tddfa):
        with pytest.raises(BackendError, match="no display; leave out show_flag"):
            draw(show_flag=True)
        with pytest.raises(ExportError):
            draw(wfp=tmp_path / "absent" / "picture.png")


def test_showing_opens_one_window_with_bgr(
    image: Array,
    faces: dict[str, list[Array]],
    instance: compat.Instance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[Array] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("cv2.imshow", lambda _, picture: shown.append(picture))
    monkeypatch.setattr("cv2.waitKey", lambda _: 0)
    monkeypatch.setattr("cv2.destroyWindow", lambda _: None)
    tri = instance.tddfa.tri
    drawn = compat.render(image, faces["dense"], tri, show_flag=True)
    np.testing.assert_array_equal(shown.pop(), drawn)
    drawn = instance.overlay(image, faces["dense"], mode="base", show=True)
    np.testing.assert_array_equal(shown.pop(), drawn[..., ::-1])
    assert not shown


def test_with_and_without_background(
    image: Array, faces: dict[str, list[Array]], tddfa: compat.TDDFA_ONNX
) -> None:
    dense, tri, model = faces["dense"], tddfa.tri, tddfa.model
    black = compat.pncc(np.zeros_like(image), dense, tri, model=model)
    np.testing.assert_array_equal(
        compat.pncc(image, dense, tri, with_bg_flag=False, model=model), black
    )
    over = compat.pncc(image, dense, tri, model=model)
    drawn = (black > 0).any(axis=2)
    np.testing.assert_array_equal(over[drawn], black[drawn])
    lit = compat.render(image, dense, tri, with_bg_flag=False)
    opaque = compat.render(image, dense, tri, alpha=1.0)
    np.testing.assert_array_equal(opaque[drawn], lit[drawn])
    np.testing.assert_array_equal(compat.render(image, dense, tri, alpha=0.0), image)
    np.testing.assert_array_equal(compat.depth(image, [], tri), image)


def test_textures_side_by_side(
    image: Array, faces: dict[str, list[Array]], tddfa: compat.TDDFA_ONNX
) -> None:
    dense, tri, model = faces["dense"], tddfa.tri, tddfa.model
    both = compat.uv_tex(image, dense, tri, 64, 64, model=model)
    assert both.shape == (64, 128, 3)
    parts = compat.FaceUtils.split_uv(both, 2)
    for part, vertices in zip(parts, dense, strict=True):
        one = compat.uv_tex(image, [vertices], tri, uv_h=64, uv_w=64, model=model)
        np.testing.assert_array_equal(part, one)
    assert compat.FaceUtils.split_uv(one, 1)[0] is one


def test_pictures_of_bad_input(
    image: Array, faces: dict[str, list[Array]], tddfa: compat.TDDFA_ONNX
) -> None:
    dense, sparse, tri, model = faces["dense"], faces["sparse"], tddfa.tri, tddfa.model
    with pytest.raises(ValueError, match="use dense_flag=True"):
        compat.pncc(image, sparse, tri, model=model)
    with pytest.raises(ValueError, match="triangles"):
        compat.render(image, sparse, tri)
    with pytest.raises(ValueError, match="alpha"):
        compat.render(image, dense, tri, alpha=1.5)
    with pytest.raises(ValueError, match="use dense_flag=True"):
        compat.draw_landmarks(image, dense)
    with pytest.raises(ValueError, match="at least one face"):
        compat.uv_tex(image, [], tri, model=model)
    with pytest.raises(ValueError, match="same size"):
        compat.uv_tex(image, dense, tri, uv_w=128, model=model)
    with pytest.raises(ValueError, match="uv_c"):
        compat.uv_tex(image, dense, tri, uv_c=1, model=model)
    for bad in (np.full((3, 80), np.nan), np.full((3, 80), 1e300), np.zeros((80, 3)), np.zeros(3)):
        with pytest.raises(ValueError, match="points: expected"):
            compat.depth(image, [bad], tri)
    with pytest.raises(TypeError, match="real numbers"):
        compat.depth(image, [np.full((3, 80), "x")], tri)
    with pytest.raises(TypeError, match="NoneType"):
        compat.render(None, dense, tri)  # type: ignore[arg-type]


# --- pose -----------------------------------------------------------------------------------------


@given(
    yaw=st.floats(-85, 85), pitch=st.floats(-179, 179), roll=st.floats(-179, 179),
    scale=st.floats(1e-4, 1e-3),
)  # fmt: skip
def test_pose_gives_back_the_angles(yaw: float, pitch: float, roll: float, scale: float) -> None:
    rotation = turn(2, roll) @ turn(1, -yaw) @ turn(0, pitch)
    camera = np.column_stack([scale * rotation, [50, 60, 70]])
    projection, angles = compat.calc_pose(camera.ravel())
    np.testing.assert_allclose(angles, [yaw, pitch, roll], atol=0.01)
    np.testing.assert_allclose(projection, np.column_stack([rotation, [50, 60, 70]]), atol=1e-4)
    pose = Pose.from_camera(camera.ravel(), [0, 0, 120, 120], 120)
    np.testing.assert_allclose([pose.yaw, pose.pitch, pose.roll], np.negative(angles), atol=0.01)


def turn(axis: int, degrees: float) -> Array:
    """Right-handed rotation about x, y or z."""
    angle = np.radians(degrees)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def test_pose_of_bad_parameters() -> None:
    for params in (np.zeros(12), np.zeros(11), np.full(62, np.inf), np.zeros((3, 4))):
        with pytest.raises(ValueError, match=r"params?: expected"):
            compat.calc_pose(params)


# --- mesh files -----------------------------------------------------------------------------------


def test_mesh_files(
    image: Array, faces: dict[str, list[Array]], tddfa: compat.TDDFA_ONNX, tmp_path: Path
) -> None:
    dense, tri, height = faces["dense"], tddfa.tri, image.shape[0]
    upright = np.concatenate([v.T * (1, -1, 1) + (0, height, 0) for v in dense])
    triangles = np.concatenate([tri[:, ::-1], tri[:, ::-1] + 80])

    compat.ser_to_obj(image, dense, tri, height, tmp_path / "faces.obj")
    mesh = trimesh.load(tmp_path / "faces.obj", process=False)
    np.testing.assert_allclose(mesh.vertices, upright, atol=1e-4)
    np.testing.assert_array_equal(mesh.faces, triangles)
    x, y = np.rint(np.concatenate(dense, axis=1)[:2]).astype(int)
    rgb = image[y.clip(0, height - 1), x.clip(0, image.shape[1] - 1), ::-1]
    np.testing.assert_array_equal(mesh.visual.vertex_colors[:, :3], rgb)

    compat.ser_to_ply(dense, tri, height, tmp_path / "faces.ply")
    check_ply(tmp_path / "faces.ply", upright, triangles)
    compat.ser_to_ply(dense, tri, height, tmp_path / "plain.ply", reverse=False)
    check_ply(
        tmp_path / "plain.ply",
        np.concatenate([v.T for v in dense]),
        np.concatenate([tri, tri + 80]),
    )

    compat.ser_to_ply([], tri, height, tmp_path / "none.ply")
    compat.ser_to_obj(image, [], tri, height, tmp_path / "none.obj")
    with pytest.raises(ExportError):
        compat.ser_to_ply(dense, tri, height, tmp_path / "absent" / "faces.ply")
    assert {p.name for p in tmp_path.iterdir()} == {"faces.obj", "faces.ply", "plain.ply"}


def check_ply(path: Path, vertices: Array, triangles: Array) -> None:
    assert path.read_bytes().split(b"end_header\n", 1)[1][:1] != b"\n"
    ply = plyfile.PlyData.read(path)
    points = np.column_stack([ply["vertex"][axis] for axis in "xyz"])
    np.testing.assert_allclose(points, vertices, atol=1e-4)
    np.testing.assert_array_equal(np.stack(ply["face"]["vertex_indices"]), triangles)


# --- Instance, FaceUtils, ImgUtils ----------------------------------------------------------------


def test_instance_works_on_rgb(
    instance: compat.Instance, image: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgb = image[..., ::-1]
    seen: list[Array] = []

    def face_boxes(picture: Array) -> list[list[float]]:
        seen.append(picture)
        return [[*BOX, 0.9], [*BOX, 0.85], [*BOX, 0.84]]

    monkeypatch.setattr(instance, "face_boxes", face_boxes)
    assert instance.detect_face(rgb) == [BOX, BOX]
    assert instance.detect_face(rgb, filter_score=0.9, trunc_score=False) == [[*BOX, 0.9]]
    np.testing.assert_array_equal(seen[0], image)

    tddfa = instance.tddfa
    expected = tddfa.recon_vers(*tddfa(image, [BOX]), dense_flag=True)[0]
    np.testing.assert_array_equal(instance.vlist(rgb, [BOX], ret_dense=True)[0], expected)
    found = instance.detect_lms(rgb, ret_dense=True, round_int=False)
    assert len(found) == 2
    np.testing.assert_array_equal(found[0], expected)
    sparse = tddfa.recon_vers(*tddfa(image, [BOX]))[0]
    rounded = instance.detect_lms(rgb)[0]
    assert rounded.shape == (68, 2)
    np.testing.assert_array_equal(rounded, np.rint(sparse[:2].T))
    assert instance.detect_lms(rgb, lm_type="3d")[0].shape == (68, 3)


def test_instance_draws_on_rgb(
    instance: compat.Instance, image: Array, faces: dict[str, list[Array]]
) -> None:
    tri, model, dense = instance.tddfa.tri, instance.tddfa.model, faces["dense"]
    expected = {
        "base": compat.render(image, dense, tri, 0.4),
        "depth": compat.depth(image, dense, tri),
        "pncc": compat.pncc(image, dense, tri, model=model),
        "uvtex": compat.uv_tex(image, dense, tri, model=model),
    }
    for mode, picture in expected.items():
        drawn = instance.overlay(image, dense, mode=mode, alpha=0.4)  # type: ignore[arg-type]
        np.testing.assert_array_equal(drawn, picture)
    np.testing.assert_array_equal(
        instance.overlay(image, dense, with_bg=False),
        compat.pncc(image, dense, tri, with_bg_flag=False, model=model),
    )
    with pytest.raises(ValueError, match="mode: expected base"):
        instance.overlay(image, dense, mode="mesh")  # type: ignore[arg-type]
    drawn = instance.pose(image[..., ::-1], faces["params"], faces["sparse"])
    np.testing.assert_array_equal(
        drawn[..., ::-1], compat.viz_pose(image, faces["params"], faces["sparse"])
    )


def test_instance_writes_meshes(
    instance: compat.Instance,
    image: Array,
    faces: dict[str, list[Array]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    tri = instance.tddfa.tri
    compat.ser_to_obj(image, faces["dense"], tri, len(image), "bgr.obj")
    path = instance.ser_to_mesh(image[..., ::-1], faces["dense"], sv_fp="rgb.obj")
    assert Path(path).read_bytes() == Path("bgr.obj").read_bytes()
    path = instance.ser_to_mesh(image, faces["dense"], mode="ply")
    assert Path(path).name.startswith("faceobjs_2_")
    compat.ser_to_ply(faces["dense"], tri, len(image), "function.ply")
    assert Path(path).read_bytes() == Path("function.ply").read_bytes()
    assert instance.ser_to_mesh(image, faces["dense"], mode="ply") != path
    with pytest.raises(ValueError, match="ver_list: expected at least one face, got none"):
        instance.ser_to_mesh(image, [])
    with pytest.raises(ValueError, match="mode"):
        instance.ser_to_mesh(image, faces["dense"], mode="stl")  # type: ignore[arg-type]


def test_drawn_points_and_boxes(image: Array) -> None:
    points = np.float32([[50.4, 1e9], [60.5, -1e9], [0, 0]])
    for draw in (compat.cv_draw_landmark, compat.FaceUtils.cv_draw_landmark):
        drawn = draw(image, points)
        assert 0 < (drawn != image).any(axis=2).sum() < 60
        boxed = draw(image, points, box=[100.2, 110, 150, 140, 0.9])
        changed = (boxed != drawn).any(axis=2)
        assert changed[110, 100:151].mean() > 0.9
        assert not changed[112:138, 103:148].any()


def test_small_helpers(image: Array, tmp_path: Path) -> None:
    points = np.float32([[0.5, 1.5, -2.6], [10, 11, 12], [7.4, 8, 9]])
    assert compat.FaceUtils.ret_lmpts(points) == [(0, 10), (2, 11), (-3, 12)]
    assert compat.FaceUtils.ret_lmpts(points, "3d")[0] == (0, 10, 7)
    with pytest.raises(ValueError, match="lm_type"):
        compat.FaceUtils.ret_lmpts(points, "4d")  # type: ignore[arg-type]
    assert compat.FaceUtils.bbox_shape([10.2, 20, 4.1, 50.9]).tolist() == [6, 30]
    np.testing.assert_array_equal(compat.ImgUtils.rgb2bgr(image), image[..., ::-1])
    assert compat.ImgUtils.at(points).dtype == np.dtype(int)
    Image.fromarray(image).save(tmp_path / "picture.png")
    for conv_bgr in (False, True):
        loaded = compat.ImgUtils.path_imload(tmp_path / "picture.png", conv_bgr)
        np.testing.assert_array_equal(loaded, image[..., ::-1])
    assert [compat.str2bool(text) for text in ("Yes", "true")] == [True, True]
    assert [compat.str2bool(text) for text in ("0", "N")] == [False, False]
    with pytest.raises(argparse.ArgumentTypeError, match="maybe"):
        compat.str2bool("maybe")
    assert compat.get_suffix("photo") == ""


# --- the predecessors' numbers --------------------------------------------------------------------


@pytest.fixture(scope="session")
def true_tddfa(reference_pack: Path) -> compat.TDDFA_ONNX:
    return compat.TDDFA_ONNX(pack=reference_pack)


@pytest.fixture(scope="session")
def true_instance(reference_pack: Path) -> compat.Instance:
    return compat.Instance(pack=reference_pack)


def rgb_image(reference: Path, name: str) -> Array:
    with Image.open(reference / "images" / name) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize(("name", "suffix"), GOLDEN_FACES)
def test_detections_of_the_references(
    reference: Path, true_instance: compat.Instance, name: str, suffix: str
) -> None:
    rgb = rgb_image(reference, f"{name}.{suffix}")
    golden = np.load(reference / f"goldens/facebox/{name}.npz")
    found = np.array(true_instance.face_boxes(rgb[..., ::-1]))
    np.testing.assert_allclose(found[:, :4], golden["final"][:, :4], atol=0.05)
    np.testing.assert_allclose(found[:, 4], golden["final"][:, 4], atol=1e-4)
    boxes = true_instance.detect_face(rgb)
    np.testing.assert_allclose(boxes, golden["final_threedfa"], atol=0.05)


@pytest.mark.parametrize(("name", "suffix"), GOLDEN_FACES)
def test_alignment_of_the_references(
    reference: Path,
    reference_pack: Path,
    true_tddfa: compat.TDDFA_ONNX,
    true_instance: compat.Instance,
    name: str,
    suffix: str,
) -> None:
    rgb = rgb_image(reference, f"{name}.{suffix}")
    golden = np.load(reference / f"goldens/tddfa/{name}.npz")
    std = json.loads((reference_pack / "pack.json").read_text())["regressor"]["param_std"]
    params, rois = true_tddfa(rgb[..., ::-1], golden["bboxes"])
    np.testing.assert_allclose(rois, golden["roi_bgr"], atol=2e-4)
    error = np.abs(np.array(params) - golden["params62_bgr"]) / np.array(std)
    assert error.max() < 2e-3
    # All 68 points, landmark 44 with upstream's z among them.
    sparse = true_tddfa.recon_vers(params, rois)
    np.testing.assert_allclose(sparse, golden["sparse_fit9_bgr"], atol=0.05)
    vertices = true_instance.vlist(rgb, golden["bboxes"])
    np.testing.assert_allclose(vertices, golden["sparse_fit9_bgr"], atol=0.05)

    params, rois = true_tddfa(rgb[..., ::-1], golden["sparse_fit9_bgr"], crop_policy="landmark")
    np.testing.assert_allclose(rois, golden["roi_lmpolicy_bgr"], atol=2e-4)
    sparse = true_tddfa.recon_vers(params, rois)
    np.testing.assert_allclose(sparse, golden["sparse_fit9_lmpolicy_bgr"], atol=0.05)

    for i in range(len(params)):
        projection, angles = compat.calc_pose(golden["params62_bgr"][i])
        np.testing.assert_allclose(projection, golden["pose_P_bgr"][i], atol=1e-5)
        np.testing.assert_allclose(angles, golden["pose_deg_bgr"][i], atol=1e-3)


def test_dense_vertices_of_the_references(reference: Path, true_tddfa: compat.TDDFA_ONNX) -> None:
    for name in "123":
        golden = np.load(reference / f"goldens/tddfa/{name}.npz")
        dense = true_tddfa.recon_vers(golden["params62_rgb"], golden["roi_rgb"], dense_flag=True)
        for i, vertices in enumerate(dense):
            np.testing.assert_allclose(vertices, golden[f"dense_ref_{i}"], atol=0.05)


def test_pose_of_the_synthetic_references(reference: Path) -> None:
    golden = np.load(reference / "goldens/tddfa/pose_synthetic.npz")
    keys = set(golden.files)
    assert {"P", "pose_deg"} <= keys
    params = golden[next(key for key in keys if key.startswith("param"))]
    for param, projection, angles in zip(params, golden["P"], golden["pose_deg"], strict=True):
        found, degrees = compat.calc_pose(param)
        np.testing.assert_allclose(found, projection, atol=1e-4)
        np.testing.assert_allclose(degrees, angles, atol=0.02)


def test_triangles_of_the_references(reference: Path, true_tddfa: compat.TDDFA_ONNX) -> None:
    triangles = pickle.loads((reference / "weights/tri.pkl").read_bytes()).T
    np.testing.assert_array_equal(true_tddfa.tri, triangles)


@pytest.mark.parametrize("name", ["1", "2", "3"])
def test_pictures_of_the_references(
    reference: Path, true_instance: compat.Instance, name: str
) -> None:
    rgb = rgb_image(reference, f"{name}.jpeg")
    golden = np.load(reference / f"goldens/tddfa/{name}.npz")
    dense = [golden[f"dense_ref_{i}"] for i in range(len(golden["bboxes"]))]
    x1, y1, x2, y2 = json.loads((reference / f"goldens/render/{name}_meta.json").read_text())[
        "crop_xyxy"
    ]
    for mode in ("base", "depth", "pncc"):
        for with_bg, ending in [(True, ""), (False, "_nobg")]:
            drawn = true_instance.overlay(rgb, dense, mode, with_bg=with_bg)  # type: ignore[arg-type]
            with Image.open(reference / f"goldens/render/{name}_{mode}{ending}_crop.png") as png:
                expected = np.asarray(png.convert("RGB")).astype(int)
            differ = (np.abs(drawn[y1:y2, x1:x2] - expected) > 2).any(axis=2)
            assert differ.sum() <= 2, (mode, with_bg)  # on edges that upstream leaves undrawn
            drawn[y1:y2, x1:x2] = rgb[y1:y2, x1:x2] if with_bg else 0
            np.testing.assert_array_equal(drawn, rgb if with_bg else 0)

    drawn = true_instance.overlay(rgb, dense, "uvtex")
    with Image.open(reference / f"goldens/render/{name}_uvtex.png") as png:
        expected = np.asarray(png.convert("RGB")).astype(int)
    undrawn = (expected == 0).all(axis=2)  # by upstream: outside the layout, and on edges
    assert np.abs(drawn - expected)[~undrawn].max() <= 2
    assert (drawn[undrawn].any(axis=1)).sum() < 0.005 * undrawn.size


def test_meshes_of_the_references(
    reference: Path, true_tddfa: compat.TDDFA_ONNX, tmp_path: Path
) -> None:
    rgb = rgb_image(reference, "3.jpeg")
    dense = [np.load(reference / "goldens/tddfa/3.npz")["dense_ref_0"]]
    compat.ser_to_obj(rgb[..., ::-1], dense, true_tddfa.tri, len(rgb), tmp_path / "face.obj")
    compat.ser_to_ply(dense, true_tddfa.tri, len(rgb), tmp_path / "face.ply")
    golden = gzip.decompress((reference / "goldens/export/3_bgr.obj.gz").read_bytes()).decode()
    lines = (tmp_path / "face.obj").read_text().splitlines()
    expected = golden.splitlines()
    assert len(lines) == len(expected)
    count = dense[0].shape[1]
    assert lines[count:] == expected[count:]  # the triangles
    vertices, golden_vertices = (
        np.loadtxt(io.StringIO("\n".join(part[:count])), usecols=range(1, 7))
        for part in (lines, expected)
    )
    np.testing.assert_allclose(vertices, golden_vertices, atol=0.0051)

    golden = gzip.decompress((reference / "goldens/export/3.ply.gz").read_bytes()).decode()
    ply = plyfile.PlyData.read(tmp_path / "face.ply")
    expected = golden.split("end_header\n\n", 1)[1].splitlines()
    points = np.column_stack([ply["vertex"][axis] for axis in "xyz"])
    golden_points = np.loadtxt(io.StringIO("\n".join(expected[:count])))
    np.testing.assert_allclose(points, golden_points, atol=0.0051)
    triangles = np.loadtxt(io.StringIO("\n".join(expected[count:])), dtype=int)[:, 1:]
    np.testing.assert_array_equal(np.stack(ply["face"]["vertex_indices"]), triangles)
