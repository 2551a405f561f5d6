"""Packs made from upstream files: synthetic ones and, where present, the reference data."""

from __future__ import annotations

import lzma
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import safetensors.numpy

from file_formats import npy_file
from threedfa.errors import PackError
from threedfa.pack import Pack, list_packs
from threedfa.priors import PriorConfig
from threedfa.upstream.convert import PackWarning, import_reference_pack, import_upstream_pack
from threedfa.upstream.sources import UPSTREAM_FILES, git_blob_id

IMPORTED = {"detector.onnx", "regressor.onnx", "model.safetensors", "pack.json"}


@pytest.fixture
def source(upstream_files: Path, tmp_path: Path) -> Path:
    """A checkout of one's own, to be changed."""
    return Path(shutil.copytree(upstream_files, tmp_path / "source"))


pytestmark = pytest.mark.filterwarnings("ignore:.*differs from the published")


def load_model(pack: Path) -> dict[str, Any]:
    return safetensors.numpy.load_file(pack / "model.safetensors")


def change_pickle(path: Path, **changes: Any) -> None:
    path.write_bytes(pickle.dumps({**pickle.loads(path.read_bytes()), **changes}))


def test_git_blob_id(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "hello").write_bytes(b"hello\n")
    assert git_blob_id(tmp_path / "empty") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert git_blob_id(tmp_path / "hello") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_imported_pack(upstream_files: Path, synthetic_pack: Path) -> None:
    assert {path.name for path in synthetic_pack.iterdir()} == IMPORTED
    pack = Pack.load(synthetic_pack)
    assert pack.name == "3ddfa_v2-mb05"
    assert "Basel Face Model" in pack.licence
    assert "academic use only" in pack.licence
    assert "bfm_noneck_v3.pkl" in pack.source.partition("not the published ones")[2]
    assert pack.detector.priors == PriorConfig.faceboxes()
    assert (pack.detector.color, pack.regressor.color) == ("bgr", "bgr")
    assert pack.regressor.scale == (1 / 128,) * 3
    path = upstream_files / "configs" / "param_mean_std_62d_120x120.pkl"
    statistics = pickle.loads(path.read_bytes())
    np.testing.assert_array_equal(np.float32(pack.regressor.param_mean), statistics["mean"])
    np.testing.assert_array_equal(np.float32(pack.regressor.param_std), statistics["std"])
    assert pack.regressor.param_split.total == 62


def test_face_model(upstream_files: Path, synthetic_pack: Path) -> None:
    model = load_model(synthetic_pack)
    configs = upstream_files / "configs"
    basis = pickle.loads((configs / "bfm_noneck_v3.pkl").read_bytes())
    np.testing.assert_array_equal(model["mean"].ravel(), basis["u"].ravel())
    for ours, theirs in (("shape", "w_shp"), ("expression", "w_exp")):
        flat = model[f"{ours}_basis"].reshape(len(model[f"{ours}_basis"]), -1)
        apart = np.abs(flat * model[f"{ours}_scale"][:, None] - basis[theirs].T)
        assert np.all(apart <= 0.51 * model[f"{ours}_scale"][:, None])
    np.testing.assert_array_equal(model["landmark_weights"], np.tile([1, 0, 0], (68, 1)))
    np.testing.assert_array_equal(model["landmark_vertices"][:, 0], np.arange(68))
    np.testing.assert_array_equal(model["upstream_keypoints"].ravel(), basis["keypoints"])
    assert model["upstream_keypoints"][44, 2] // 3 == 70
    dtypes = {name: (array.dtype, array.shape) for name, array in model.items()}
    assert dtypes == {
        "mean": (np.float32, (80, 3)),
        "shape_basis": (np.int16, (40, 80, 3)),
        "shape_scale": (np.float32, (40,)),
        "expression_basis": (np.int16, (10, 80, 3)),
        "expression_scale": (np.float32, (10,)),
        "triangles": (np.int32, (126, 3)),
        "landmark_vertices": (np.int32, (68, 3)),
        "landmark_weights": (np.float32, (68, 3)),
        "landmarks468_vertices": (np.int32, (468, 3)),
        "landmarks468_weights": (np.float32, (468, 3)),
        "five_vertices": (np.int32, (5, 3)),
        "five_weights": (np.float32, (5, 3)),
        "upstream_keypoints": (np.int32, (68, 3)),
        "uv": (np.float32, (80, 2)),
    }
    # The synthetic coordinates grow with x and y.
    np.testing.assert_allclose(model["uv"], model["mean"][:, :2] / [1.5e5, 1.8e5] + 0.5, atol=1e-6)


@pytest.mark.parametrize("turned", [False, True])
def test_triangles_run_counter_clockwise(source: Path, tmp_path: Path, turned: bool) -> None:
    path = source / "configs" / "tri.pkl"
    theirs = pickle.loads(path.read_bytes())
    if turned:
        path.write_bytes(pickle.dumps(theirs[::-1]))
    model = load_model(import_upstream_pack(source, "3ddfa_v2-mb1", destination=tmp_path))
    a, b, c = (model["mean"][model["triangles"][:, i]] for i in range(3))
    assert (np.cross(b - a, c - a)[:, 2] > 0).all()
    assert {frozenset(t) for t in model["triangles"].tolist()} == {
        frozenset(t) for t in theirs.T.tolist()
    }


def test_networks_run(synthetic_pack: Path) -> None:
    rng = np.random.default_rng(0)
    regressor = onnxruntime.InferenceSession(synthetic_pack / "regressor.onnx")
    (params,) = regressor.run(["params"], {"input": floats(rng.normal(size=(3, 3, 120, 120)))})
    assert params.shape == (3, 62)
    detector = onnxruntime.InferenceSession(synthetic_pack / "detector.onnx")
    loc, conf = detector.run(["loc", "conf"], {"input": floats(rng.normal(size=(2, 3, 70, 90)))})
    assert loc.shape == (2, 3 * 3 * 21 + 2 * 2 + 1, 4)
    np.testing.assert_allclose(conf.sum(axis=2), 1, atol=1e-5)


def floats(values: Any) -> Any:
    return np.asarray(values, np.float32)


def test_regressor_by_name_by_argument_and_by_presence(source: Path, tmp_path: Path) -> None:
    def width(name: str, **options: Any) -> int:
        pack = import_upstream_pack(source, name, destination=tmp_path, **options)
        return (pack / "regressor.onnx").stat().st_size

    mb1, mb05 = width("3ddfa_v2-mb1"), width("3ddfa_v2-mb05")
    assert mb1 > mb05
    assert width("a", regressor="mb1") == mb1
    assert width("b", regressor="mb05") == mb05
    with pytest.raises(PackError, match=r"mb1_120x120\.pth and mb05_120x120\.pth"):
        width("c")
    with pytest.raises(PackError, match="expected one of mb1, mb05"):
        width("c", regressor="resnet")
    (source / "weights" / "mb1_120x120.pth").unlink()
    assert width("c") == mb05
    with pytest.raises(PackError, match=r"mb1_120x120\.pth is missing"):
        width("d", regressor="mb1")
    (source / "weights" / "mb05_120x120.pth").unlink()
    with pytest.raises(PackError, match="neither"):
        width("d")


def test_one_folder_gives_the_same_pack(
    upstream_files: Path, synthetic_pack: Path, tmp_path: Path
) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in upstream_files.rglob("*.*"):
        shutil.copy(file, flat)
    pack = import_upstream_pack(flat, "3ddfa_v2-mb05", destination=tmp_path)
    for name in IMPORTED:
        assert (pack / name).read_bytes() == (synthetic_pack / name).read_bytes()


def test_destination_is_where_packs_are_found(
    upstream_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THREEDFA_HOME", str(tmp_path / "home"))
    pack = import_upstream_pack(upstream_files, "3ddfa_v2-mb1")
    assert pack == tmp_path / "home" / "packs" / "3ddfa_v2-mb1"
    assert [(p.path, p.problem) for p in list_packs() if p.name == "3ddfa_v2-mb1"] == [(pack, "")]


@pytest.mark.filterwarnings("default")
def test_files_that_differ_are_named(upstream_files: Path, tmp_path: Path) -> None:
    with pytest.warns(PackWarning) as caught:
        import_upstream_pack(upstream_files, "3ddfa_v2-mb05", destination=tmp_path)
    messages = [str(warning.message) for warning in caught]
    expected = [file for file in UPSTREAM_FILES if "mb1_" not in file.name]
    assert len(messages) == len(expected)
    for file, message in zip(expected, messages, strict=True):
        assert str(upstream_files / file.path) in message
        assert file.git_blob in message
        assert git_blob_id(upstream_files / file.path) in message


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["BFM_UV.mat", "indices.npy"])
def test_texture_coordinates_are_optional(source: Path, tmp_path: Path, name: str) -> None:
    (source / "configs" / name).unlink()
    with pytest.warns(PackWarning, match=f"{name} is missing.*no texture coordinates"):
        pack = import_upstream_pack(source, "3ddfa_v2-mb05", destination=tmp_path)
    assert "uv" not in load_model(pack)


@pytest.mark.parametrize(
    "name",
    ["FaceBoxesProd.pth", "mb05_120x120.pth", "bfm_noneck_v3.pkl", "tri.pkl",
     "param_mean_std_62d_120x120.pkl"],
)  # fmt: skip
def test_missing_files_are_named(source: Path, tmp_path: Path, name: str) -> None:
    next(source.rglob(name)).unlink()
    refused(source, tmp_path, f"{name} is missing", str(source))


def refused(source: Path, tmp_path: Path, *parts: str) -> None:
    """The import fails with a message that has these parts, and leaves nothing behind."""
    packs = tmp_path / "packs"
    with pytest.raises(PackError) as caught:
        import_upstream_pack(source, "3ddfa_v2-mb05", destination=packs)
    for part in parts:
        assert part in str(caught.value)
    assert not packs.exists() or list(packs.iterdir()) == []


BASIS = "configs/bfm_noneck_v3.pkl"
STATISTICS = "configs/param_mean_std_62d_120x120.pkl"


@pytest.mark.parametrize(
    ("path", "changes", "parts"),
    [
        (BASIS, {"u": np.zeros((239, 1), np.float32)}, ["u:", "239"]),
        (BASIS, {"u": np.zeros((80, 3), np.float32)}, ["u:", "(80, 3)"]),
        (BASIS, {"u": np.zeros((0, 1), np.float32)}, ["u:", "0 rows"]),
        (BASIS, {"u": np.zeros((240, 1), np.int32)}, ["u:", "int32"]),
        (BASIS, {"u": np.full((240, 1), np.nan, np.float32)}, ["u:", "finite"]),
        (BASIS, {"u": np.full((240, 1), 1e300)}, ["u:", "finite"]),
        (BASIS, {"u": [1.0]}, ["u:", "a list"]),
        (BASIS, {"w_shp": None}, ["w_shp:", "nothing"]),
        (BASIS, {"w_shp": np.zeros((237, 40), np.float32)}, ["w_shp:", "(237, 40)"]),
        (BASIS, {"w_exp": np.zeros((240,), np.float32)}, ["w_exp:", "(240,)"]),
        (BASIS, {"keypoints": np.arange(201)}, ["keypoints:", "(201,)"]),
        (BASIS, {"keypoints": np.arange(204.0)}, ["keypoints:", "float64"]),
        (BASIS, {"keypoints": np.arange(204) - 3}, ["keypoints:", "-3"]),
        (BASIS, {"keypoints": np.arange(204) + 60}, ["keypoints:", "263"]),
        (BASIS, {"keypoints": np.arange(204) + 1}, ["keypoints:", "x, y and z in turn"]),
        (STATISTICS, {"mean": np.zeros(61, np.float32)}, ["std:", "(61,)", "(62,)"]),
        (STATISTICS, {"mean": np.zeros(63, np.float32), "std": np.zeros(63, np.float32)},
         ["12 + 40 + 10", "63"]),
        (STATISTICS, {"std": np.full(62, -1, np.float32)}, ["std:", "negative"]),
        (STATISTICS, {"std": np.full(62, np.inf, np.float32)}, ["std:", "finite"]),
        (STATISTICS, {"mean": "text"}, ["mean:", "a str"]),
    ],
)  # fmt: skip
def test_wrong_content_is_named(
    source: Path, tmp_path: Path, path: str, changes: dict[str, Any], parts: list[str]
) -> None:
    change_pickle(source / path, **changes)
    refused(source, tmp_path, str(source / path), *parts)


@pytest.mark.parametrize(
    ("triangles", "part"),
    [
        (np.zeros((4, 5), np.int32), "(4, 5)"),
        (np.zeros((3, 0), np.int32), "(3, 0)"),
        (np.zeros((3, 5), np.float32), "float32"),
        (np.full((3, 5), 80, np.int32), "0 to 79"),
        (np.full((3, 5), -1, np.int32), "0 to 79"),
        ({}, "a dict"),
    ],
)
def test_wrong_triangles_are_named(
    source: Path, tmp_path: Path, triangles: object, part: str
) -> None:
    (source / "configs" / "tri.pkl").write_bytes(pickle.dumps(triangles))
    refused(source, tmp_path, "tri.pkl", part)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an array",
        npy_file(np.arange(80))[:-1],
        npy_file(np.arange(79)),
        npy_file(np.arange(80.0)),
        npy_file(np.arange(80) - 1),
        npy_file(np.arange(80) + 21),
        npy_file(np.array([{}] * 80, dtype=object)),
        npy_file(np.arange(80)).replace(b"(80,)", b"(8000000000000000,)"),
    ],
)
def test_wrong_indices_are_named(source: Path, tmp_path: Path, content: bytes) -> None:
    (source / "configs" / "indices.npy").write_bytes(content)
    refused(source, tmp_path, "indices.npy")


def test_a_network_of_another_kind_is_named(source: Path, tmp_path: Path) -> None:
    path = source / "weights" / "mb05_120x120.pth"
    shutil.copy(source / "FaceBoxes" / "weights" / "FaceBoxesProd.pth", path)
    refused(source, tmp_path, str(path))


def test_links_must_stay_in_the_source(source: Path, tmp_path: Path) -> None:
    path, outside = source / "configs" / "tri.pkl", tmp_path / "tri.pkl"
    path.rename(outside)
    path.symlink_to(outside)
    refused(source, tmp_path, str(path), "outside")
    path.unlink()
    path.symlink_to(path)
    refused(source, tmp_path, "cannot read", str(path))
    path.unlink()
    path.symlink_to("nowhere")
    refused(source, tmp_path, "cannot read", str(path))
    path.unlink()
    outside.rename(source / "real.pkl")
    path.symlink_to("../real.pkl")
    import_upstream_pack(source, "3ddfa_v2-mb05", destination=tmp_path / "packs")


def test_absurd_sizes_and_folders_for_files(source: Path, tmp_path: Path) -> None:
    path = source / "configs" / "tri.pkl"
    with path.open("r+b") as stream:
        stream.truncate(1 << 40)  # a sparse file
    refused(source, tmp_path, str(path), "expected at most")
    path.unlink()
    path.mkdir()
    refused(source, tmp_path, str(path), "regular file")
    refused(tmp_path / "nowhere", tmp_path, "not a folder")


@pytest.mark.parametrize("name", ["", "..", "a/b", "/a", ".a", "a\0", "ä", "x" * 101])
def test_names_of_packs(upstream_files: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(PackError, match="cannot be the name of a pack"):
        import_upstream_pack(upstream_files, name, destination=tmp_path)


def test_only_packs_are_overwritten_and_only_on_request(source: Path, tmp_path: Path) -> None:
    pack = import_upstream_pack(source, "3ddfa_v2-mb05", destination=tmp_path / "packs")
    (pack / "mark").touch()
    with pytest.raises(PackError, match=r"exists; remove it or overwrite it \(--overwrite\)"):
        import_upstream_pack(source, "3ddfa_v2-mb05", destination=tmp_path / "packs")
    assert (pack / "mark").exists()
    options: dict[str, Any] = {"destination": tmp_path / "packs", "overwrite": True}
    assert import_upstream_pack(source, "3ddfa_v2-mb05", **options) == pack
    assert {path.name for path in pack.iterdir()} == IMPORTED
    # A failing import leaves the old pack alone.
    change_pickle(source / BASIS, keypoints=np.zeros(204, np.int64))
    with pytest.raises(PackError, match="keypoints"):
        import_upstream_pack(source, "3ddfa_v2-mb05", **options)
    Pack.load(pack)
    assert list((tmp_path / "packs").iterdir()) == [pack]
    (tmp_path / "packs" / "mine").mkdir()
    with pytest.raises(PackError, match="is not a pack"):
        import_upstream_pack(source, "mine", regressor="mb1", **options)


def test_destination_that_cannot_be_written(upstream_files: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "packs"):
        with pytest.raises(PackError, match="cannot write the pack"):
            import_upstream_pack(upstream_files, "3ddfa_v2-mb05", destination=folder)


# --- against the reference data -------------------------------------------------------------------


def test_reference_pack(reference: Path, reference_pack: Path) -> None:
    pack = Pack.load(reference_pack)
    assert pack.source.endswith("not the published ones: bfm_noneck_v3.pkl")
    model = load_model(reference_pack)
    assert model["mean"].shape == (38365, 3)
    assert model["triangles"].shape == (76073, 3)
    golden = np.load(reference / "goldens" / "render" / "uv_coords_256.npz")["uv"]
    u, v = model["uv"].T
    np.testing.assert_allclose(np.stack([u, 1 - v], axis=1) * 255, golden, atol=1e-4)


def test_landmark_44_is_repaired(reference_pack: Path) -> None:
    model = load_model(reference_pack)
    published = model["upstream_keypoints"]
    assert published[44].tolist() == [3 * 12383, 3 * 12383 + 1, 3 * 12087 + 2]
    wrong = (published // 3 != published[:, :1] // 3).any(axis=1)
    assert np.flatnonzero(wrong).tolist() == [44]
    np.testing.assert_array_equal(model["landmark_vertices"][:, 0], published[:, 0] // 3)
    assert model["landmark_vertices"][44, 0] == 12383


def test_triangles_of_the_reference_face_outwards(reference_pack: Path) -> None:
    model = load_model(reference_pack)
    a, b, c = (model["mean"][model["triangles"][:, i]].astype(np.float64) for i in range(3))
    facing = np.cross(b - a, c - a)[:, 2] > 0
    assert facing.mean() > 0.9


def test_regressor_of_the_reference(reference: Path, reference_pack: Path) -> None:
    golden = np.load(reference / "goldens" / "tddfa" / "JianzhuGuo.npz")
    crops = golden["crops_bgr"].astype(np.float32).transpose(0, 3, 1, 2)
    regressor = onnxruntime.InferenceSession(reference_pack / "regressor.onnx")
    (raw,) = regressor.run(None, {"input": (crops - 127.5) / 128})
    np.testing.assert_allclose(raw, golden["raw62_bgr"], atol=1e-4)


@pytest.mark.parametrize("content", [b"", b"not xz", lzma.compress(b"not a pickle")])
def test_spoilt_stand_in(reference: Path, tmp_path: Path, content: bytes) -> None:
    for file in (reference / "weights").iterdir():
        (tmp_path / file.name).write_bytes(b"" if "bfm" in file.name else file.read_bytes())
    (tmp_path / "bfm_fit9.pkl.xz").write_bytes(content)
    with pytest.raises(PackError, match="bfm"):
        import_reference_pack(tmp_path, tmp_path / "packs")
    assert not (tmp_path / "packs").exists()
