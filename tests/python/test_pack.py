"""Finding, reading and checking packs. The packs here have the right settings and no networks."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threedfa.errors import PackError
from threedfa.pack import ModelSpec, Pack, list_packs, pack_path, verify_pack
from threedfa.priors import PriorConfig

CONTENTS = {
    "detector.onnx": b"a detector",
    "regressor.onnx": b"a regressor",
    "model.safetensors": b"a model" * 1000,
}


def pack_settings() -> dict[str, Any]:
    return {
        "schema_version": 1,
        "name": "tiny",
        "licence": "none at all",
        "source": "the tests",
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in CONTENTS.items()},
        "detector": {
            "file": "detector.onnx",
            "color": "bgr",
            "layout": "NCHW",
            "mean": [104, 117, 123],
            "scale": [1, 1, 1],
            "priors": [
                {
                    "step": 32,
                    "sizes": [
                        {"size": 32, "density": 4, "offset": 0.0},
                        {"size": 64, "density": 2, "offset": 0.0},
                        {"size": 128, "density": 1, "offset": 0.5},
                    ],
                },
                {"step": 64, "sizes": [{"size": 256, "density": 1, "offset": 0.5}]},
                {"step": 128, "sizes": [{"size": 512, "density": 1, "offset": 0.5}]},
            ],
            "variances": [0.1, 0.2],
            "score_threshold": 0.5,
            "iou_threshold": 0.3,
            "nms_offset": 1,
            "top_k": 5000,
            "keep_top_k": 750,
            "working_size": {"max_height": 720, "max_width": 1080},
        },
        "regressor": {
            "file": "regressor.onnx",
            "color": "rgb",
            "layout": "NCHW",
            "input_size": 120,
            "mean": [127.5, 127.5, 127.5],
            "scale": [0.0078125, 0.0078125, 0.0078125],
            "param_mean": [0.5 * i for i in range(17)],
            "param_std": [1.0 + i for i in range(17)],
            "param_split": {"camera": 12, "shape": 3, "expression": 2},
            "roi": {
                "box_scale": 1.58,
                "box_shift_y": 0.14,
                "integer_side": True,
                "landmark_scale": 1.4142135623730951,
            },
        },
        "morphable_model": {"file": "model.safetensors", "unit": "micrometre"},
    }


def write_pack(folder: Path, content: object = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in CONTENTS.items():
        (folder / name).write_bytes(data)
    text = json.dumps(pack_settings() if content is None else content)
    (folder / "pack.json").write_text(text, "utf-8")
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """$THREEDFA_HOME; the user's cache folder is an empty one, too."""
    monkeypatch.setenv("THREEDFA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "home"


def cached_packs() -> Path:
    return platformdirs.user_cache_path("threedfa", appauthor=False) / "packs"


def test_load_gives_what_pack_json_says(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "tiny")
    pack = Pack.load(folder)
    assert (pack.name, pack.folder, pack.licence) == ("tiny", folder, "none at all")
    assert pack.detector.priors == PriorConfig.faceboxes()
    assert pack.detector.mean == (104.0, 117.0, 123.0)
    assert pack.detector.working_size.max_width == 1080
    assert pack.detector.nms_offset == 1
    assert pack.regressor.color == "rgb"
    assert pack.regressor.param_std == tuple(1.0 + i for i in range(17))
    assert pack.regressor.param_split.total == 17
    assert pack.regressor.roi.integer_side is True
    assert (pack.regressor.passes, pack.regressor.roi_tolerance) == (1, 0.0)
    assert pack.regressor.confidence_threshold is None
    assert pack.model.unit == "micrometre"
    assert pack.file_path(pack.model.file).read_bytes() == CONTENTS["model.safetensors"]
    assert {file.name for file in pack.files} == set(CONTENTS)
    assert hash(pack) == hash(Pack.load(str(folder)))


def test_presence(tmp_path: Path) -> None:
    settings = pack_settings()
    settings["presence"] = {
        "file": "regressor.onnx",
        "color": "grey",
        "layout": "NCHW",
        "input_size": 64,
        "mean": [127.5],
        "scale": [0.0078125],
        "roi_scale": 1.25,
        "confidence_threshold": 0.4,
    }
    presence = Pack.load(write_pack(tmp_path / "a", settings)).presence
    assert presence is not None
    assert (presence.file, presence.input_size, presence.mean) == ("regressor.onnx", 64, (127.5,))
    assert (presence.roi_scale, presence.confidence_threshold) == (1.25, 0.4)
    # Of the two networks that tell it is the one that is asked.
    settings["regressor"]["confidence_threshold"] = 0.7
    assert Pack.load(write_pack(tmp_path / "b", settings)).confidence_threshold == 0.4
    without = Pack.load(write_pack(tmp_path / "c"))
    assert (without.presence, without.confidence_threshold) == (None, None)
    for key, value in (
        ("file", "other.onnx"),
        ("color", "gray"),
        ("mean", [1, 2, 3]),
        ("roi_scale", 0),
        ("confidence_threshold", None),
        ("threshold", 0.5),
    ):
        wrong = {**settings, "presence": {**settings["presence"], key: value}}
        with pytest.raises(PackError, match=rf"presence\.{key}: expected"):
            Pack.load(write_pack(tmp_path / key, wrong))


def change(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Sets a value at a path such as ``detector.priors.0.step``."""

    def apply(content: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        node: Any = content
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node[part]
        node[int(last) if isinstance(node, list) else last] = value

    return apply


def remove(*path: str) -> Callable[[dict[str, Any]], None]:
    def apply(content: dict[str, Any]) -> None:
        node = content
        for part in path[:-1]:
            node = node[part]
        del node[path[-1]]

    return apply


NAN, INFINITY = float("nan"), float("inf")

# The change, and what the message must name besides the pack.
BAD_SETTINGS: list[tuple[Callable[[dict[str, Any]], None], list[str]]] = [
    (change("schema_version", 2), ["schema_version", "expected 1", "found 2", "update"]),
    (change("schema_version", True), ["schema_version"]),
    (remove("schema_version"), ["schema_version", "no such key"]),
    (remove("name"), ["name", "no such key"]),
    (change("name", "../evil"), ["name", "evil"]),
    (change("name", 3), ["name", "text", "3"]),
    (change("surplus", 1), ["surplus"]),
    (change("detector.surplus", 1), ["detector.surplus"]),
    (change("detector", []), ["detector", "an object"]),
    (remove("detector", "top_k"), ["detector.top_k", "no such key"]),
    (change("detector.file", "other.onnx"), ["detector.file", "other.onnx"]),
    (change("detector.file", "../detector.onnx"), ["detector.file"]),
    (change("detector.color", "hsv"), ["detector.color", '"rgb" or "bgr" or "grey"', "hsv"]),
    (change("detector.color", "grey"), ["detector.mean", "1 numbers", "3 entries"]),
    (change("regressor.color", "grey"), ["regressor.color", '"rgb" or "bgr"', "grey"]),
    (change("detector.color", ["bgr"]), ["detector.color"]),
    (change("detector.layout", "NHWC"), ["detector.layout", "NCHW"]),
    (change("detector.mean", [1, 2]), ["detector.mean", "3 numbers", "2 entries"]),
    (change("detector.mean", [1, 2, "3"]), ["detector.mean[2]", "'3'"]),
    (change("detector.mean", [1, 2, NAN]), ["detector.mean[2]", "nan"]),
    (change("detector.scale", [1, 2, True]), ["detector.scale[2]", "True"]),
    (change("detector.scale", 1), ["detector.scale", "list of 3"]),
    (change("detector.priors", []), ["detector.priors"]),
    (change("detector.priors", [3]), ["detector.priors[0]", "an object"]),
    (change("detector.priors.0.step", 0), ["detector.priors[0].step", "found 0"]),
    (change("detector.priors.0.step", 32.0), ["detector.priors[0].step", "32.0"]),
    (change("detector.priors.0.sizes.1.density", 0), ["detector.priors[0].sizes[1].density"]),
    (change("detector.priors.0.sizes.1.size", -1), ["detector.priors[0].sizes[1].size"]),
    (change("detector.priors.0.sizes.1.extra", 1), ["detector.priors[0].sizes[1].extra"]),
    (change("detector.variances", [0.1, 0]), ["detector.variances[1]"]),
    (change("detector.score_threshold", 1.5), ["detector.score_threshold", "1.5"]),
    (change("detector.iou_threshold", INFINITY), ["detector.iou_threshold", "inf"]),
    (change("detector.nms_offset", 2), ["detector.nms_offset", "found 2"]),
    (change("detector.top_k", 10**400), ["detector.top_k", "1000"]),
    (change("detector.working_size", None), ["detector.working_size", "None"]),
    (remove("detector", "working_size", "max_width"), ["detector.working_size.max_width"]),
    (change("regressor.input_size", "120"), ["regressor.input_size", "'120'"]),
    (change("regressor.param_mean", [0.0] * 62), ["regressor.param_mean", "17", "62"]),
    (change("regressor.param_std.3", -1), ["regressor.param_std[3]", "-1"]),
    (change("regressor.param_std.3", 10**400), ["regressor.param_std[3]"]),
    (change("regressor.param_split.camera", 7), ["regressor.param_split.camera", "7"]),
    (change("regressor.param_split.shape", 4), ["regressor.param_mean", "18"]),
    (change("regressor.roi.integer_side", 1), ["regressor.roi.integer_side", "true or false"]),
    (change("regressor.passes", 3), ["regressor.passes", "found 3"]),
    (change("regressor.roi_tolerance", -0.1), ["regressor.roi_tolerance", "-0.1"]),
    (change("regressor.confidence_threshold", 2), ["regressor.confidence_threshold", "2"]),
    (change("regressor.roi.box_scale", 0), ["regressor.roi.box_scale"]),
    (change("morphable_model.unit", ""), ["morphable_model.unit"]),
    (change("morphable_model.expression_names", []), ["morphable_model.expression_names"]),
    (change("morphable_model.expression_names", None), ["morphable_model.expression_names"]),
    (change("morphable_model.expression_names", ["a", 5]), ["expression_names[1]", "5"]),
    (change("morphable_model.expression_names", ["a", "a"]), ["expression_names[1]", "'a'"]),
    (change("morphable_model.expression_names", ["a"]), ["each of the 2", "1 names"]),
    (change("files", {}), ["file"]),
    (change("files", {"detector.onnx": "0" * 64}), ["regressor.file", "detector.onnx"]),
    *(
        (
            lambda content, name=name: content["files"].update({name: "0" * 64}),
            ["files", repr(name)],
        )
        for name in ("../x", "/etc/passwd", "a/b", "a\\b", "..", ".", "", "c:x", ".x", "pack.json")
    ),
    (lambda content: content["files"].update({"x": "0" * 63}), ["files.x", "64 hexadecimal"]),
    (lambda content: content["files"].update({"x": "G" * 64}), ["files.x"]),
    (lambda content: content["files"].update({"x": 5}), ["files.x", "5"]),
]


def test_expression_names_and_unit(tmp_path: Path) -> None:
    content = pack_settings()
    assert Pack.load(write_pack(tmp_path / "a", content)).model.expression_names == ()
    content["morphable_model"] |= {"expression_names": ["blink", "smile"], "unit": "centimetre"}
    model = Pack.load(write_pack(tmp_path / "b", content)).model
    assert model.expression_names == ("blink", "smile")
    sizes = {"micrometre": 1e-4, "millimetre": 0.1, "centimetre": 1, "metre": 100, "head": None}
    for unit, expected in sizes.items():
        assert ModelSpec(file="f", unit=unit).centimetres_per_unit == expected


@pytest.mark.parametrize(("spoil", "named"), BAD_SETTINGS)
def test_bad_settings_are_named(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None], named: list[str]
) -> None:
    content = pack_settings()
    spoil(content)
    folder = write_pack(tmp_path / "tiny", content)
    with pytest.raises(PackError) as caught:
        Pack.load(folder)
    message = str(caught.value)
    assert len(message) < 1000
    for part in [str(folder), *named]:
        assert part in message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"a": 1, "a": 2}',
        b'{"schema_version": 1' + b"1" * 5000 + b"}",
        b" " * (2 << 20),
    ],
)
def test_pack_json_that_is_no_json_object(tmp_path: Path, data: bytes) -> None:
    folder = write_pack(tmp_path / "tiny")
    (folder / "pack.json").write_bytes(data)
    with pytest.raises(PackError, match=r"pack\.json"):
        Pack.load(folder)


def every_leaf(content: Any, path: str = "") -> list[str]:
    items = content.items() if isinstance(content, dict) else enumerate(content)
    leaves = []
    for key, value in items:
        below = f"{path}.{key}" if path else str(key)
        leaves += every_leaf(value, below) if isinstance(value, (dict, list)) else [below]
    return leaves


LEAVES = [leaf for leaf in every_leaf(pack_settings()) if not leaf.startswith("files.")]


@settings(max_examples=100)
@given(
    leaf=st.sampled_from(LEAVES),
    value=st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.lists(st.integers(), max_size=3)
    | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
def test_any_value_anywhere_is_taken_or_refused_with_a_pack_error(
    tmp_path_factory: pytest.TempPathFactory, leaf: str, value: object
) -> None:
    content = pack_settings()
    change(leaf, value)(content)
    folder = write_pack(tmp_path_factory.mktemp("any") / "tiny", content)
    try:
        pack = Pack.load(folder)
    except PackError as error:
        assert str(folder) in str(error)
    else:
        assert all(abs(std) < float("inf") for std in pack.regressor.param_std)


def test_altered_files_are_each_named(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "tiny")
    (folder / "detector.onnx").write_bytes(b"another detector")
    (folder / "model.safetensors").write_bytes(b"")
    for check in (Pack.load, verify_pack):
        with pytest.raises(PackError) as caught:
            check(folder)
        assert "detector.onnx" in str(caught.value)
        assert "model.safetensors" in str(caught.value)
        assert "regressor.onnx" not in str(caught.value)
        assert hashlib.sha256(b"another detector").hexdigest() in str(caught.value)
    assert Pack.load(folder, verify=False).name == "tiny"


@pytest.mark.parametrize("verify", [True, False])
def test_missing_files_are_each_named(tmp_path: Path, verify: bool) -> None:
    folder = write_pack(tmp_path / "tiny")
    (folder / "detector.onnx").unlink()
    (folder / "regressor.onnx").unlink()
    with pytest.raises(PackError, match=r"missing detector\.onnx, regressor\.onnx"):
        Pack.load(folder, verify=verify)


def test_a_file_that_is_a_folder(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "tiny")
    (folder / "detector.onnx").unlink()
    (folder / "detector.onnx").mkdir()
    with pytest.raises(PackError, match=r"detector\.onnx: expected a regular file"):
        Pack.load(folder)


def test_links_must_stay_in_the_pack(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "tiny")
    outside = tmp_path / "detector.onnx"
    (folder / "detector.onnx").rename(outside)
    (folder / "detector.onnx").symlink_to(outside)
    with pytest.raises(PackError, match="outside the pack"):
        Pack.load(folder)
    outside.rename(folder / "real.onnx")
    (folder / "detector.onnx").unlink()
    (folder / "detector.onnx").symlink_to("real.onnx")
    assert Pack.load(folder).name == "tiny"
    # A link to the whole pack is the user's own choice.
    (tmp_path / "link").symlink_to(folder)
    assert Pack.load(tmp_path / "link").name == "tiny"


def test_search_order(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = write_pack(cached_packs() / "tiny")
    assert pack_path("tiny") == cached
    at_home = write_pack(home / "packs" / "tiny")
    assert pack_path("tiny") == at_home
    monkeypatch.delenv("THREEDFA_HOME")
    assert pack_path("tiny") == cached
    monkeypatch.setenv("THREEDFA_HOME", str(home))
    write_pack(tmp_path / "here" / "tiny")
    monkeypatch.chdir(tmp_path / "here")
    assert pack_path("tiny") == Path("tiny")
    assert pack_path(at_home) == at_home
    assert pack_path(str(at_home)) == at_home


def test_list_packs(home: Path, default_pack: Path) -> None:
    (own,) = list_packs()
    assert (own.name, own.path, own.problem) == ("default", default_pack, "")
    at_home = write_pack(home / "packs" / "b")
    write_pack(cached_packs() / "b", {})
    broken = write_pack(cached_packs() / "a", {})
    (home / "packs" / "not-a-pack").mkdir()
    write_pack(home / "packs" / ".b.0000.new")
    a, b, _ = list_packs()
    assert (a.name, a.path, a.licence) == ("a", broken, "")
    assert "schema_version" in a.problem
    assert (b.name, b.path, b.licence, b.problem) == ("b", at_home, "none at all", "")


def test_unknown_name_says_what_there_is_and_how_to_get_one(home: Path) -> None:
    with pytest.raises(PackError, match="found: default "):
        Pack.load("tiny")
    write_pack(home / "packs" / "tiny")
    with pytest.raises(PackError) as caught:
        Pack.load("3ddfa_v2-mb1")
    for part in ("3ddfa_v2-mb1", "tiny", "threedfa pack import --from", "threedfa pack download"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["", "..", ".", "../tiny", "packs/tiny", "/", "/nowhere/at/all", "a\0b", "a b", "x" * 5000,
     "\ud800", b"tiny", Path("nowhere")],
)  # fmt: skip
def test_names_that_are_neither_name_nor_folder(home: Path, name: Any) -> None:
    write_pack(home / "packs" / "tiny")
    with pytest.raises(PackError, match="pack"):
        pack_path(name)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all files")
def test_unreadable_file(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "tiny")
    (folder / "detector.onnx").chmod(0)
    with pytest.raises(PackError, match=r"cannot read .*detector\.onnx"):
        Pack.load(folder)
