"""``threedfa bench``: our kernels and the whole analysis against named alternatives, in one run.

Every row first checks its answer against the alternative's; then both are timed in turn, so that
a machine that grows slower does so for both. :func:`run_bench` runs this module in a process in
which NumPy keeps to one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors.numpy
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from . import _core, ops, textbook
from .analyzer import FaceAnalyzer
from .arguments import at_least_one, positive_number
from .bench_report import Table, as_markdown, as_text, describe_machine
from .cpus import available_cpus
from .detections import Detections
from .errors import ThreedfaError
from .face import Face
from .files import atomic_write
from .image import SAMPLE, is_reversed, load_image
from .mesh_files import encode_ply, write_obj, write_ply
from .model import MorphableModel, packed_basis
from .networks import Network, normalization, open_network
from .pack import GREY, Pack

_ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_LANDMARKS = 68
_INPUT_SIZE = 120
_TURN_MS = 20.0


class BenchError(ThreedfaError):
    """An answer that differs from the alternative's, or a pack that finds no face."""


@dataclass(frozen=True)
class Sizes:
    """How much work there is in each row."""

    seconds: float = 1.0  # for each row
    grid: int = 196  # vertices along each side of the mesh: 38,416, and 76,050 triangles
    modes: int = 50
    face: int = 370  # pixels across the drawn mesh
    picture: tuple[int, int] = (1080, 1920)
    boxes: int = 5000
    batch: int = 64
    analyses: int = 2000
    growth_faces: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    growth_grids: tuple[int, ...] = (51, 101, 201, 401, 549)
    growth_boxes: tuple[int, ...] = (100, 500, 2000, 5000, 20000)
    growth_megapixels: tuple[float, ...] = (0.3, 1, 3, 6, 12)


@dataclass(frozen=True)
class Row:
    """Work that is done in two ways.

    Attributes:
        work: what it is.
        ours: does it.
        alternative: name of the other way.
        theirs: goes that way.
        same: whether the two answers agree.
        streamed: bytes of a work whose time is that of reading them; 0 for others.
    """

    work: str
    ours: Callable[[], Any]
    alternative: str
    theirs: Callable[[], Any]
    same: Callable[[Any, Any], bool]
    streamed: int = 0


def run_bench(options: argparse.Namespace) -> int:
    """Run this module in a process of its own, in which NumPy keeps to one thread.

    Args:
        options: those of :func:`add_bench_options`.

    Returns:
        Its exit status.
    """
    command = [sys.executable, "-m", "threedfa.bench", "--pack", options.pack]
    command += ["--seconds", str(options.seconds), "--analyses", str(options.analyses)]
    command += ["--json"] if options.json else []
    command += ["--markdown", str(options.markdown)] if options.markdown else []
    environment = os.environ | dict.fromkeys(_ONE_THREAD, "1")
    return subprocess.run(command, env=environment, check=False).returncode


def add_bench_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``threedfa bench``."""
    default = Sizes()
    parser.add_argument("--pack", default="default", metavar="NAME", help="name or folder")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a page of this")
    parser.add_argument(
        "--seconds",
        type=positive_number,
        default=default.seconds,
        metavar="X",
        help="for each row (default: %(default)s)",
    )
    parser.add_argument(
        "--analyses",
        type=at_least_one,
        default=default.analyses,
        metavar="N",
        help="pictures after which the growth of memory is read (default: %(default)s)",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; for the arguments see :func:`add_bench_options`."""
    parser = argparse.ArgumentParser(prog="threedfa bench")
    add_bench_options(parser)
    options = parser.parse_args(arguments)
    sizes = Sizes(seconds=options.seconds, analyses=options.analyses)
    try:
        machine = describe_machine()
        with contextlib.ExitStack() as stack:
            # Opened first: a page that cannot be written is found before minutes of measuring.
            page = stack.enter_context(atomic_write(options.markdown)) if options.markdown else None
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            tables = list(measure(Pack.load(options.pack), sizes, Path(folder)))
            if page is not None:
                page.write(as_markdown(machine, tables).encode())
    except ThreedfaError as error:
        print(f"threedfa: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({"machine": machine, "tables": [asdict(t) for t in tables]}, indent=1))
    else:
        print(as_text(machine, tables))
    return 0


def measure(pack: Pack, sizes: Sizes, folder: Path) -> Iterator[Table]:
    """All tables, in the order of the report; ``folder`` is for files that are written."""
    rows = kernel_rows(pack, sizes, folder)
    yield Table(
        "Kernels",
        "One thread each. *Streaming*: share of the speed of a plain read of the same bytes.",
        ("work", "median", "99 %", "alternative", "its median", "times as fast", "streaming"),
        tuple(measured(row, sizes.seconds) for row in rows),
    )
    yield analysis_table(pack, sizes)
    yield batch_table(pack, sizes)
    yield startup_table(pack, sizes)
    yield memory_table(pack, sizes)
    yield from growth_tables(sizes, folder)


# --- timing ---------------------------------------------------------------------------------------


def check(row: Row) -> None:
    """Raise a BenchError unless both ways of a row give the same answer."""
    if not row.same(row.ours(), row.theirs()):
        raise BenchError(f"{row.work}: the answer differs from that of {row.alternative}")


def measured(row: Row, seconds: float) -> tuple[str, ...]:
    """The cells of a row, after its check."""
    check(row)
    ours, theirs = timed([row.ours, row.theirs], seconds)
    share = f"{100 * _stream_ms(row.streamed) / _median(ours):.0f} %" if row.streamed else ""
    return (
        row.work,
        _ms(_median(ours)),
        _ms(float(np.percentile(ours, 99))),
        row.alternative,
        _ms(_median(theirs)),
        f"{_median(theirs) / _median(ours):.2f}",
        share,
    )


def timed(functions: Sequence[Callable[[], Any]], seconds: float) -> list[list[float]]:
    """Milliseconds of calls of each function, by turns, at least three of each.

    A turn is a call that does not count, as caches and memory are then those of another function,
    and calls for a short time. Calls that take longer than that fill a turn each, all of them
    counted.
    """
    times: list[list[float]] = [[] for _ in functions]
    end = time.perf_counter() + seconds
    while min(map(len, times)) < 3 or (time.perf_counter() < end and len(times[0]) < 1000):
        for function, found in zip(functions, times, strict=True):
            turn = [_call_ms(function)]
            while sum(turn) < _TURN_MS:
                turn.append(_call_ms(function))
            found += turn[1:] or turn
    return times


def _call_ms(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - start)


def _stream_ms(count: int) -> float:
    """Milliseconds of reading so many bytes from memory: of BLAS's dot product, which does little
    else."""
    data = np.ones(count // 8)
    return _median(timed([lambda: data @ data], 0.1)[0])


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _ms(value: float) -> str:
    return f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def _close(tolerance: float) -> Callable[[Any, Any], bool]:
    """Arrays of one shape whose values are no farther apart than this."""

    def same(ours: Any, theirs: Any) -> bool:
        a, b = np.asarray(ours), np.asarray(theirs)
        return a.shape == b.shape and bool(np.allclose(a, b, rtol=0, atol=tolerance))

    return same


def _equal(ours: Any, theirs: Any) -> bool:
    return bool(np.array_equal(ours, theirs))


# --- kernels --------------------------------------------------------------------------------------


def kernel_rows(pack: Pack, sizes: Sizes, folder: Path) -> Iterator[Row]:
    """The rows of the first table."""
    yield from detection_rows(pack, sizes)
    yield from model_rows(sizes, folder)
    yield from mesh_rows(sizes, folder)


def detection_rows(pack: Pack, sizes: Sizes) -> Iterator[Row]:
    """Boxes and pre-processing, with the settings of a pack."""
    analyzer = FaceAnalyzer(pack, num_threads=1)
    detector, spec = analyzer.detector, pack.detector
    picture = scene(analyzer, 5)
    height, width = picture.shape[:2]
    batch = detector.network_input(picture)
    loc, conf = detector._network.run(batch)
    size = (batch.shape[2], batch.shape[3])
    factor = width / size[1]

    def boxes_agree(ours: Detections, theirs: tuple[Any, Any]) -> bool:
        expected = np.column_stack([theirs[0] * factor, theirs[1]])
        return _close(0.01)(
            _in_reading_order(np.column_stack([ours.xyxy, ours.confidence])),
            _in_reading_order(expected),
        )

    yield Row(
        f"boxes from the detector's output, {width} x {height}",
        lambda: detector.from_output(loc, conf, (height, width)),
        "NumPy: priors, all boxes, suppression",
        lambda: textbook.detections(loc[0], conf[0], *size, spec),
        boxes_agree,
    )
    boxes, scores = _random_boxes(sizes.boxes)
    yield Row(
        f"suppression of {sizes.boxes:,} uniform boxes",
        lambda: ops.nms(boxes, scores, 0.3, offset=1).tolist(),
        "NumPy, one box against all",
        lambda: textbook.nms(boxes, scores, 0.3, 1),
        _equal,
    )
    large = _noise(sizes.picture)
    large_batch = detector.network_input(large)
    large_size = (large_batch.shape[2], large_batch.shape[3])
    if spec.color == GREY:
        tolerance = 2.5  # grey levels; OpenCV rounds them and weighs colours with more bits
        theirs = partial(
            textbook.resize_normalize_grey, large, large_size, spec.mean[0], spec.scale[0]
        )
    else:
        tolerance = 1.01
        theirs = partial(
            textbook.resize_normalize,
            large, large_size, spec.mean, spec.scale, is_reversed(spec.color),
        )  # fmt: skip
    yield Row(
        f"detector's input from {large.shape[1]} x {large.shape[0]}",
        lambda: detector.network_input(large),
        "OpenCV and NumPy",
        theirs,
        _close(tolerance * max(map(abs, spec.scale))),
    )
    if spec.color == GREY:  # packs made of upstream's files have the other kind
        mean, scale = (104.0, 117.0, 123.0), (1.0, 1.0, 1.0)
        yield Row(
            f"the same in colour, for {large_size[0]} x {large_size[1]}",
            lambda: _core.resize_normalize(
                large, *large_size, mean=mean, scale=scale, reverse_channels=False
            ),
            "OpenCV and NumPy",
            lambda: textbook.resize_normalize(large, large_size, mean, scale, False),
            _close(1.01),
        )
    regressor = pack.regressor
    face = analyzer.analyze(picture)[0]
    yield Row(
        "one face cropped, resized, normalised",
        lambda: _core.crop_normalize(
            picture,
            face.roi[None],
            regressor.input_size,
            **normalization(regressor),
        ),
        "OpenCV and NumPy",
        lambda: textbook.crop_normalize(
            picture,
            face.roi,
            regressor.input_size,
            regressor.mean,
            regressor.scale,
            is_reversed(regressor.color),
        ),
        _close(1.01 * max(map(abs, regressor.scale))),
    )


def model_rows(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """Reconstruction, with a model of random modes."""
    model = _model(sizes.grid, sizes.modes, folder)
    rng = np.random.default_rng(1)
    coefficients = rng.normal(size=sizes.modes).astype(np.float32)
    shapes = len(model.shape_basis)
    mean = model.mean.reshape(1, -1)
    basis = np.concatenate([model.shape_basis, model.expression_basis]).reshape(sizes.modes, -1)
    network = _product(basis, mean, folder / "product.onnx")
    count = len(model.mean)
    name = f"reconstruction of {count:,} vertices from {sizes.modes} modes"

    def ours() -> Any:
        return model.reconstruct(coefficients[:shapes], coefficients[shapes:]).reshape(1, -1)

    alternatives: dict[str, Callable[[], Any]] = {
        "ONNX Runtime, Gemm": lambda: network.run(coefficients[None])[0],
        "NumPy's BLAS": lambda: coefficients[None] @ basis + mean,
    }
    read = basis.nbytes // 2 + 2 * mean.nbytes  # the model's basis has 16 bits
    for alternative, theirs in alternatives.items():
        yield Row(name, ours, alternative, theirs, _close(1e-3), read)
    params = np.stack([_params(model, rng) for _ in range(8)])
    rois = np.tile([0.0, 0.0, _INPUT_SIZE, _INPUT_SIZE], (8, 1))
    yield Row(
        f"{count:,} vertices of 8 faces, projected",
        lambda: model.project_many(params, rois, dense=True),
        "one face after the other",
        lambda: [model.project(p, roi, dense=True) for p, roi in zip(params, rois, strict=True)],
        _close(1e-3),
    )


def mesh_rows(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """Drawing and writing a mesh."""
    vertices, triangles = _mesh(sizes.grid)
    drawn = _drawn(vertices, sizes.face)
    side = sizes.face
    count = f"{len(triangles):,} triangles"
    buffers = ops.rasterize(drawn, triangles, side, side)
    yield Row(
        f"depth, triangle and weights of {count}, {side} pixels",
        lambda: ops.rasterize(drawn, triangles, side, side, out=buffers),
        "NumPy, bounding boxes, depth alone",
        lambda: textbook.rasterize_depth(drawn, triangles, side, side),
        lambda raster, depth: (
            _is_drawn(raster, drawn, triangles) and _depths_agree(raster.depth, depth)
        ),
    )
    model = _model(sizes.grid, 1, folder)
    count = f"{len(vertices):,} vertices"
    for work, normals in (
        (f"normals of {count}", lambda: ops.vertex_normals(vertices, triangles)),
        (f"normals of {count} of a model", lambda: model.vertex_normals(vertices)),
    ):
        yield Row(
            work,
            normals,
            "NumPy, scattered",
            lambda: textbook.vertex_normals(vertices, triangles),
            _close(1e-3),
        )
    ours, theirs = folder / "ours", folder / "theirs"

    def written(write: Callable[[], object], path: Path) -> Callable[[], Path]:
        def work() -> Path:
            write()
            return path

        return work

    yield Row(
        f"OBJ of {len(vertices):,} vertices",
        written(lambda: write_obj(ours, drawn, triangles), ours),
        "Python, line by line",
        written(lambda: textbook.write_obj(theirs, drawn, triangles), theirs),
        _same_files,
    )
    content = encode_ply(drawn, triangles)
    yield Row(
        f"binary PLY of {len(vertices):,} vertices",
        written(lambda: write_ply(ours, drawn, triangles), ours),
        "its bytes, written beside and moved",
        written(lambda: _write_and_move(theirs, content), theirs),
        _same_files,
    )


def _write_and_move(path: Path, content: bytes) -> None:
    """What it takes that a file appears whole or not at all."""
    beside = path.with_name("beside")
    beside.write_bytes(content)
    beside.replace(path)


def _same_files(ours: Path, theirs: Path) -> bool:
    return ours.read_bytes() == theirs.read_bytes()


def _in_reading_order(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """The order of equal scores is nobody's promise."""
    return boxes[np.argsort(boxes[:, 0] + 3 * boxes[:, 1])]


def _is_drawn(
    raster: ops.Raster, vertices: NDArray[np.float32], triangles: NDArray[np.int32]
) -> bool:
    """Whether triangles and weights lead to each pixel's own place and depth."""
    seen = raster.triangle >= 0
    corners = vertices[triangles[raster.triangle[seen]]]
    points = np.einsum("nk,nkd->nd", raster.barycentric[seen], corners)
    rows, columns = np.nonzero(seen)
    expected = np.stack([columns, rows, raster.depth[seen]], 1)
    return bool(seen.any()) and bool(np.allclose(points, expected, rtol=1e-4, atol=1e-2))


def _depths_agree(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> bool:
    """Everywhere but where rounding decides whether a pixel's centre is inside the outline."""
    differs = ~np.isclose(ours, theirs, rtol=1e-4, atol=1e-3)
    return ours.shape == theirs.shape and int(differs.sum()) <= 4 * len(ours) // 100


def _random_boxes(count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(count)
    corners = rng.uniform(0, 1000, (count, 2))
    boxes = np.hstack([corners, corners + rng.uniform(10, 100, (count, 2))]).astype(np.float32)
    return boxes, rng.permutation(np.linspace(0, 1, count, dtype=np.float32))


def _noise(size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


def _mesh(side: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """A bulging sheet of side x side vertices that fills -1..1, triangles of both diagonals."""
    y, x = np.meshgrid(*[np.linspace(-0.99, 0.99, side)] * 2, indexing="ij")
    z = 1 - (x**2 + y**2) / 2 + 0.05 * np.sin(9 * x) * np.sin(7 * y)
    vertices = np.stack([x, y, z], axis=-1).reshape(-1, 3).astype(np.float32)
    corner = np.arange(side * side, dtype=np.int32).reshape(side, side)
    a, b, c, d = (
        part.ravel()
        for part in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:])
    )
    triangles = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])
    triangles.flags.writeable = False  # as a model's are, which need no copy
    return vertices, triangles


def _drawn(vertices: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """The sheet moved into a picture of this side."""
    moved: NDArray[np.float32] = (vertices + np.array([1, 1, 0], np.float32)) * np.float32(side / 2)
    return moved


def _model(side: int, modes: int, folder: Path) -> MorphableModel:
    vertices, triangles = _mesh(side)
    rng = np.random.default_rng(side)
    bases = rng.normal(scale=0.01, size=(modes, *vertices.shape)).astype(np.float32)
    split = 4 * modes // 5
    landmarks = rng.integers(0, len(vertices), (_LANDMARKS, 3)).astype(np.int32)
    tensors = {
        "mean": vertices,
        **packed_basis("shape", bases[:split]),
        **packed_basis("expression", bases[split:]),
        "triangles": triangles,
        "landmark_vertices": landmarks,
        "landmark_weights": np.full((_LANDMARKS, 3), 1 / 3, np.float32),
    }
    path = folder / f"model{side}.safetensors"
    safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path)
    return MorphableModel.load(path, input_size=_INPUT_SIZE)


def _params(model: MorphableModel, rng: np.random.Generator) -> NDArray[np.float32]:
    camera = np.zeros((3, 4))
    camera[:, :3] = 0.4 * _INPUT_SIZE * np.eye(3)
    camera[:2, 3] = _INPUT_SIZE / 2
    modes = rng.normal(size=model.param_count - camera.size)
    return np.concatenate([camera.ravel(), modes]).astype(np.float32)


def _product(basis: NDArray[np.float32], mean: NDArray[np.float32], path: Path) -> Network:
    """coefficients @ basis + mean on one thread of ONNX Runtime."""
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["coefficients", "basis", "mean"], ["vertices"])],
        "reconstruction",
        [helper.make_tensor_value_info("coefficients", TensorProto.FLOAT, [1, len(basis)])],
        [helper.make_tensor_value_info("vertices", TensorProto.FLOAT, [1, basis.shape[1]])],
        [numpy_helper.from_array(basis, "basis"), numpy_helper.from_array(mean, "mean")],
    )
    opset = helper.make_opsetid("", 13)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return open_network(path, num_threads=1)


# --- the whole analysis ---------------------------------------------------------------------------


def scene(analyzer: FaceAnalyzer, count: int) -> NDArray[np.uint8]:
    """The best face of the sample picture, this many times, in a picture of 1080 x 720."""
    sample = load_image(SAMPLE)
    faces = analyzer.analyze(sample)
    if not faces:
        raise BenchError("the pack finds no face in the sample picture; it cannot be measured")
    x1, y1, x2, y2 = faces[0].bbox.tolist()
    margin = (x2 - x1 + y2 - y1) / 2
    left, top = max(0, int(x1 - margin)), max(0, int(y1 - margin))
    patch = sample[top : int(y2 + margin), left : int(x2 + margin)]
    step = math.ceil(max(patch.shape[:2]) / 300)
    patch = patch[::step, ::step]
    scene = np.zeros((720, 1080, 3), np.uint8)
    for i in range(count):
        top, left = 352 * (i % 2), 352 * (i // 2)
        scene[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
    return scene


class _Stopwatch:
    """A network that adds up the milliseconds of its runs and keeps its last batch."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.spent = 0.0
        self.batches: list[NDArray[np.float32]] = []

    def run(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        start = time.perf_counter()
        outputs = self._network.run(batch)
        self.spent += 1000 * (time.perf_counter() - start)
        self.batches.append(batch)
        return outputs

    def single_threaded(self) -> Network:
        return self._network.single_threaded()

    def repeat(self) -> Callable[[], None]:
        """What runs the network alone on all that it was given since the last call."""
        batches, self.batches = self.batches, []

        def run() -> None:
            for batch in batches:
                self._network.run(batch)

        return run


def analysis_table(pack: Pack, sizes: Sizes) -> Table:
    """What ``analyze`` costs beside its networks."""
    rows = []
    for threads in (1, 2):
        analyzer = FaceAnalyzer(pack, num_threads=threads)
        for count in (1, 5):
            picture = scene(analyzer, count)
            rows.append(_analysis(analyzer, picture, threads, sizes.seconds))
    return Table(
        "Analysis of one picture, 1080 x 720",
        "*Outside* is what is neither of the two networks; *networks alone* are their times when "
        "each is run again and again and nothing else.",
        ("faces", "threads", "median", "99 %", "outside", "networks alone", "median / alone"),
        tuple(rows),
    )


def _analysis(
    analyzer: FaceAnalyzer, picture: NDArray[np.uint8], threads: int, seconds: float
) -> tuple[str, ...]:
    faces = analyzer.analyze(picture)
    expected = analyzer.aligner.align_detected(
        [picture], [analyzer.detector.detect(picture)], [None]
    )[0].faces
    if not same_faces(faces, expected):
        raise BenchError("analyze: the faces differ from those of detector and aligner")
    watched = copy.copy(analyzer)
    watched.detector, watched.aligner = copy.copy(analyzer.detector), copy.copy(analyzer.aligner)
    stopwatches = [_Stopwatch(part._network) for part in (watched.detector, watched.aligner)]
    watched.detector._network, watched.aligner._network = stopwatches
    watched.analyze(picture)
    alone = sum(_median(timed([watch.repeat()], seconds / 2)[0]) for watch in stopwatches)
    totals: list[float] = []
    outside: list[float] = []
    end = time.perf_counter() + seconds
    while len(totals) < 5 or time.perf_counter() < end:
        for watch in stopwatches:
            watch.spent = 0
            watch.batches.clear()
        start = time.perf_counter()
        watched.analyze(picture)
        totals.append(1000 * (time.perf_counter() - start))
        outside.append(1 - sum(watch.spent for watch in stopwatches) / totals[-1])
    return (
        str(len(faces)),
        str(threads),
        _ms(_median(totals)),
        _ms(float(np.percentile(totals, 99))),
        f"{100 * _median(outside):.1f} %",
        _ms(alone),
        f"{_median(totals) / alone:.2f}",
    )


def same_faces(faces: Sequence[Face], others: Sequence[Face]) -> bool:
    """Whether boxes are the same and landmarks within 0.01 pixels."""
    return len(faces) == len(others) and all(
        _equal(a.bbox, b.bbox) and _close(0.01)(a.landmarks, b.landmarks)
        for a, b in zip(faces, others, strict=True)
    )


def batch_table(pack: Pack, sizes: Sizes) -> Table:
    """Many pictures on one core and on two."""
    one, two = (FaceAnalyzer(pack, num_threads=threads) for threads in (1, 2))
    pictures = [scene(one, 1 + i % 2) for i in range(sizes.batch)]
    row = Row(
        f"{sizes.batch} pictures, analyze_batch on two threads",
        lambda: two.analyze_batch(pictures),
        "on one thread",
        lambda: one.analyze_batch(pictures),
        lambda a, b: len(a) == len(b) == len(pictures) and all(map(same_faces, a, b)),
    )
    work, ours, _, alternative, theirs, ratio, _ = measured(row, sizes.seconds)
    return Table(
        "Many pictures",
        f"This process may use {available_cpus()} CPUs.",
        ("work", "median", "alternative", "its median", "times as fast"),
        ((work, ours, alternative, theirs, ratio),),
    )


_STARTUP = """
import sys, time
times = [time.perf_counter()]
import numpy
times.append(time.perf_counter())
import threedfa
times.append(time.perf_counter())
threedfa.FaceAnalyzer(sys.argv[1])
times.append(time.perf_counter())
print(*(1000 * (b - a) for a, b in zip(times, times[1:])))
"""


def startup_table(pack: Pack, sizes: Sizes) -> Table:
    """Times of new processes."""
    command = [sys.executable, "-c", _STARTUP, str(pack.folder)]
    found = []
    for _ in range(max(1, min(5, round(5 * sizes.seconds)))):
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append([float(value) for value in result.stdout.split()])
    numpy_, package, analyzer = np.median(found, axis=0)
    return Table(
        "Start",
        "Medians of new processes, one after the other.",
        ("work", "median"),
        (
            ("import numpy", _ms(numpy_)),
            ("import threedfa, beyond that", _ms(package)),
            ("the first FaceAnalyzer()", _ms(analyzer)),
        ),
    )


def memory_table(pack: Pack, sizes: Sizes) -> Table:
    """Growth of the resident memory over many analyses."""
    analyzer = FaceAnalyzer(pack, num_threads=1)
    picture = scene(analyzer, 1)
    for _ in range(max(1, sizes.analyses // 10)):
        analyzer.analyze(picture)
    before = resident_bytes()
    for _ in range(sizes.analyses):
        analyzer.analyze(picture)
    after = resident_bytes()
    growth = "unknown on this system" if not before else f"{(after - before) / 2**20:.2f} MiB"
    return Table(
        "Memory",
        "Resident memory of this process, read after as many analyses again divided by ten.",
        ("work", "growth"),
        ((f"{sizes.analyses:,} analyses", growth),),
    )


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the system has no ``/proc``."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


# --- growth ---------------------------------------------------------------------------------------


def growth_tables(sizes: Sizes, folder: Path) -> Iterator[Table]:
    """Times of ever more work: linear where the last column does not grow."""
    model = _model(sizes.grid, sizes.modes, folder)
    rng = np.random.default_rng(2)

    def faces(count: int) -> Callable[[], Any]:
        params = np.stack([_params(model, rng) for _ in range(count)])
        rois = np.tile([0.0, 0.0, _INPUT_SIZE, _INPUT_SIZE], (count, 1))
        return lambda: model.project_many(params, rois, dense=True)

    def triangles(side: int) -> Callable[[], Any]:
        vertices, corners = _mesh(side)
        drawn = _drawn(vertices, sizes.face)
        buffers = ops.rasterize(drawn, corners, sizes.face, sizes.face)
        return lambda: ops.rasterize(drawn, corners, sizes.face, sizes.face, out=buffers)

    def boxes(count: int) -> Callable[[], Any]:
        found = _random_boxes(count)
        return lambda: ops.nms(*found, 0.3, offset=1)

    def pixels(megapixels: float) -> Callable[[], Any]:
        height = round(math.sqrt(megapixels * 1e6 * 2 / 3))
        image = _noise((height, round(height * 1.5)))
        return lambda: _core.resize_normalize_grey(image, 480, 720, mean=0, scale=1)

    kinds: list[tuple[str, str, Sequence[Any], Callable[[Any], int], Callable[[Any], Any]]] = [
        ("dense vertices", "faces", sizes.growth_faces, int, faces),
        ("drawing", "triangles", sizes.growth_grids, lambda s: 2 * (s - 1) ** 2, triangles),
        ("suppression", "boxes", sizes.growth_boxes, int, boxes),
        ("detector's input", "pixels", sizes.growth_megapixels, lambda m: round(m * 1e6), pixels),
    ]
    for work, unit, values, amount, make in kinds:
        rows = []
        for value in values:
            median = _median(timed([make(value)], sizes.seconds / len(values))[0])
            rows.append(
                (f"{amount(value):,}", _ms(median), f"{1e6 * median / amount(value):.3g} ns")
            )
        yield Table(f"Growth: {work}", "", (unit, "median", "each"), tuple(rows))


if __name__ == "__main__":
    sys.exit(main())
