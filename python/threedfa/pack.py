"""Packs: the folders that hold the networks, the face model and their settings.

A pack is a folder with ``pack.json``, two or three ONNX graphs and the face model as a safetensors
file.
Nothing in it can run code. ``pack.json`` is read strictly: a missing or unknown key, a wrong type,
a number that is not finite or out of range, or a file outside the folder is a
:class:`~threedfa.errors.PackError` that names the pack and the key.

Where a pack is looked for, in this order: the given folder, ``$THREEDFA_HOME/packs``, the packs in
the user's cache folder, the packs inside the package.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import platformdirs

from .errors import PackError
from .priors import PriorConfig, PriorLevel, PriorSize

SCHEMA_VERSION = 1
PACK_JSON = "pack.json"
CAMERA_PARAMETERS = 12  # a 3x4 matrix
CENTIMETRES = {"micrometre": 1e-4, "millimetre": 0.1, "centimetre": 1.0, "metre": 100.0}
"""What the units that a pack may name are in centimetres."""

_PACK_JSON_LIMIT = 1 << 20  # bytes; a real one has a few thousand
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REPAIR = "correct the file or import the pack again"
_BUNDLED = Path(__file__).parent / "packs"

GREY: Final = "grey"
"""The ``color`` of a network that sees no colours."""


@dataclass(frozen=True)
class WorkingSize:
    """Images larger than this, in pixels, are made smaller before detection.

    Images whose longer side is less than ``enlarge_to`` are made larger, up to it and to twice
    their size; None: they stay as they are.
    """

    max_height: int
    max_width: int
    enlarge_to: int | None = None


@dataclass(frozen=True)
class DetectorSpec:
    """The face detector of a pack.

    Network input: ``(pixel - mean) * scale`` with the channels in the order of ``color``; one
    channel where that is ``grey``. Height and width are multiples of ``size_divisor``: zeros fill
    it up at the right and at the bottom.
    """

    file: str
    color: str
    layout: str
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    priors: PriorConfig
    variances: tuple[float, float]
    score_threshold: float
    iou_threshold: float
    nms_offset: int
    top_k: int
    keep_top_k: int
    working_size: WorkingSize
    size_divisor: int = 1


@dataclass(frozen=True)
class ParamSplit:
    """How many regressed parameters belong to what, in this order."""

    camera: int
    shape: int
    expression: int

    @property
    def total(self) -> int:
        return self.camera + self.shape + self.expression


@dataclass(frozen=True)
class RoiSpec:
    """How a box or a set of landmarks becomes the square that the regressor looks at.

    ``box_scale`` and ``box_shift_y`` are in mean sides of the box, ``landmark_scale`` in longer
    sides of the landmarks' bounding rectangle; ``integer_side`` truncates the square's side to
    whole pixels.
    """

    box_scale: float
    box_shift_y: float
    integer_side: bool
    landmark_scale: float


@dataclass(frozen=True)
class RegressorSpec:
    """The parameter regressor of a pack: parameter = output * ``param_std`` + ``param_mean``.

    With two ``passes`` it looks again, at the region of the landmarks that it found, where a corner
    of that is farther than ``roi_tolerance`` of its side from where it looked first. With a
    ``confidence_threshold`` a second output (N, 1) is the logit of the confidence that the region
    holds a face; what has less than the threshold is taken for none.
    """

    file: str
    color: str
    layout: str
    input_size: int
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]
    param_mean: tuple[float, ...]
    param_std: tuple[float, ...]
    param_split: ParamSplit
    roi: RoiSpec
    passes: int = 1
    roi_tolerance: float = 0.0
    confidence_threshold: float | None = None


@dataclass(frozen=True)
class PresenceSpec:
    """A small network that tells whether a region shows a human face: (N, 1), 0..1.

    It sees the square that the regressor sees first, grown by ``roi_scale`` about its middle. What
    it gives less than ``confidence_threshold`` is no face and does not reach the regressor.
    """

    file: str
    color: str
    layout: str
    input_size: int
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    roi_scale: float
    confidence_threshold: float


@dataclass(frozen=True)
class ModelSpec:
    """The morphable model of a pack.

    ``unit`` is that of object space: a key of ``CENTIMETRES``, or any other text for a model
    without a size in space. ``expression_names`` has one name for each expression mode, or none.
    """

    file: str
    unit: str
    expression_names: tuple[str, ...] = ()

    @property
    def centimetres_per_unit(self) -> float | None:
        """None where the model has no size in space."""
        return CENTIMETRES.get(self.unit)


@dataclass(frozen=True)
class PackFile:
    """A file of a pack and the SHA-256 it must have (64 hexadecimal digits)."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Pack:
    """A pack whose ``pack.json`` has been read and checked."""

    folder: Path
    name: str
    licence: str
    source: str
    files: tuple[PackFile, ...]
    detector: DetectorSpec
    regressor: RegressorSpec
    model: ModelSpec
    presence: PresenceSpec | None = None

    @property
    def confidence_threshold(self) -> float | None:
        """That of ``presence`` or else of the regressor; None where neither tells faces from what
        is none."""
        return (self.presence or self.regressor).confidence_threshold

    @staticmethod
    def load(pack: str | os.PathLike[str], *, verify: bool = True) -> Pack:
        """Find a pack by name or folder, read its settings and check its files.

        With ``verify``, every file is compared with its SHA-256. That takes about 30 ms
        for a pack of 32 MB where the processor has SHA instructions; without it only the existence
        of the files is checked. What the files hold (network inputs, tensor shapes) is checked by
        whatever opens them.

        Raises:
            PackError: if there is no such pack, or it is incomplete, altered or malformed.
        """
        folder = pack_path(pack)
        loaded = _parse_pack(folder, _read_json(folder / PACK_JSON))
        missing = [file.name for file in loaded.files if not (folder / file.name).exists()]
        if missing:
            raise PackError(
                f"pack {loaded.name} in {folder}: missing {', '.join(missing)}; import or download "
                "the pack again"
            )
        for file in loaded.files:
            loaded.file_path(file.name)
        if verify:
            loaded.verify()
        return loaded

    def file_path(self, name: str) -> Path:
        """Path of one of the pack's files.

        Raises:
            PackError: if it does not exist, is not a regular file, or is a link that leaves the
                folder.
        """
        path = self.folder / name
        try:
            mode = path.stat().st_mode
            real = path.resolve(strict=True)
            inside = real.is_relative_to(self.folder.resolve(strict=True))
        except OSError as error:
            raise _unreadable(path, error) from error
        if not inside:
            raise PackError(
                f"pack {self.name}: {path} is a link to {real}, outside the pack; put the file "
                "itself into the folder"
            )
        if not stat.S_ISREG(mode):
            raise PackError(f"pack {self.name}: {path}: expected a regular file; {_REPAIR}")
        return path

    def verify(self) -> None:
        """Compare every file with its SHA-256.

        Raises:
            PackError: listing each file that differs, or if one cannot be read.
        """
        wrong = []
        for file in self.files:
            found = _sha256(self.file_path(file.name))
            if found != file.sha256:
                wrong.append(f"{file.name} (expected {file.sha256}, found {found})")
        if wrong:
            raise PackError(
                f"pack {self.name} in {self.folder}: SHA-256 differs from pack.json for "
                f"{', '.join(wrong)}; the files were altered or damaged: import or download the "
                "pack again"
            )


@dataclass(frozen=True)
class PackInfo:
    """A pack that was found. ``problem`` is empty where it can be read."""

    name: str
    path: Path
    licence: str
    problem: str


def list_packs() -> list[PackInfo]:
    """The packs that can be used by name, sorted by name. Their files are not hashed.

    Where several folders have a pack of the same name, the one that would be used is listed.
    """
    found: dict[str, PackInfo] = {}
    for root in _search_folders():
        for folder in _packs_in(root):
            if folder.name in found:
                continue
            try:
                pack = Pack.load(folder, verify=False)
            except PackError as error:
                found[folder.name] = PackInfo(folder.name, folder, "", str(error))
            else:
                found[folder.name] = PackInfo(folder.name, folder, pack.licence, "")
    return [found[name] for name in sorted(found)]


def pack_path(name: str | os.PathLike[str]) -> Path:
    """The folder of a pack, given by name or as a folder.

    Raises:
        PackError: if there is no such pack.
    """
    text = os.fspath(name)
    if not isinstance(text, str) or not text or "\0" in text:
        raise PackError(f"{text!r} is not a pack; give the name of a pack or its folder")
    folder = Path(text)
    if _holds_pack(folder):
        return folder
    if not isinstance(name, str) or not is_pack_name(text):
        raise PackError(
            f"{text!r} is not a folder that holds a {PACK_JSON}; give the folder or the name of a "
            "pack"
        )
    for root in _search_folders():
        if _holds_pack(root / text):
            return root / text
    known = [folder.name for root in _search_folders() for folder in _packs_in(root)]
    raise PackError(
        f"there is no pack named {text!r}; found: {', '.join(sorted(set(known))) or 'none'} (in "
        f"{', '.join(str(root) for root in _search_folders())}). Get one with "
        "`threedfa pack import --from DIR --name NAME` from a 3DDFA_V2 checkout or with "
        "`threedfa pack download NAME`, or give the folder of a pack"
    )


def verify_pack(name: str | os.PathLike[str]) -> None:
    """Read a pack and compare each of its files with its SHA-256.

    Raises:
        PackError: if there is no such pack, or it is incomplete, altered or malformed.
    """
    Pack.load(name, verify=True)


def is_pack_name(name: str) -> bool:
    """Whether this can be the name of a pack: letters, digits and ``. _ + -``, no path."""
    return _PLAIN_NAME.fullmatch(name) is not None


def user_packs_folder() -> Path:
    """Where new packs go: ``$THREEDFA_HOME/packs``, or else the user's cache folder."""
    home = os.environ.get("THREEDFA_HOME")
    base = Path(home) if home else platformdirs.user_cache_path("threedfa", appauthor=False)
    return base / "packs"


def is_bundled(name: str) -> bool:
    """Whether a pack of this name comes with the package."""
    return _holds_pack(_BUNDLED / name)


def _search_folders() -> list[Path]:
    cache = platformdirs.user_cache_path("threedfa", appauthor=False) / "packs"
    return list(dict.fromkeys([user_packs_folder(), cache, _BUNDLED]))


def _holds_pack(folder: Path) -> bool:
    try:
        return (folder / PACK_JSON).is_file()
    except (OSError, ValueError):  # a path that the system cannot express: too long, not encodable
        return False


def _packs_in(root: Path) -> list[Path]:
    """Pack folders in ``root``; unfinished imports start with a dot and are left out."""
    try:
        return sorted(
            entry for entry in root.iterdir() if is_pack_name(entry.name) and _holds_pack(entry)
        )
    except OSError:
        return []


def _unreadable(path: Path, error: OSError) -> PackError:
    return PackError(f"cannot read {path}: {error.strerror or error}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()


# --- pack.json ------------------------------------------------------------------------------------


def _read_json(path: Path) -> object:
    def fail(problem: str) -> NoReturn:
        raise PackError(f"{path}: {problem}; {_REPAIR}")

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        entries = dict(pairs)
        if len(entries) != len(pairs):
            names = [name for name, _ in pairs]
            fail(f"the key {next(n for n in names if names.count(n) > 1)!r} occurs twice")
        return entries

    try:
        with path.open("rb") as stream:
            data = stream.read(_PACK_JSON_LIMIT + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) > _PACK_JSON_LIMIT:
        fail(f"expected at most {_PACK_JSON_LIMIT} bytes, found {path.stat().st_size}")
    try:
        content: object = json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        fail(f"expected a JSON object in UTF-8, found an error: {error}")
    return content


class _Object:
    """A JSON object that must be used up: every key taken once, none left over."""

    def __init__(self, pack: str, key: str, value: object) -> None:
        self._pack = pack
        self._key = key
        if not isinstance(value, dict):
            self.fail("", "an object", value)
        self._left: dict[str, object] = dict(value)

    def fail(self, key: str, expected: str, found: object) -> NoReturn:
        path = ".".join(part for part in (self._key, key) if part)
        shown = found if isinstance(found, _Missing) else _shorten(repr(found))
        raise PackError(
            f"pack {self._pack}: {PACK_JSON}: {path + ': ' if path else ''}expected {expected}, "
            f"found {shown}; {_REPAIR}"
        )

    def has(self, key: str) -> bool:
        return key in self._left

    def take(self, key: str, expected: str) -> object:
        if key not in self._left:
            self.fail(key, expected, _Missing())
        return self._left.pop(key)

    def finish(self) -> None:
        for key in self._left:
            self.fail(key, "no such key", self._left[key])

    def nested(self, key: str) -> _Object:
        path = f"{self._key}.{key}" if self._key else key
        return _Object(self._pack, path, self.take(key, "an object"))

    def nested_list(self, key: str, most: int) -> list[_Object]:
        expected = f"a list of 1 to {most} objects"
        value = self.take(key, expected)
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            self.fail(key, expected, value)
        path = f"{self._key}.{key}" if self._key else key
        return [_Object(self._pack, f"{path}[{i}]", item) for i, item in enumerate(value)]

    def text(self, key: str, most: int) -> str:
        expected = f"a text of 1 to {most} characters"
        value = self.take(key, expected)
        if not isinstance(value, str) or not 1 <= len(value) <= most or "\0" in value:
            self.fail(key, expected, value)
        return value

    def names(self, key: str, most: int) -> tuple[str, ...]:
        """Different names; none where the key is left out."""
        expected = f"a list of 1 to {most} different texts of 1 to 100 characters"
        if not self.has(key):
            return ()
        value = self.take(key, expected)
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            self.fail(key, expected, value)
        found: dict[str, None] = {}
        for i, item in enumerate(value):
            if not isinstance(item, str) or not 1 <= len(item) <= 100 or item in found:
                self.fail(f"{key}[{i}]", expected, item)
            found[item] = None
        return tuple(found)

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        expected = " or ".join(f'"{choice}"' for choice in choices)
        value = self.take(key, expected)
        if not isinstance(value, str) or value not in choices:
            self.fail(key, expected, value)
        return value

    def boolean(self, key: str) -> bool:
        value = self.take(key, "true or false")
        if not isinstance(value, bool):
            self.fail(key, "true or false", value)
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        expected = f"a whole number from {low} to {high}"
        value = self.take(key, expected)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.fail(key, expected, value)
        return value

    def number(self, key: str, low: float, high: float) -> float:
        expected = f"a number from {low:g} to {high:g}"
        value = self.take(key, expected)
        if not _is_number(value, low, high):
            self.fail(key, expected, value)
        return float(value)  # type: ignore[arg-type]

    def numbers(self, key: str, count: int, low: float, high: float) -> tuple[float, ...]:
        expected = f"a list of {count} numbers from {low:g} to {high:g}"
        value = self.take(key, expected)
        if not isinstance(value, list):
            self.fail(key, expected, value)
        if len(value) != count:
            self.fail(key, expected, f"{len(value)} entries")
        for i, item in enumerate(value):
            if not _is_number(item, low, high):
                self.fail(f"{key}[{i}]", f"a number from {low:g} to {high:g}", item)
        return tuple(float(item) for item in value)

    def channels(self, key: str, low: float, high: float) -> tuple[float, float, float]:
        a, b, c = self.numbers(key, 3, low, high)
        return a, b, c

    def items(self) -> list[tuple[str, object]]:
        items = list(self._left.items())
        self._left.clear()
        return items


class _Missing:
    def __str__(self) -> str:
        return "no such key"


def _is_number(value: object, low: float, high: float) -> bool:
    # The comparison is exact for whole numbers of any size and false for NaN.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _parse_pack(folder: Path, content: object) -> Pack:
    root = _Object(str(folder), "", content)
    version = root.take("schema_version", str(SCHEMA_VERSION))
    if isinstance(version, bool) or version != SCHEMA_VERSION:
        raise PackError(
            f"pack {folder}: {PACK_JSON}: schema_version: expected {SCHEMA_VERSION}, found "
            f"{_shorten(repr(version))}; this version of threedfa cannot read it: update threedfa "
            "or import the pack again"
        )
    name = root.text("name", 100)
    if not is_pack_name(name):
        root.fail("name", "letters, digits and . _ + -", name)
    files = _parse_files(root)
    pack = Pack(
        folder=folder,
        name=name,
        licence=root.text("licence", 10000),
        source=root.text("source", 10000),
        files=files,
        detector=_parse_detector(root.nested("detector"), files),
        regressor=_parse_regressor(root.nested("regressor"), files),
        model=_parse_model(root.nested("morphable_model"), files),
        presence=_parse_presence(root.nested("presence"), files) if root.has("presence") else None,
    )
    root.finish()
    names, modes = pack.model.expression_names, pack.regressor.param_split.expression
    if names and len(names) != modes:
        root.fail(
            "morphable_model.expression_names",
            f"a name for each of the {modes} expressions in regressor.param_split",
            f"{len(names)} names",
        )
    return pack


def _parse_files(root: _Object) -> tuple[PackFile, ...]:
    files = []
    for name, sha256 in root.nested("files").items():
        if not is_pack_name(name) or name == PACK_JSON:
            root.fail("files", "plain names of files in the pack's folder", name)
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            root.fail(f"files.{name}", "a SHA-256 of 64 hexadecimal digits", sha256)
        files.append(PackFile(name, sha256))
    return tuple(files)


def _parse_file(spec: _Object, files: tuple[PackFile, ...]) -> str:
    return spec.choice("file", tuple(file.name for file in files) or ("a file listed in files",))


def _parse_detector(spec: _Object, files: tuple[PackFile, ...]) -> DetectorSpec:
    levels = []
    for level in spec.nested_list("priors", 16):
        step = level.integer("step", 1, 4096)
        sizes = []
        for size in level.nested_list("sizes", 16):
            sizes.append(
                PriorSize(
                    size=size.number("size", 1e-3, 65536),
                    density=size.integer("density", 1, 64),
                    offset=size.number("offset", 0, 1),
                )
            )
            size.finish()
        level.finish()
        levels.append(PriorLevel(step, tuple(sizes)))
    center, extent = spec.numbers("variances", 2, 1e-6, 1e6)
    working = spec.nested("working_size")
    working_size = WorkingSize(
        working.integer("max_height", 1, 65535),
        working.integer("max_width", 1, 65535),
        working.integer("enlarge_to", 1, 65535) if working.has("enlarge_to") else None,
    )
    working.finish()
    color = spec.choice("color", ("rgb", "bgr", GREY))
    channels = 1 if color == GREY else 3
    detector = DetectorSpec(
        file=_parse_file(spec, files),
        color=color,
        layout=spec.choice("layout", ("NCHW",)),
        mean=spec.numbers("mean", channels, -1e6, 1e6),
        scale=spec.numbers("scale", channels, -1e6, 1e6),
        priors=PriorConfig(tuple(levels)),
        variances=(center, extent),
        score_threshold=spec.number("score_threshold", 0, 1),
        iou_threshold=spec.number("iou_threshold", 0, 1),
        nms_offset=spec.integer("nms_offset", 0, 1),
        top_k=spec.integer("top_k", 1, 10**6),
        keep_top_k=spec.integer("keep_top_k", 1, 10**6),
        working_size=working_size,
        size_divisor=spec.integer("size_divisor", 1, 1024) if spec.has("size_divisor") else 1,
    )
    spec.finish()
    return detector


def _parse_regressor(spec: _Object, files: tuple[PackFile, ...]) -> RegressorSpec:
    split = spec.nested("param_split")
    param_split = ParamSplit(
        camera=split.integer("camera", CAMERA_PARAMETERS, CAMERA_PARAMETERS),
        shape=split.integer("shape", 0, 10000),
        expression=split.integer("expression", 0, 10000),
    )
    split.finish()
    roi = spec.nested("roi")
    roi_spec = RoiSpec(
        box_scale=roi.number("box_scale", 1e-3, 1e3),
        box_shift_y=roi.number("box_shift_y", -1e3, 1e3),
        integer_side=roi.boolean("integer_side"),
        landmark_scale=roi.number("landmark_scale", 1e-3, 1e3),
    )
    roi.finish()
    regressor = RegressorSpec(
        file=_parse_file(spec, files),
        color=spec.choice("color", ("rgb", "bgr")),
        layout=spec.choice("layout", ("NCHW",)),
        input_size=spec.integer("input_size", 8, 4096),
        mean=spec.channels("mean", -1e6, 1e6),
        scale=spec.channels("scale", -1e6, 1e6),
        param_mean=spec.numbers("param_mean", param_split.total, -1e30, 1e30),
        param_std=spec.numbers("param_std", param_split.total, 0, 1e30),
        param_split=param_split,
        roi=roi_spec,
        passes=spec.integer("passes", 1, 2) if spec.has("passes") else 1,
        roi_tolerance=spec.number("roi_tolerance", 0, 1) if spec.has("roi_tolerance") else 0.0,
        confidence_threshold=(
            spec.number("confidence_threshold", 0, 1) if spec.has("confidence_threshold") else None
        ),
    )
    spec.finish()
    return regressor


def _parse_presence(spec: _Object, files: tuple[PackFile, ...]) -> PresenceSpec:
    color = spec.choice("color", ("rgb", "bgr", GREY))
    channels = 1 if color == GREY else 3
    presence = PresenceSpec(
        file=_parse_file(spec, files),
        color=color,
        layout=spec.choice("layout", ("NCHW",)),
        input_size=spec.integer("input_size", 8, 4096),
        mean=spec.numbers("mean", channels, -1e6, 1e6),
        scale=spec.numbers("scale", channels, -1e6, 1e6),
        roi_scale=spec.number("roi_scale", 1e-3, 1e3),
        confidence_threshold=spec.number("confidence_threshold", 0, 1),
    )
    spec.finish()
    return presence


def _parse_model(spec: _Object, files: tuple[PackFile, ...]) -> ModelSpec:
    model = ModelSpec(
        file=_parse_file(spec, files),
        unit=spec.text("unit", 100),
        expression_names=spec.names("expression_names", 10000),
    )
    spec.finish()
    return model
