"""The command line: ``threedfa image``, ``pack``, ``evaluate``, ``bench``, ``doctor``, …"""

from __future__ import annotations

import argparse
import glob
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, TextIO, TypedDict, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from . import __version__, detector_evaluation
from .analyzer import FaceAnalyzer
from .animation import (
    OPENFACE_FIELD_OF_VIEW,
    Frame,
    check_frame_rate,
    timecode,
    write_livelink,
    write_openface,
)
from .arguments import at_least_one, whole_number
from .bench import add_bench_options, run_bench
from .blendshapes import Blendshapes
from .cpus import available_cpus
from .damages import DAMAGES
from .detections import RefusedFace
from .detector import DetectionSize, Orientations
from .doctor import run_doctor
from .errors import ExportError, ImageError, ThreedfaError
from .evaluation import measure, read_marked, table_text, tables
from .export import DEFAULT_TEXTURE_SIZE, encode_mesh
from .files import atomic_write, atomic_write_all
from .image import DEFAULT_MAX_PIXELS, MAX_SIDE, SAMPLE, SUFFIXES, load_image, save_image
from .landmark_sets import table_named
from .metric_pose import intrinsics, size_in_centimetres
from .model import MorphableModel
from .networks import Backend
from .pack import Pack, list_packs, verify_pack
from .rendering import Mode, render
from .tables import faces_to_dict, write_csv, write_json, write_json_lines, write_npz
from .textures import uv_texture
from .upstream.convert import import_upstream_pack
from .upstream.download import download_upstream
from .upstream.sources import PACK_REGRESSORS, UPSTREAM_LICENCE
from .web.settings import add_serve_options


class _JsonOptions(TypedDict):
    landmark_sets: list[str]
    blendshapes: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; None: those of this process.

    Returns:
        The exit status: 0, or 1 if something failed. Wrong usage exits with 2.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may hold what a terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return command(options)
    except ThreedfaError as error:
        _complain(str(error))
        return 1
    except BrokenPipeError:  # nobody reads on; flushing what is left at the end would fail, too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="threedfa", description="3D faces from photographs: boxes, landmarks, pose, meshes."
    )
    parser.add_argument("--version", action="version", version=f"threedfa {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    image = commands.add_parser("image", help="align the faces in pictures")
    image.set_defaults(command=_image)
    image.add_argument(
        "paths", nargs="*", type=_input, metavar="PATH", help="files, folders or patterns"
    )
    image.add_argument("--sample", action="store_true", help="use the picture in the package")
    image.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder of the results, where they replace older ones (default: the current folder)",
    )
    image.add_argument(
        "--render", action="append", default=[], choices=get_args(Mode), help="may be repeated"
    )
    image.add_argument(
        "--mesh",
        action="append",
        default=[],
        choices=["obj", "ply", "glb", "stl"],
        help="may be repeated",
    )
    image.add_argument("--texture", action="store_true", help="a UV texture of each face")
    image.add_argument(
        "--texture-size",
        type=_texture_size,
        default=DEFAULT_TEXTURE_SIZE,
        metavar="N",
        help="pixels (default: %(default)s); 0: meshes with colours of vertices",
    )
    image.add_argument("--json", action="store_true", help="all results in faces.json")
    image.add_argument("--csv", action="store_true", help="all results in faces.csv")
    image.add_argument("--jsonl", action="store_true", help="all results in faces.jsonl")
    image.add_argument("--npz", action="store_true", help="arrays of each picture, vertices too")
    image.add_argument(
        "--landmarks", metavar="SET", help="another set for --json, --jsonl, --csv, --npz, --render"
    )
    image.add_argument("--livelink", action="store_true", help="blend shapes in livelink.csv")
    image.add_argument("--openface-csv", action="store_true", help="all results in openface.csv")
    image.add_argument(
        "--frame-rate", type=float, default=30, metavar="X", help="of --livelink, --openface-csv"
    )
    image.add_argument(
        "--field-of-view",
        type=float,
        default=OPENFACE_FIELD_OF_VIEW,
        metavar="DEGREES",
        help="of the camera across the picture, for --openface-csv",
    )
    image.add_argument("--pack", default="default", metavar="NAME", help="name or folder")
    _add_network_options(image)
    image.add_argument("--score-threshold", type=float, metavar="X")
    image.add_argument(
        "--confidence-threshold", type=float, metavar="X", help="what is less surely a face is none"
    )
    image.add_argument("--iou-threshold", type=float, metavar="X")
    image.add_argument("--max-faces", type=int, metavar="N")
    image.add_argument(
        "--detection-size",
        type=_detection_size,
        default="auto",
        metavar="SIZE",
        help="auto, full (the picture's own size), or the longer side in pixels",
    )
    image.add_argument(
        "--orientations",
        default="upright",
        choices=get_args(Orientations),
        help="any: where nothing is found, look for turned faces, too",
    )
    image.add_argument(
        "--refused", action="store_true", help="what is no face, too, in --json and --jsonl"
    )
    image.add_argument(
        "--max-pixels",
        type=at_least_one,
        default=DEFAULT_MAX_PIXELS,
        metavar="N",
        help="larger pictures are refused (default: %(default)s)",
    )

    pack = commands.add_parser("pack", help="list, check, import and download packs")
    verbs = pack.add_subparsers(required=True, metavar="VERB")
    verbs.add_parser("list", help="the packs that can be used").set_defaults(command=_pack_list)
    info = verbs.add_parser("info", help="what a pack is made of")
    info.add_argument("pack", metavar="NAME")
    info.set_defaults(command=_pack_info)
    verify = verbs.add_parser("verify", help="compare a pack's files with their SHA-256")
    verify.add_argument("pack", metavar="NAME")
    verify.set_defaults(command=_pack_verify)
    importer = verbs.add_parser("import", help="make a pack from a 3DDFA_V2 checkout")
    importer.add_argument("--from", dest="source", required=True, metavar="DIR")
    importer.add_argument("--name", required=True)
    importer.add_argument("--overwrite", action="store_true", help="replace a pack of the name")
    importer.set_defaults(command=_pack_import)
    download = verbs.add_parser("download", help="download an upstream pack")
    download.add_argument("pack", choices=list(PACK_REGRESSORS), metavar="NAME")
    download.add_argument("--accept-licence", action="store_true")
    download.add_argument("--overwrite", action="store_true", help="replace a pack of the name")
    download.set_defaults(command=_pack_download)

    evaluate = commands.add_parser("evaluate", help="measure packs on pictures with marked points")
    evaluate.set_defaults(command=_evaluate)
    evaluate.add_argument("--images", type=Path, required=True, metavar="DIR")
    evaluate.add_argument(
        "--points", type=Path, required=True, metavar="PATH", help="folder of .pts files, or .npz"
    )
    evaluate.add_argument("--pack", action="append", metavar="NAME", help="may be repeated")
    _add_network_options(evaluate)

    _add_evaluate_detector(commands)

    bench = commands.add_parser("bench", help="time the parts against named alternatives")
    bench.set_defaults(command=run_bench)
    add_bench_options(bench)

    doctor = commands.add_parser("doctor", help="versions, providers, packs and a self-test")
    doctor.set_defaults(command=lambda options: run_doctor())

    serve = commands.add_parser("serve", help="the web API and its page")
    serve.set_defaults(command=_serve)
    add_serve_options(serve)
    _add_network_options(serve)
    return parser


def _add_evaluate_detector(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    evaluate = commands.add_parser(
        "evaluate-detector", help="measure detectors on images with boxed faces, and damaged ones"
    )
    evaluate.set_defaults(command=_evaluate_detector)
    evaluate.add_argument("--images", type=Path, metavar="DIR", help="images with boxes")
    evaluate.add_argument(
        "--boxes",
        type=Path,
        metavar="PATH",
        help="WIDER FACE .txt, COCO .json, .csv, landmarks .npz, or folder of VOC .xml, YOLO .txt "
        "or .pts files",
    )
    evaluate.add_argument(
        "--category", action="append", metavar="NAME", help="that are faces (default: all)"
    )
    evaluate.add_argument(
        "--negatives",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="images without faces; may be repeated",
    )
    evaluate.add_argument("--pack", action="append", metavar="NAME", help="may be repeated")
    evaluate.add_argument(
        "--stage",
        default="both",
        choices=[*get_args(detector_evaluation.Stage), "both"],
        help="the detector alone, or what the analyzer keeps (default: %(default)s)",
    )
    evaluate.add_argument("--yunet", type=Path, metavar="FILE", help="YuNet's ONNX file")
    evaluate.add_argument(
        "--yunet-size",
        type=at_least_one,
        default=640,
        metavar="N",
        help="longest side of its input (default: %(default)s)",
    )
    evaluate.add_argument(
        "--yunet-enlarge", action="store_true", help="smaller images are enlarged to it"
    )
    evaluate.add_argument(
        "--score-threshold", type=float, metavar="X", help="of all (default: each one's own)"
    )
    evaluate.add_argument(
        "--match",
        default="middle",
        choices=get_args(detector_evaluation.Match),
        help="when a face is found (default: %(default)s)",
    )
    evaluate.add_argument(
        "--damages",
        default="none",
        metavar="NAMES",
        help=f"all, none, or some with commas between: {', '.join(DAMAGES)}",
    )
    evaluate.add_argument(
        "--no-average-precision",
        action="store_true",
        help="leave it out, which saves half of the time of packs",
    )
    evaluate.add_argument(
        "--limit", type=at_least_one, metavar="N", help="at most so many images of each kind"
    )
    evaluate.add_argument("--format", default="text", choices=["text", "markdown"])
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="everything measured")
    evaluate.add_argument(
        "--detections", action="store_true", help="every image's detections in --json too"
    )
    evaluate.add_argument(
        "--save-misses", type=Path, metavar="DIR", help="images of missed faces and false alarms"
    )
    _add_network_options(evaluate)


def _add_network_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", default="onnxruntime", choices=get_args(Backend))
    parser.add_argument("--provider", action="append", dest="providers", metavar="NAME")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all CPUs")


def _input(text: str) -> str:
    if not text:  # the current folder to Path: most often a variable of the shell that is not set
        raise argparse.ArgumentTypeError("expected a file, a folder or a pattern, got no text")
    return text


def _detection_size(text: str) -> DetectionSize:
    return "auto" if text == "auto" else "full" if text == "full" else whole_number(text)


def _texture_size(text: str) -> int:
    size = whole_number(text)
    if not 0 <= size <= MAX_SIDE:
        raise argparse.ArgumentTypeError(f"expected 0..{MAX_SIDE}, got {size}")
    return size


def _image(options: argparse.Namespace) -> int:
    paths, complaints = _expand(options.paths)
    if options.sample:
        paths.append(SAMPLE)
    for complaint in complaints:
        _complain(complaint)
    if not paths:
        if complaints:
            return 1
        _complain("no picture given: name files, folders or patterns, or use --sample")
        return 2
    if options.texture and not options.texture_size:
        _complain("--texture: expected a --texture-size above 0")
        return 2
    asked = (options.render, options.mesh, options.texture, options.json, options.jsonl)
    if not any((*asked, options.csv, options.npz, options.livelink, options.openface_csv)):
        options.render = ["mesh", "landmarks"]  # something to look at
    try:
        analyzer = FaceAnalyzer(
            options.pack,
            backend=options.backend,
            providers=options.providers,
            num_threads=options.threads,
            score_threshold=options.score_threshold,
            confidence_threshold=options.confidence_threshold,
            iou_threshold=options.iou_threshold,
            max_faces=options.max_faces,
            detection_size=options.detection_size,
            orientations=options.orientations,
        )
        _check(options, analyzer.model, len(paths))
    except ValueError as error:
        _complain(str(error))
        return 2
    status = _analyze_files(analyzer, paths, options)
    return 1 if complaints else status


def _check(options: argparse.Namespace, model: MorphableModel, frames: int) -> None:
    """Refuse what the pack does not have before any picture is read."""
    if options.landmarks is not None:
        table_named(model.landmark_sets, options.landmarks)
    if options.livelink:
        Blendshapes.of(model.expression_names, np.zeros(len(model.expression_names), np.float32))
    if options.openface_csv:
        size_in_centimetres(model.centimetres_per_unit)
        intrinsics((1, 1), None, options.field_of_view)
    check_frame_rate(options.frame_rate)
    if options.livelink:
        timecode((frames - 1) / options.frame_rate)


def _analyze_files(
    analyzer: FaceAnalyzer, paths: Sequence[Path], options: argparse.Namespace
) -> int:
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"cannot make the folder {options.output}: {error.strerror}") from error
    given = frozenset(os.path.realpath(path) for path in paths)
    results: list[Frame] = []
    refused: list[list[RefusedFace]] = []  # of each of the results
    frames: list[Frame] = []  # also those that failed: time goes on
    tables = _tables(options, analyzer.model, results, refused, frames)
    for name in tables:
        _require_free(options.output / name, given)

    def attempt(
        analyzer: FaceAnalyzer, named: tuple[Path, str]
    ) -> tuple[Frame, list[RefusedFace]] | str:
        """What was found, or why nothing was: of an error its text, as it holds the picture."""
        path, stem = named
        try:
            return _analyze_file(analyzer, path, options.output / stem, options, given)
        except (ThreedfaError, ValueError, MemoryError, cv2.error) as error:
            # ValueError: results that are no numbers; cv2.error: most often its memory, too.
            return "not enough memory for this picture" if _no_memory(error) else str(error)

    failed = 0
    pictures = list(zip(paths, _unique_stems(paths), strict=True))
    outcomes = tqdm(
        analyzer.map(attempt, pictures),
        total=len(paths),
        disable=len(paths) < 2 or None,  # None: where stderr is no terminal
        unit="picture",
    )
    for path, outcome in zip(paths, outcomes, strict=True):
        if isinstance(outcome, str):
            failed += 1
            tqdm.write(f"threedfa: {path}: {outcome}", file=sys.stderr)
            frames.append((path, (1, 1), []))
        else:
            frame, others = outcome
            count = len(frame[2])
            more = f", {len(others)} refused" if options.refused else ""
            tqdm.write(f"{path}: {count} {'face' if count == 1 else 'faces'}{more}")
            if tables:
                results.append(frame)
                refused.append(others)
                frames.append(frame)
    for name, write in tables.items():
        write(options.output / name)
    if failed:
        _complain(f"{failed} of {len(paths)} pictures failed")
    return 1 if failed else 0


def _no_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem
    )


def _tables(
    options: argparse.Namespace,
    model: MorphableModel,
    results: list[Frame],
    refused: list[list[RefusedFace]],
    frames: list[Frame],
) -> dict[str, Callable[[Path], None]]:
    """Names of the files asked for that hold all pictures, and what writes each when the lists are
    filled."""
    json_options = _json_options(options, model)
    others = refused if options.refused else None
    every: dict[str, tuple[bool, Callable[[Path], None]]] = {
        "faces.json": (
            options.json,
            lambda path: write_json(path, results, refused=others, **json_options),
        ),
        "faces.jsonl": (
            options.jsonl,
            lambda path: write_json_lines(path, results, refused=others, **json_options),
        ),
        "faces.csv": (
            options.csv,
            lambda path: write_csv(path, results, landmark_set=_landmark_set(options)),
        ),
        "livelink.csv": (
            options.livelink,
            lambda path: write_livelink(path, frames, frame_rate=options.frame_rate),
        ),
        "openface.csv": (
            options.openface_csv,
            lambda path: write_openface(
                path,
                frames,
                frame_rate=options.frame_rate,
                field_of_view=options.field_of_view,
            ),
        ),
    }
    return {name: write for name, (asked, write) in every.items() if asked}


def _landmark_set(options: argparse.Namespace) -> str:
    return options.landmarks or "ibug68"


def _json_options(options: argparse.Namespace, model: MorphableModel) -> _JsonOptions:
    return {
        "landmark_sets": [] if options.landmarks is None else [options.landmarks],
        "blendshapes": Blendshapes.known_to(model.expression_names),
    }


def _require_free(file: Path, given: frozenset[str]) -> Path:
    """The file, unless it is one of the pictures ``given``."""
    if os.path.realpath(file) in given:
        raise ExportError(f"{file} is one of the given pictures; choose another folder (-o)")
    return file


def _analyze_file(
    analyzer: FaceAnalyzer,
    path: Path,
    target: Path,
    options: argparse.Namespace,
    given: frozenset[str],
) -> tuple[Frame, list[RefusedFace]]:
    """Analyze one picture and write its files, whose names start with ``target``, but over none of
    the pictures ``given``. What was refused is only given where it is asked for."""

    def save(name: str, picture: NDArray[np.uint8]) -> None:
        save_image(_require_free(Path(f"{target}_{name}.png"), given), picture)

    image = load_image(path, max_pixels=options.max_pixels)
    if options.refused:
        faces, refused = analyzer.analyze(image, return_refused=True)
    else:
        faces, refused = analyzer.analyze(image), []
    # What cannot be written fails with its own picture.
    if options.json or options.jsonl or options.csv:
        faces_to_dict(image.shape[:2], faces, **_json_options(options, analyzer.model))
    if options.openface_csv:
        for face in faces:
            face.metric_pose(field_of_view=options.field_of_view, image_size=image.shape[:2])
    for mode in options.render:
        save(mode, render(image, faces, mode, landmark_set=_landmark_set(options)))
    if faces:
        for suffix in options.mesh:
            size = options.texture_size or None
            files = encode_mesh(f"{target.name}.{suffix}", image, faces, texture_size=size)
            atomic_write_all(
                [(_require_free(target.parent / name, given), data) for name, data in files]
            )
    if options.texture:
        for number, face in enumerate(faces):
            save(f"face{number}_texture", uv_texture(image, face, size=options.texture_size))
    if options.npz:
        sets = [] if options.landmarks is None else [options.landmarks]
        write_npz(f"{target}.npz", faces, landmark_sets=sets)
    # As they were found: without the vertices that they keep once they were asked for.
    return (path, image.shape[:2], [replace(face) for face in faces]), refused


def _expand(arguments: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Files, the pictures in folders, and what patterns match; a name that is nothing stays, to
    be reported when it is opened. And what is wrong with folders that give none."""
    paths: list[Path] = []
    complaints: list[str] = []
    for argument in arguments:
        path = Path(argument)
        try:
            if path.is_dir():
                paths += _pictures_in(path)
            elif path.exists() or not glob.has_magic(argument):
                paths.append(path)
            else:
                found = glob.glob(argument, recursive=True)  # noqa: PTH207, any pattern
                matches = sorted(found, key=_numbers_as_such)
                paths += [Path(match) for match in matches if Path(match).is_file()] or [path]
        except ImageError as error:
            complaints.append(str(error))
        except OSError:  # in a locked folder, a name that is too long
            paths.append(path)
    return paths, complaints


def _pictures_in(folder: Path) -> list[Path]:
    try:
        pictures = sorted(filter(_is_picture, folder.iterdir()), key=_numbers_as_such)
    except OSError as error:
        raise ImageError(f"cannot read the folder {folder}: {error.strerror or error}") from error
    if not pictures:
        raise ImageError(
            f"no pictures in the folder {folder}: expected files that end in {', '.join(SUFFIXES)}"
        )
    return pictures


def _numbers_as_such(path: str | Path) -> list[str | int]:
    """For sorting: frame 10 comes after frame 9. Texts and numbers alternate."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _is_picture(path: Path) -> bool:
    known = path.suffix.lower() in SUFFIXES
    return known and not path.name.startswith(".") and path.is_file()


def _unique_stems(paths: Sequence[Path]) -> list[str]:
    """A name for the results of each picture; later pictures of the same name get a number, also
    where only some file systems take the names for the same (A and a)."""
    stems: list[str] = []
    taken: set[str] = set()
    following: dict[str, int] = {}  # number to try next
    for path in paths:
        stem, number = path.stem, following.get(path.stem, 2)
        while stem.casefold() in taken:
            stem, number = f"{path.stem}_{number}", number + 1
        following[path.stem] = number
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


def _evaluate(options: argparse.Namespace) -> int:
    try:
        marked = read_marked(options.images, options.points)
    except (ValueError, OSError) as error:
        _complain(str(error))
        return 1
    status = 0
    for pack in options.pack or ["default"]:
        try:
            analyzer = FaceAnalyzer(
                pack,
                backend=options.backend,
                providers=options.providers,
                num_threads=options.threads,
            )
        except ValueError as error:
            _complain(str(error))
            return 2
        measured = measure(analyzer, tqdm(marked, disable=None))
        for complaint in measured.unread:
            _complain(complaint)
        faces = len(marked) - len(measured.unread)
        if len(measured.found):
            print(f"{pack}: errors in percent of a size, {faces} faces")
            print(table_text(tables(measured)))
        else:
            _complain(
                f"{pack}: found none of {faces} marked faces, so there are no errors; look whether "
                "the points are those of the pictures"
            )
        if measured.unread or not len(measured.found):
            status = 1
    return status


def _evaluate_detector(options: argparse.Namespace) -> int:
    if (options.images is None) != (options.boxes is None):
        _complain("--images and --boxes: expected both or none")
        return 2
    if options.images is None and not options.negatives:
        _complain("nothing to measure with: give --images and --boxes, or --negatives")
        return 2
    if options.detections and options.json is None:
        _complain("--detections: expected a file to write them to, --json FILE")
        return 2
    try:
        annotated = []
        if options.images is not None:
            annotated = detector_evaluation.read_annotations(
                options.images, options.boxes, categories=options.category
            )
        negatives = [
            item
            for folder in options.negatives
            for item in detector_evaluation.read_negatives(folder)
        ]
    except (ValueError, OSError) as error:
        _complain(str(error))
        return 1
    annotated = _spread(annotated, options.limit)
    negatives = _spread(negatives, options.limit)
    wanted = {"all": list(DAMAGES), "none": []}
    damages = wanted.get(options.damages, options.damages.split(","))
    # Images are spread over threads; PyTorch has threads of its own for each of them.
    threads = available_cpus() if options.threads is None else options.threads
    at_once = 1 if options.backend == "torch" else threads
    try:
        systems = _systems(options, threads if options.backend == "torch" else 1)
        evaluation = detector_evaluation.evaluate(
            systems,
            annotated,
            negatives,
            damages=damages,
            match=options.match,
            threads=at_once,
            average_precision=not options.no_average_precision,
            keep=options.detections,
            misses=options.save_misses,
            progress=lambda images: tqdm(
                images, total=len(annotated) + len(negatives), disable=None, unit="image"
            ),
        )
    except ValueError as error:
        _complain(str(error))
        return 2
    for complaint in evaluation.unread:
        _complain(complaint)
    if len(evaluation.unread) == len(annotated) + len(negatives):
        _complain("none of the images could be read")
        return 1
    thresholds = ", ".join(f"{system.name} {system.score_threshold:g}" for system in systems)
    print(f"faces found by {options.match}, scores above: {thresholds}\n")
    rows = detector_evaluation.tables(evaluation)
    print(table_text(rows, markdown=options.format == "markdown"))
    if options.json is not None:
        document = detector_evaluation.to_dict(evaluation, match=options.match)
        with atomic_write(options.json) as stream:
            stream.write(json.dumps(document, indent=1, allow_nan=False).encode())
    return 1 if evaluation.unread else 0


def _systems(options: argparse.Namespace, num_threads: int) -> list[detector_evaluation.System]:
    """Raises a ValueError for settings out of range."""
    stages: tuple[detector_evaluation.Stage, ...] = get_args(detector_evaluation.Stage)
    stages = stages if options.stage == "both" else (options.stage,)
    packs = options.pack or ["default"]
    names = [Path(pack).name for pack in packs]
    systems = [
        detector_evaluation.pack_system(
            pack,
            stage,
            name=f"{pack if names.count(name) > 1 else name} {stage}",
            score_threshold=options.score_threshold,
            backend=options.backend,
            providers=options.providers,
            num_threads=num_threads,
        )
        for pack, name in zip(packs, names, strict=True)
        for stage in stages
    ]
    if options.yunet is not None:
        threshold = options.score_threshold
        systems.append(
            detector_evaluation.yunet_system(
                options.yunet,
                score_threshold=0.6 if threshold is None else threshold,
                longest_side=options.yunet_size,
                enlarge=options.yunet_enlarge,
            )
        )
    return systems


def _spread(
    items: list[detector_evaluation.Annotated], limit: int | None
) -> list[detector_evaluation.Annotated]:
    """At most so many, from everywhere in the list."""
    if limit is None or len(items) <= limit:
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


def _pack_list(options: argparse.Namespace) -> int:
    for pack in list_packs():
        remark = " ".join((pack.problem or pack.licence).split())  # one line for each pack
        print(f"{pack.name}\t{pack.path}\t{remark}")
    return 0


def _pack_info(options: argparse.Namespace) -> int:
    pack = Pack.load(options.pack, verify=False)
    split = pack.regressor.param_split
    print(f"name      {pack.name}")
    print(f"folder    {pack.folder}")
    print(f"licence   {pack.licence}")
    print(f"source    {pack.source}")
    print(f"unit      {pack.model.unit}")
    print(f"params    {split.camera} camera, {split.shape} shape, {split.expression} expression")
    for file in pack.files:
        print(f"{file.sha256}  {file.name}")
    return 0


def _pack_verify(options: argparse.Namespace) -> int:
    verify_pack(options.pack)
    print(f"{options.pack}: every file has its SHA-256")
    return 0


def _pack_import(options: argparse.Namespace) -> int:
    print(import_upstream_pack(options.source, options.name, overwrite=options.overwrite))
    return 0


def _pack_download(options: argparse.Namespace) -> int:
    print(UPSTREAM_LICENCE, file=sys.stderr)
    bars: dict[str, tqdm[NoReturn]] = {}

    def progress(name: str, present: int, expected: int | None) -> None:
        if name not in bars:
            bars[name] = tqdm(desc=name, total=expected, unit="B", unit_scale=True)
        bars[name].update(present - bars[name].n)

    try:
        folder = download_upstream(
            options.pack,
            accept_licence=options.accept_licence,
            overwrite=options.overwrite,
            progress=progress,
        )
    finally:
        for bar in bars.values():
            bar.close()
    print(folder)
    return 0


def _serve(options: argparse.Namespace) -> int:
    try:
        from .web.command import serve
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("threedfa"):
            raise
        _complain(
            f"the web API needs {error.name}, which is not installed: pip install 'threedfa[web]'"
        )
        return 1
    try:
        return serve(options)
    except ValueError as error:  # a setting out of range
        _complain(str(error))
        return 2


def _complain(message: str) -> None:
    print(f"threedfa: {message}", file=sys.stderr)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """What is worth a warning, without the line of code that it came from."""
    _complain(f"warning: {message}")


if __name__ == "__main__":
    sys.exit(main())
