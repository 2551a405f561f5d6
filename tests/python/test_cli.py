"""The command line, run in this process and once as a program."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import cv2
import jsonschema
import numpy as np
import numpy.typing as npt
import plyfile
import pytest
import trimesh
from PIL import Image

import threedfa
from threedfa import FaceAnalyzer, cli, load_image, render, save_image, uv_texture
from threedfa.image import SUFFIXES
from threedfa.rendering import Mode
from toy_pack import build_toy_pack

Picture = npt.NDArray[np.uint8]

MODES = get_args(Mode)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_pack: Path) -> Path:
    """Packs of this test alone: the toy pack, by the name toy. The current folder is empty."""
    monkeypatch.setenv("THREEDFA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(toy_pack, tmp_path / "home" / "packs" / "toy")
    (tmp_path / "current").mkdir()
    monkeypatch.chdir(tmp_path / "current")
    return tmp_path / "home"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with one.png, two.png and none.png, named for the faces in them."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    save_image(folder / "one.png", picture((64, 32, 255)))
    save_image(folder / "two.png", picture((0, 0, 200), (128, 64, 250)))
    save_image(folder / "none.png", picture())
    return folder


def picture(*cells: tuple[int, int, int]) -> Picture:
    """Grey noise with bright squares of 32 pixels: left, top, brightness."""
    image = np.random.default_rng(len(cells)).integers(0, 80, (160, 200, 3), dtype=np.uint8)
    for left, top, value in cells:
        image[top : top + 32, left : left + 32] = value
    return image


def run(*arguments: str | Path) -> int:
    return cli.main([str(argument) for argument in arguments])


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- image ----------------------------------------------------------------------------------------


def test_default_is_something_to_look_at(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out"
    assert run("image", pictures / "one.png", "-o", out, "--pack", "toy") == 0
    assert files_in(out) == {"one_mesh.png", "one_landmarks.png"}
    output = capsys.readouterr()
    assert output.out == f"{pictures / 'one.png'}: 1 face\n"
    assert output.err == ""


def test_results_go_to_the_current_folder(pictures: Path) -> None:
    assert run("image", pictures / "one.png", "--pack", "toy", "--json") == 0
    assert files_in(Path.cwd()) == {"faces.json"}


@pytest.mark.parametrize("mode", MODES)
def test_render(pictures: Path, tmp_path: Path, toy_pack: Path, mode: Mode) -> None:
    path = pictures / "two.png"
    assert run("image", path, "-o", tmp_path / "out", "--pack", "toy", "--render", mode) == 0
    assert files_in(tmp_path / "out") == {f"two_{mode}.png"}
    expected = render(path, FaceAnalyzer(toy_pack).analyze(path), mode)
    np.testing.assert_array_equal(load_image(tmp_path / "out" / f"two_{mode}.png"), expected)


def test_every_output_at_once(pictures: Path, tmp_path: Path, toy_pack: Path) -> None:
    out, path = tmp_path / "out", pictures / "two.png"
    flags = ["--texture", "--json", "--csv", "--npz", "--mesh", "obj", "--mesh", "ply"]
    flags += ["--mesh", "stl", "--texture-size", "128"]
    assert run("image", path, "-o", out, "--pack", "toy", *flags, "--render", "box") == 0
    assert files_in(out) == {
        "two_box.png",
        "two.obj",
        "two.mtl",
        "two_face0.png",
        "two_face1.png",
        "two.ply",
        "two.stl",
        "two_face0_texture.png",
        "two_face1_texture.png",
        "two.npz",
        "faces.json",
        "faces.csv",
    }
    faces = FaceAnalyzer(toy_pack).analyze(path)
    vertices = np.concatenate([face.vertices for face in faces])
    flipped = vertices * np.float32([1, -1, 1]) + np.float32([0, 160, 0])
    mesh: Any = trimesh.load(out / "two.ply", process=False, maintain_order=True)
    np.testing.assert_allclose(mesh.vertices, flipped, rtol=1e-6)
    parts: Any = trimesh.load(out / "two.obj", process=False)
    for part, face in zip(parts.geometry.values(), faces, strict=True):
        assert len(part.vertices) == len(face.vertices)
        assert part.visual.material.image.size == (128, 128)
    assert len(plyfile.PlyData.read(out / "two.ply")["vertex"]) == len(vertices)
    for number, face in enumerate(faces):
        texture = load_image(out / f"two_face{number}_texture.png")
        np.testing.assert_array_equal(texture, uv_texture(path, face, size=128))
    with np.load(out / "two.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["vertices"], [face.vertices for face in faces])
        np.testing.assert_array_equal(arrays["score"], np.float32([f.score for f in faces]))
    (entry,) = read_json(out)
    assert entry["image"] == {"name": str(path), "height": 160, "width": 200}
    np.testing.assert_array_equal(
        np.float32([face["landmarks"] for face in entry["faces"]]),
        [face.landmarks for face in faces],
    )
    rows = list(csv.DictReader((out / "faces.csv").read_text("utf-8").splitlines()))
    assert [(row["image"], row["face"]) for row in rows] == [(str(path), "0"), (str(path), "1")]
    assert [float(row["score"]) for row in rows] == pytest.approx([f.score for f in faces])


def read_json(folder: Path) -> list[Any]:
    schema = resources.files("threedfa").joinpath("schemas/result.schema.json").read_text("utf-8")
    content: list[Any] = json.loads((folder / "faces.json").read_text("utf-8"))
    jsonschema.validate(content, json.loads(schema))
    return content


def test_a_picture_without_faces(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = ["--texture", "--json", "--npz", "--mesh", "obj", "--render", "mesh"]
    assert run("image", pictures / "none.png", "-o", out, "--pack", "toy", *flags) == 0
    assert files_in(out) == {"none_mesh.png", "none.npz", "faces.json"}  # a mesh needs a face
    assert read_json(out)[0]["faces"] == []
    assert "none.png: 0 faces" in capsys.readouterr().out
    np.testing.assert_array_equal(load_image(out / "none_mesh.png"), picture())


def names(folder: Path) -> list[tuple[str, int]]:
    return [(Path(e["image"]["name"]).name, len(e["faces"])) for e in read_json(folder)]


def test_folders_take_their_pictures(pictures: Path, tmp_path: Path) -> None:
    (pictures / "notes.txt").write_text("no picture")
    (pictures / "deeper").mkdir()
    save_image(pictures / "THREE.JPG", picture())
    assert run("image", pictures, "-o", tmp_path / "out", "--pack", "toy", "--json") == 0
    assert names(tmp_path / "out") == [("THREE.JPG", 0), ("none.png", 0), ("one.png", 1)] + [
        ("two.png", 2)
    ]


def test_frames_come_in_the_order_of_their_numbers(pictures: Path, tmp_path: Path) -> None:
    frames = tmp_path / "take2"
    frames.mkdir()
    expected = ["1.png", "9.png", "f2.png", "f10.png", "f10_2.png", "f10_11.png"]
    for name in expected:
        shutil.copy(pictures / "none.png", frames / name)
    for given in (frames, frames / "*.png"):
        assert run("image", given, "-o", tmp_path / "out", "--pack", "toy", "--json") == 0
        assert [name for name, _ in names(tmp_path / "out")] == expected


def test_patterns(pictures: Path, tmp_path: Path) -> None:
    arguments = ["image", pictures / "*o*.png", "-o", tmp_path / "out", "--pack", "toy", "--json"]
    assert run(*arguments) == 0
    assert names(tmp_path / "out") == [("none.png", 0), ("one.png", 1), ("two.png", 2)]
    arguments[1] = tmp_path / "**" / "t??.png"
    assert run(*arguments) == 0
    assert names(tmp_path / "out") == [("two.png", 2)]


def test_a_name_that_looks_like_a_pattern(pictures: Path, tmp_path: Path) -> None:
    path = pictures / "[one].png"
    (pictures / "one.png").rename(path)
    assert run("image", path, "-o", tmp_path / "out", "--pack", "toy", "--json") == 0
    assert names(tmp_path / "out") == [("[one].png", 1)]


def test_pictures_of_the_same_name_get_a_number(pictures: Path, tmp_path: Path) -> None:
    for name, source in (("b/x.png", "two.png"), ("c/x_2.png", "none.png"), ("d/x.jpg", "one.png")):
        (pictures / name).parent.mkdir()
        save_image(pictures / name, load_image(pictures / source))
    (pictures / "x.png").write_bytes((pictures / "one.png").read_bytes())
    out = tmp_path / "out"
    given = [pictures / name for name in ("x.png", "b/x.png", "c/x_2.png", "d/x.jpg")]
    assert run("image", *given, "-o", out, "--pack", "toy", "--npz", "--json") == 0
    assert files_in(out) == {"x.npz", "x_2.npz", "x_2_2.npz", "x_3.npz", "faces.json"}
    counts = {}
    for name in ("x", "x_2", "x_2_2", "x_3"):
        with np.load(out / f"{name}.npz") as arrays:
            counts[name] = len(arrays["score"])
    assert counts == {"x": 1, "x_2": 2, "x_2_2": 0, "x_3": 1}
    assert [entry["image"]["name"] for entry in read_json(out)] == [str(path) for path in given]


def test_a_bad_file_is_reported_and_the_rest_done(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "broken.png").write_bytes((pictures / "one.png").read_bytes()[:200])
    (pictures / "text.jpg").write_text("no picture")
    given = [pictures / name for name in ("broken.png", "one.png", "text.jpg", "missing.png")]
    given += [pictures / "two.png", pictures / "*.gif"]
    out = tmp_path / "out"
    assert run("image", *given, "-o", out, "--pack", "toy", "--json", "--npz", "--csv") == 1
    assert files_in(out) == {"one.npz", "two.npz", "faces.json", "faces.csv"}
    assert names(out) == [("one.png", 1), ("two.png", 2)]
    output = capsys.readouterr()
    for name in ("broken.png", "text.jpg", "missing.png", "*.gif"):
        assert f"threedfa: {pictures / name}: cannot " in output.err
    assert output.err.endswith("threedfa: 4 of 6 pictures failed\n")
    assert output.out.count("face") == 2


def test_results_that_cannot_be_written_fail_with_their_picture(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A camera without a pose: no stack trace, no half a table."""
    pack, out = build_toy_pack(tmp_path / "flat", camera=[0] * 12), tmp_path / "out"
    assert run("image", pictures, "-o", out, "--pack", pack, "--csv", "--json") == 1
    assert names(out) == [("none.png", 0)]
    assert len((out / "faces.csv").read_text().splitlines()) == 1
    assert "one.png: camera: expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "name", "made"),
    [
        (["--render", "mesh"], "one_mesh.png", {"one_mesh_mesh.png"}),
        (["--mesh", "obj"], "one_face0.png", set()),
    ],
)
def test_given_pictures_are_never_written_over(
    pictures: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    name: str,
    made: set[str],
) -> None:
    other = pictures / name  # what a result of one.png would be called
    save_image(other, picture())
    before = other.read_bytes()
    flags = ["-o", str(pictures), "--pack", "toy", *flags]
    assert run("image", pictures / "one.png", other, *flags) == 1
    assert other.read_bytes() == before
    assert f"{name} is one of the given pictures" in capsys.readouterr().err
    assert files_in(pictures) == {"none.png", "one.png", "two.png", name} | made
    assert run("image", pictures / "one.png", *flags) == 0  # an older result, not given
    assert other.read_bytes() != before


def test_meshes_of_names_that_readers_stumble_over_share_no_file(
    pictures: Path, tmp_path: Path
) -> None:
    given = [pictures / name for name in ("a b.png", "a_b.png", "a#b.png", "-a.png")]
    for path in given:
        save_image(path, load_image(pictures / "one.png"))
    out = tmp_path / "out"
    assert run("image", *given, "-o", out, "--pack", "toy", "--mesh", "obj") == 0
    libraries = set()
    for path in given:
        text = (out / f"{path.stem}.obj").read_text()
        libraries.add(re.findall(r"mtllib (.*)", text)[0])
    assert len(libraries) == 4 and "a_b.mtl" in libraries
    assert libraries <= files_in(out)
    assert not any(name.startswith("-") or " " in name for name in libraries)
    assert len([name for name in files_in(out) if name.endswith(".png")]) == 4


def test_what_is_no_picture_in_a_folder(pictures: Path, tmp_path: Path) -> None:
    (pictures / "folder.png").mkdir()
    (pictures / ".hidden.png").write_text("no picture")
    assert run("image", pictures, "-o", tmp_path / "out", "--pack", "toy", "--json") == 0
    assert len(names(tmp_path / "out")) == 3


def test_a_name_that_is_too_long(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [pictures / ("x" * 300 + ".png"), pictures / "one.png"]
    assert run("image", *given, "-o", tmp_path / "out", "--pack", "toy", "--json") == 1
    assert names(tmp_path / "out") == [("one.png", 1)]
    assert "1 of 2 pictures failed" in capsys.readouterr().err


def test_names_that_the_terminal_cannot_show(pictures: Path, tmp_path: Path) -> None:
    shutil.copy(pictures / "one.png", pictures / "\u4e00.png")
    result = subprocess.run(
        [sys.executable, "-m", "threedfa.cli", "image", pictures / "\u4e00.png", "--pack", "toy",
         "-o", tmp_path / "out", "--json"],
        env=os.environ | {"PYTHONIOENCODING": "latin-1"}, capture_output=True, check=True,
    )  # fmt: skip
    assert b"\\u4e00.png: 1 face" in result.stdout
    assert len(names(tmp_path / "out")) == 1


@pytest.mark.parametrize(
    "work",
    [
        lambda: np.empty(2**59),
        lambda: cv2.resize(np.zeros((1, 1), np.uint8), (2**30, 2**30)),
    ],
    ids=["NumPy", "OpenCV"],
)
def test_a_picture_that_there_is_no_memory_for(
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    work: Callable[[], object],
) -> None:
    def analyze(self: FaceAnalyzer, image: Picture) -> list[threedfa.Face]:
        if image.max() == 250:  # two.png
            work()
        return []

    monkeypatch.setattr(FaceAnalyzer, "analyze", analyze)
    out = tmp_path / "out"
    assert run("image", pictures, "-o", out, "--pack", "toy", "--json") == 1
    assert "two.png: not enough memory for this picture\n" in capsys.readouterr().err
    assert names(out) == [("none.png", 0), ("one.png", 0)]


def test_an_output_folder_that_cannot_be_made(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        assert run("image", pictures / "one.png", "-o", out, "--pack", "toy") == 1
        assert f"threedfa: cannot make the folder {out}: " in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "in the way"


def test_outputs_that_cannot_be_written(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for name in ("one.npz", "faces.json"):
        (out / name).mkdir(parents=True)
    assert run("image", pictures, "-o", out, "--pack", "toy", "--npz") == 1
    assert files_in(out) == {"one.npz", "faces.json", "two.npz", "none.npz"}
    assert "one.png: cannot write" in capsys.readouterr().err
    assert run("image", pictures, "-o", out, "--pack", "toy", "--json") == 1
    assert f"threedfa: cannot write {out / 'faces.json'}" in capsys.readouterr().err
    assert files_in(out) == {"one.npz", "faces.json", "two.npz", "none.npz"}


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_read_only_folder(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o500)
    assert run("image", pictures / "one.png", "-o", out, "--pack", "toy") == 1
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--max-faces", "1"], 1),
        (["--score-threshold", "0.95"], 1),
        (["--score-threshold", "0.99999"], 0),
        (["--iou-threshold", "0"], 1),
        (["--threads", "1"], 2),
        (["--provider", "CPUExecutionProvider"], 2),
        (["--backend", "onnxruntime"], 2),
    ],
)
def test_settings(pictures: Path, tmp_path: Path, options: list[str], count: int) -> None:
    path = pictures / "two.png"
    assert run("image", path, "-o", tmp_path, "--pack", "toy", "--json", *options) == 0
    assert names(tmp_path) == [("two.png", count)]


def test_tables_are_never_written_over_given_pictures(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pictures / "faces.json"
    shutil.copy(pictures / "two.png", path)
    before = path.read_bytes()
    assert run("image", path, "-o", pictures, "--pack", "toy", "--json") == 1
    assert path.read_bytes() == before
    assert "faces.json is one of the given pictures" in capsys.readouterr().err


@pytest.mark.parametrize(
    "suffix", [".pgm", ".ppm", ".pnm", ".TIF", ".apng", ".jpe", ".JFIF", ".mpo"]
)
def test_pictures_in_a_folder(pictures: Path, tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    kinds = {".TIF": "TIFF", ".apng": "PNG", ".jpe": "JPEG", ".JFIF": "JPEG", ".mpo": "MPO"}
    kind = kinds.get(suffix, "PPM")
    Image.open(pictures / "two.png").save(folder / f"two{suffix}", kind)
    assert run("image", folder, "-o", tmp_path / "o", "--pack", "toy", "--json") == 0
    assert names(tmp_path / "o") == [(f"two{suffix}", 2)]


def test_threads_change_neither_files_nor_what_is_printed(
    home: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(4):
        shutil.copy(pictures / "two.png", pictures / f"again_{n}.png")
        (pictures / f"broken_{n}.png").write_bytes(b"no picture")
    seen = []
    for threads in (1, 4):
        arguments = ("--pack", "toy", "--threads", str(threads), "--mesh", "ply", "--json")
        assert run("image", pictures, "-o", tmp_path / "o", *arguments) == 1
        files = {path.name: path.read_bytes() for path in sorted((tmp_path / "o").iterdir())}
        seen.append((files, capsys.readouterr()))
        shutil.rmtree(tmp_path / "o")
    assert seen[0] == seen[1]
    assert len(seen[0][0]) == 7  # six with faces, and faces.json
    assert seen[0][1].err.count("cannot read") == 4


def test_endings_are_documented() -> None:
    page = Path(__file__).parents[2] / "docs" / "command_line.md"
    assert set(SUFFIXES) <= set(re.findall(r"`(\.[a-z]+)`", page.read_text()))


def test_pictures_of_too_many_pixels(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], toy_pack: Path
) -> None:
    path = pictures / "two.png"
    pixels = load_image(path).size // 3
    command = ("image", path, "-o", tmp_path, "--pack", "toy", "--json", "--max-pixels")
    assert run(*command, str(pixels - 1)) == 1
    assert f"more than the limit of {pixels - 1}" in capsys.readouterr().err
    assert run(*command, str(pixels)) == 0
    assert names(tmp_path) == [("two.png", 2)]
    for wrong in ("0", "many"):
        with pytest.raises(SystemExit):
            run(*command, wrong)
        assert "--max-pixels: expected" in capsys.readouterr().err


def test_a_pack_by_its_folder(pictures: Path, tmp_path: Path, toy_pack: Path) -> None:
    assert run("image", pictures, "-o", tmp_path / "out", "--pack", toy_pack) == 0
    assert len(files_in(tmp_path / "out")) == 6


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--pack", "nobody"], 1, "there is no pack named 'nobody'; found: default, toy"),
        (["--pack", "toy", "--provider", "Abacus"], 1, "CPUExecutionProvider, got Abacus"),
        (["--pack", "toy", "--threads", "0"], 2, "num_threads: expected None or"),
        (["--pack", "toy", "--threads", "999999999999"], 2, "whole number in 1..1024, got"),
        (["--pack", "toy", "--max-faces", "-1"], 2, "max_faces: expected None or"),
        (["--pack", "toy", "--score-threshold", "7"], 2, "score_threshold: expected None or 0..1"),
        (["--pack", "toy", "--iou-threshold", "nan"], 2, "iou_threshold: expected None or 0..1"),
    ],
)
def test_settings_that_will_not_do(
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    status: int,
    message: str,
) -> None:
    assert run("image", pictures, "-o", tmp_path / "out", *options) == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["paint"],
        ["image", "a.png", "--render", "nicely"],
        ["image", "a.png", "--mesh", "gltf"],
        ["image", "a.png", "--max-faces", "many"],
        ["image", "a.png", "--backend", "darknet"],
        ["pack"],
        ["pack", "import"],
        ["pack", "download", "other"],
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    assert "usage: threedfa" in capsys.readouterr().err


def test_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("image", "--pack", "toy") == 2
    assert "no picture given" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run("image", tmp_path / "empty", "--pack", "toy") == 1
    assert f"no pictures in the folder {tmp_path / 'empty'}: expected" in capsys.readouterr().err
    for empty in ("", "a.png"), ("a.png", ""):
        with pytest.raises(SystemExit) as stop:
            run("image", *empty)
        assert stop.value.code == 2
        assert "expected a file, a folder or a pattern, got no text" in capsys.readouterr().err


def test_folders_that_give_no_pictures_are_reported_and_the_rest_done(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    empty, locked = tmp_path / "empty", tmp_path / "locked"
    empty.mkdir()
    locked.mkdir()
    iterdir = Path.iterdir

    def refuse(self: Path) -> Any:
        if self == locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    out = tmp_path / "out"
    assert run("image", empty, pictures, locked, "-o", out, "--pack", "toy", "--json") == 1
    assert [name for name, _ in names(out)] == ["none.png", "one.png", "two.png"]
    error = capsys.readouterr().err
    assert f"threedfa: no pictures in the folder {empty}: " in error
    assert f"threedfa: cannot read the folder {locked}: Permission denied\n" in error


@pytest.mark.skipif(os.name != "posix", reason="links need no privilege on POSIX")
def test_a_link_to_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert run("image", tmp_path / "loop.png", "-o", tmp_path / "out", "--pack", "toy") == 1
    assert "loop.png" in capsys.readouterr().err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for argument, text in (("--version", f"threedfa {threedfa.__version__}"), ("--help", "doctor")):
        with pytest.raises(SystemExit) as stop:
            run(argument)
        assert stop.value.code == 0
        assert text in capsys.readouterr().out


# --- the sample -----------------------------------------------------------------------------------


def test_the_sample_is_a_picture() -> None:
    with Image.open(cli.SAMPLE) as sample:
        assert min(sample.size) >= 200


def test_sample_with_a_pack(tmp_path: Path, pictures: Path) -> None:
    out = tmp_path / "out"
    assert run("image", "--sample", pictures / "one.png", "-o", out, "--pack", "toy") == 0
    assert files_in(out) == {"one_mesh.png", "one_landmarks.png"} | {
        f"{cli.SAMPLE.stem}_{mode}.png" for mode in ("mesh", "landmarks")
    }


def test_sample_with_the_pack_that_comes_with_the_package(
    tmp_path: Path, default_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other file is needed, and both faces are found."""
    monkeypatch.setenv("THREEDFA_HOME", str(tmp_path / "empty"))
    assert run("image", "--sample", "-o", tmp_path / "out", "--json", "--mesh", "glb") == 0
    assert files_in(tmp_path / "out") == {"faces.json", f"{cli.SAMPLE.stem}.glb"}
    assert len(read_json(tmp_path / "out")[0]["faces"]) == 2


# --- pack -----------------------------------------------------------------------------------------


def test_pack_list(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = home / "packs" / "broken"
    broken.mkdir()
    (broken / "pack.json").write_text("{")
    assert run("pack", "list") == 0
    lines = dict(line.split("\t", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["toy"] == f"{home / 'packs' / 'toy'}\tMIT"
    assert "expected a JSON object" in lines["broken"]


def test_pack_info(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pack", "info", "toy") == 0
    text = capsys.readouterr().out
    for part in ("MIT", "made by a test", "half a head", "4 shape, 3 expression", "detector.onnx"):
        assert part in text
    assert run("pack", "info", "nobody") == 1
    assert "no pack named 'nobody'" in capsys.readouterr().err


def test_pack_verify(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pack", "verify", "toy") == 0
    with (home / "packs" / "toy" / "regressor.onnx").open("ab") as stream:
        stream.write(b"x")
    capsys.readouterr()
    assert run("pack", "verify", "toy") == 1
    assert "SHA-256 differs from pack.json for regressor.onnx" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_pack_import(
    upstream_files: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["pack", "import", "--from", upstream_files, "--name", "3ddfa_v2-mb05"]
    folder = home / "packs" / "3ddfa_v2-mb05"
    assert run(*command) == 0
    output = capsys.readouterr()
    assert output.out == f"{folder}\n"
    warned = [line for line in output.err.splitlines() if "differs from the published" in line]
    assert len(warned) == 7
    assert all(line.startswith("threedfa: warning: ") for line in output.err.splitlines())
    assert run("pack", "verify", "3ddfa_v2-mb05") == 0
    assert run("pack", "list") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3  # one line a pack
    # It works.
    save_image("picture.png", picture())
    assert run("image", "picture.png", "--pack", "3ddfa_v2-mb05", "--max-faces", "1") == 0
    # Never replaced by accident.
    before = (folder / "pack.json").stat().st_mtime_ns
    assert run(*command) == 1
    assert "exists; remove it or overwrite it (--overwrite)" in capsys.readouterr().err
    assert (folder / "pack.json").stat().st_mtime_ns == before
    assert run(*command, "--overwrite") == 0
    assert (folder / "pack.json").stat().st_mtime_ns > before


def test_pack_import_never_takes_the_place_of_the_default(
    upstream_files: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ([], ["--overwrite"]):
        assert run("pack", "import", "--from", upstream_files, "--name", "default", *more) == 1
        assert "'default' is the name of a pack that comes with" in capsys.readouterr().err
    assert files_in(home / "packs") == {"toy"}


def test_pack_import_from_nothing(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for source in (tmp_path, tmp_path / "missing"):
        assert run("pack", "import", "--from", source, "--name", "mine") == 1
        assert str(source) in capsys.readouterr().err
    assert files_in(home / "packs") == {"toy"}


def test_pack_download_needs_the_licence_accepted(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: Any, **named: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    assert run("pack", "download", "3ddfa_v2-mb1") == 1
    message = capsys.readouterr().err
    assert "--accept-licence" in message and "Basel Face Model" in message
    assert files_in(home / "packs") == {"toy"}


# --- as a program ---------------------------------------------------------------------------------


def test_as_a_program(pictures: Path, tmp_path: Path) -> None:
    (pictures / "text.jpg").write_text("no picture")
    command = [sys.executable, "-m", "threedfa.cli", "image", str(pictures), "-o", "out", "--json"]
    source = str(Path(threedfa.__file__).parents[1])
    done = subprocess.run(
        [*command, "--pack", "toy"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": source, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "text.jpg: cannot read" in done.stderr
    assert "1 of 4 pictures failed" in done.stderr
    assert "4/4" not in done.stderr  # the progress bar is for terminals
    assert names(tmp_path / "out") == [("none.png", 0), ("one.png", 1), ("two.png", 2)]


@pytest.mark.skipif(os.name != "posix", reason="POSIX's terminals")
def test_a_terminal_shows_progress(pictures: Path, tmp_path: Path) -> None:
    import fcntl
    import termios

    reader, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    command = [sys.executable, "-m", "threedfa.cli", "image", str(pictures), "-o", "out", "--json"]
    source = str(Path(threedfa.__file__).parents[1])
    subprocess.run(
        [*command, "--pack", "toy"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": source},
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        timeout=120,
        check=True,
    )
    os.close(terminal)
    assert b"3/3" in os.read(reader, 1 << 16)
    os.close(reader)


def test_what_was_refused(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = build_toy_pack(tmp_path / "strict", presence={})
    path = pictures / "one.png"
    (face,) = FaceAnalyzer(pack, confidence_threshold=0).analyze(path)
    flags = ("-o", tmp_path, "--pack", pack, "--refused", "--confidence-threshold", "1")
    assert run("image", path, *flags, "--json", "--jsonl") == 0
    assert "one.png: 0 faces, 1 refused" in capsys.readouterr().out
    (entry,) = json.loads((tmp_path / "faces.json").read_text())
    schema = json.loads(
        resources.files("threedfa").joinpath("schemas/result.schema.json").read_text()
    )
    jsonschema.Draft202012Validator(schema).validate([entry])
    assert entry["faces"] == []
    (refused,) = entry["refused"]
    np.testing.assert_array_equal(np.float32(refused["bbox"]), face.bbox)
    assert np.float32(refused["score"]) == np.float32(face.score)
    assert refused["confidence"] == pytest.approx(face.confidence)
    assert json.loads((tmp_path / "faces.jsonl").read_text()) == entry
    assert run("image", path, "-o", tmp_path, "--pack", pack, "--json") == 0
    assert "refused" not in json.loads((tmp_path / "faces.json").read_text())[0]


def test_detection_size_and_orientations(
    pictures: Path, tmp_path: Path, toy_pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pictures / "one.png"
    flags = ("image", path, "-o", tmp_path, "--pack", "toy", "--json")
    for size in ("64", "full"):
        assert run(*flags, "--detection-size", size, "--orientations", "any") == 0
        expected = FaceAnalyzer(
            toy_pack, detection_size=size if size == "full" else int(size), orientations="any"
        ).analyze(path)
        (entry,) = json.loads((tmp_path / "faces.json").read_text())
        boxes = [face["bbox"] for face in entry["faces"]]
        np.testing.assert_array_equal(
            np.reshape(np.float32(boxes), (-1, 4)),
            np.reshape([face.bbox for face in expected], (-1, 4)),
        )
    assert run(*flags, "--detection-size", "5") == 2
    assert "detection_size: expected 'auto', 'full' or" in capsys.readouterr().err
    assert run(*flags, "--confidence-threshold", "0.5") == 2  # the toy has none
    with pytest.raises(SystemExit):
        run(*flags, "--detection-size", "large")
