"""The kernels and the checks of their arguments."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from head import head_params, load_head
from threedfa import PriorConfig, _core, ops
from threedfa.priors import PriorLevel, PriorSize

Array = npt.NDArray[Any]
Arguments = dict[str, Array]

DATA = Path(__file__).parents[1] / "data"

seeds = st.integers(0, 2**32 - 1)


def stored(name: str) -> dict[str, Array]:
    with np.load(DATA / name) as arrays:
        return dict(arrays)


def real(*values: Any) -> Array:
    return np.array(values, np.float32)


# --- The checks of arguments ---------------------------------------------------------------------
# One call of every kernel. Numbers are whole, so that every dtype can hold them.

SQUARE = real((1, 1, 4), (8, 2, 0), (7, 9, 2), (2, 8, 8))
TWO_TRIANGLES = np.array([(0, 1, 2), (0, 2, 3)], np.int32)
IMAGE = np.random.default_rng(1).integers(0, 256, (10, 11, 3), np.uint8)
REGION = real(1, 2, 7, 8)
NORMALIZATION: Arguments = {"mean": real(100, 110, 120), "scale": real(1, 2, 3)}
BOXES = real((0, 0, 9, 9), (1, 0, 9, 9), (20, 20, 29, 28))
PRIORS = real((1, 1, 2, 2), (5, 5, 4, 2), (1, 2, 3, 4))

Kernel = tuple[Callable[..., Any], Arguments]
KERNELS: dict[str, Kernel] = {
    "nms": (lambda **k: ops.nms(iou_threshold=0.5, **k), {"boxes": BOXES, "scores": real(1, 3, 2)}),
    "decode_boxes": (ops.decode_boxes, {"loc": BOXES - 5, "priors": PRIORS}),
    "detect": (
        lambda **k: _core.detect(
            **k,
            variances=(0.1, 0.2),
            score_threshold=0.5,
            scale_x=10,
            scale_y=10,
            iou_threshold=0.3,
            nms_offset=1,
            top_k=100,
            keep_top_k=100,
        ),
        {"loc": BOXES - 5, "conf": real((0, 1), (1, 0), (0, 1)), "priors": PRIORS},
    ),
    "vertex_normals": (ops.vertex_normals, {"vertices": SQUARE, "triangles": TWO_TRIANGLES}),
    "rasterize": (
        lambda **k: astuple(ops.rasterize(height=10, width=11, **k)),
        {
            "vertices": SQUARE,
            "triangles": TWO_TRIANGLES,
            "attributes": SQUARE[:, :2],
            "background": IMAGE[:, :, :2].astype(np.float32),
        },
    ),
    "shade": (_core.shade, {"vertices": SQUARE, "normals": SQUARE[::-1].copy()}),
    "sample_bilinear": (_core.sample_bilinear, {"image": IMAGE, "points": SQUARE}),
    "uv_texture": (
        lambda **k: _core.uv_texture(size=8, **k),
        {
            "image": IMAGE,
            "vertices": SQUARE,
            "uv": real((0, 0), (1, 0), (1, 1), (0, 1)),
            "triangles": TWO_TRIANGLES,
        },
    ),
    "roi_from_box": (
        lambda **k: _core.roi_from_box(scale=1.5, shift_y=0.1, integer_side=True, **k),
        {"box": REGION},
    ),
    "roi_from_landmarks": (
        lambda **k: _core.roi_from_landmarks(scale=1.5, **k),
        {"landmarks": SQUARE},
    ),
    "crop_resize": (
        lambda **k: _core.crop_resize(height=5, width=6, **k),
        {"image": IMAGE, "roi": REGION},
    ),
    "crop_normalize": (
        lambda **k: _core.crop_normalize(size=5, reverse_channels=True, **k),
        {"image": IMAGE, "rois": np.stack([REGION, REGION - 1]), **NORMALIZATION},
    ),
    "resize_normalize": (
        lambda **k: _core.resize_normalize(height=5, width=6, reverse_channels=False, **k),
        {"image": IMAGE, **NORMALIZATION},
    ),
    "resize_normalize_grey": (
        lambda **k: _core.resize_normalize_grey(height=5, width=6, mean=9, scale=2, **k),
        {"image": IMAGE},
    ),
    "decompose": (_core.decompose, {"camera": real(1, 2, 0, 9, -2, 1, 0, 9, 0, 0, 3, 9)}),
    "image_projection": (
        lambda **k: _core.image_projection(input_size=12, **k),
        {"camera": real(1, 2, 0, 9, -2, 1, 0, 9, 0, 0, 3, 9), "roi": REGION},
    ),
}

every_array = pytest.mark.parametrize(
    ("kernel", "name"),
    [
        pytest.param(kernel, name, id=f"{label}-{name}")
        for label, kernel in KERNELS.items()
        for name in kernel[1]
    ],
)


def flat(result: Any) -> list[Array]:
    return [np.asarray(part) for part in (result if isinstance(result, tuple) else (result,))]


def expect_same(kernel: Kernel, name: str, value: Any) -> None:
    function, arguments = kernel
    before = flat(function(**arguments))
    for expected, actual in zip(before, flat(function(**{**arguments, name: value})), strict=True):
        np.testing.assert_array_equal(actual, expected)


def error_of(kernel: Kernel, name: str, value: Any, kind: type[Exception]) -> str:
    function, arguments = kernel
    with pytest.raises(kind) as caught:
        function(**{**arguments, name: value})
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "expected" in message
    assert "got" in message
    return message


@every_array
def test_wrong_dtypes(kernel: Kernel, name: str) -> None:
    array = kernel[1][name]
    wrong: list[Any] = ["bool", "complex64", "object", "U3", "S3", "datetime64[s]"]
    wrong += {"f": [], "i": ["float32", "float64"], "u": ["int8", "float32", "uint16"]}[
        array.dtype.kind
    ]
    for dtype in wrong:
        value = np.zeros(array.shape, dtype)
        message = error_of(kernel, name, value, TypeError)
        assert message.startswith(f"{name}: ")
        assert str(value.dtype) in message
    other: Any
    for other in ("text", {}, object(), [[1, 2], [3]]):
        assert error_of(kernel, name, other, TypeError).startswith(f"{name}: ")


@every_array
def test_wrong_ranks(kernel: Kernel, name: str) -> None:
    array = kernel[1][name]
    for wrong in (array[None], array[..., None], array.reshape(-1)[0]):
        message = error_of(kernel, name, wrong, ValueError)
        assert message.startswith(f"{name}: ")
        shape = tuple(wrong.shape)
        assert f"got {array.dtype} {shape}" in message


@every_array
def test_wrong_extents(kernel: Kernel, name: str) -> None:
    array = kernel[1][name]
    if name == "image":
        wrong = np.concatenate([array, array], axis=2)  # six channels
        if kernel is KERNELS["sample_bilinear"] or kernel is KERNELS["crop_resize"]:
            return  # any number of channels
    elif name in ("landmarks", "points"):
        wrong = array[:, :1]  # any number of columns but one
    elif name == "attributes":
        wrong = array[:-1]
    else:
        wrong = array[..., :-1]
    shape = tuple(wrong.shape)
    function, arguments = kernel
    with pytest.raises(ValueError, match=r"expected .*got"):
        function(**{**arguments, name: wrong})
    if name not in ("landmarks", "points"):
        assert f"got {array.dtype} {shape}" in error_of(kernel, name, wrong, ValueError)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("nms", "scores"),
        ("decode_boxes", "priors"),
        ("detect", "conf"),
        ("detect", "priors"),
        ("rasterize", "attributes"),
        ("rasterize", "background"),
        ("shade", "normals"),
        ("uv_texture", "uv"),
    ],
)
def test_arrays_that_do_not_belong_together(label: str, name: str) -> None:
    array = KERNELS[label][1][name]
    message = error_of(KERNELS[label], name, array[:-1], ValueError)
    assert str(array.shape[0]) in message
    assert str(array.shape[0] - 1) in message


@every_array
def test_values_that_are_not_finite(kernel: Kernel, name: str) -> None:
    array = kernel[1][name]
    if array.dtype.kind != "f":
        return
    # 1e300 is finite, but not as the float32 that most kernels calculate with.
    for bad, shown in ((np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf"), (1e300, None)):
        wrong = array.astype(np.float64)
        wrong.reshape(-1)[-1] = bad
        if bad == 1e300 and name in ("box", "roi", "rois"):
            continue  # used as float64; tested where regions are
        message = error_of(kernel, name, wrong, ValueError)
        if kernel is KERNELS["detect"] and name in ("loc", "priors"):
            assert message.startswith("network output: expected a finite score and box")
            continue  # looked at where a face may be
        assert message.startswith(f"{name}: expected finite")
        if shown is not None:
            assert f"got {shown} at flat index {array.size - 1}" in message


@pytest.mark.parametrize("label", ["vertex_normals", "rasterize", "uv_texture"])
@pytest.mark.parametrize("bad", [-1, 4, 2**31 - 1, -(2**31), 2**31, 2**32, 2**40, -(2**40)])
def test_triangles_out_of_range(label: str, bad: int) -> None:
    wrong = TWO_TRIANGLES.astype(np.int64)
    wrong[1, 2] = bad
    message = error_of(KERNELS[label], "triangles", wrong, ValueError)
    assert f"0..3, got {bad} at flat index 5" in message


def test_unsigned_triangles_out_of_range() -> None:
    wrong = TWO_TRIANGLES.astype(np.uint64)
    wrong[0, 0] = 2**64 - 1
    error_of(KERNELS["vertex_normals"], "triangles", wrong, ValueError)


@every_array
def test_every_dtype_that_can_hold_the_values(kernel: Kernel, name: str) -> None:
    array = kernel[1][name]
    if array.dtype.kind == "u":
        return
    dtypes: list[Any] = [np.int16, np.int64, ">i4"]
    if array.dtype.kind == "f":
        dtypes += [np.float16, np.float64, np.longdouble, ">f4", ">f8"]
    if array.min() >= 0:
        dtypes += [np.uint8, np.uint64]
    for dtype in dtypes:
        expect_same(kernel, name, array.astype(dtype))
    expect_same(kernel, name, array.tolist())


@every_array
def test_every_memory_layout(kernel: Kernel, name: str) -> None:
    array = kernel[1][name]
    unaligned = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    unaligned[...] = array
    locked = array.copy()
    locked.flags.writeable = False
    expect_same(kernel, name, unaligned)
    expect_same(kernel, name, locked)
    expect_same(kernel, name, np.asfortranarray(array))
    expect_same(kernel, name, np.repeat(array, 2, axis=0)[::2])
    expect_same(kernel, name, np.repeat(array, 3, axis=-1)[..., 1::3])
    expect_same(kernel, name, np.flip(np.flip(array).copy()))
    expect_same(kernel, name, array.view(np.ma.MaskedArray))


@pytest.mark.parametrize("label", KERNELS)
def test_arguments_stay_as_they_are(label: str) -> None:
    function, arguments = KERNELS[label]
    copies = {name: array.copy() for name, array in arguments.items()}
    results = flat(function(**arguments))
    for result in results:
        if result.flags.writeable:
            result[...] = 1
    for name, array in arguments.items():
        np.testing.assert_array_equal(array, copies[name])


def test_nothing_to_do() -> None:
    none = np.empty((0, 4))
    assert ops.nms(none, [], 0.5).shape == (0,)
    assert ops.decode_boxes(none, none).shape == (0, 4)
    no_triangles = np.empty((0, 3), np.int32)
    assert ops.vertex_normals(np.empty((0, 3)), no_triangles).shape == (0, 3)
    np.testing.assert_array_equal(ops.vertex_normals(SQUARE, no_triangles), np.zeros((4, 3)))
    raster = ops.rasterize(np.empty((0, 3)), no_triangles, 2, 3, attributes=np.empty((0, 1)))
    assert np.all(raster.depth == -np.inf)
    assert raster.image is not None
    assert raster.image.shape == (2, 3, 1)
    assert _core.shade(np.empty((0, 3)), np.empty((0, 3))).shape == (0,)
    with pytest.raises(ValueError, match="triangles: expected indices"):
        ops.vertex_normals(np.empty((0, 3)), TWO_TRIANGLES)


def test_no_pixels() -> None:
    for shape in ((0, 5, 3), (5, 0, 3)):
        with pytest.raises(ValueError, match=r"image: expected at least one pixel, got .*0"):
            _core.crop_resize(np.zeros(shape, np.uint8), REGION, 5, 5)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, np.nan, np.inf])
def test_nms_threshold_out_of_range(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"iou_threshold: expected .*0\.\.1, got"):
        ops.nms(BOXES, [1, 2, 3], threshold)


@pytest.mark.parametrize("offset", [-1, np.nan, np.inf])
def test_nms_offset_out_of_range(offset: float) -> None:
    with pytest.raises(ValueError, match=r"offset: expected .*got"):
        ops.nms(BOXES, [1, 2, 3], 0.5, offset=offset)


def test_scalars_of_a_wrong_type() -> None:
    wrong: Any
    for wrong in ("0.5", None, [0.5], 1j):
        with pytest.raises(TypeError):
            ops.nms(BOXES, [1, 2, 3], wrong)
    for wrong in ("5", None, 5.5, [5]):
        with pytest.raises(TypeError):
            ops.rasterize(SQUARE, TWO_TRIANGLES, wrong, 5)
        with pytest.raises(TypeError):
            ops.prior_boxes(5, wrong, PriorConfig.faceboxes())


@pytest.mark.parametrize("side", [0, -1, 65536, 2**31, 2**40])
def test_raster_sizes_out_of_range(side: int) -> None:
    with pytest.raises(ValueError, match=rf"height: expected 1\.\.65535 pixels, got {side}"):
        ops.rasterize(SQUARE, TWO_TRIANGLES, side, 5)
    with pytest.raises(ValueError, match=rf"width: expected 1\.\.65535 pixels, got {side}"):
        ops.rasterize(SQUARE, TWO_TRIANGLES, 5, side)


def test_background_without_attributes() -> None:
    with pytest.raises(ValueError, match="background: expected together with attributes"):
        ops.rasterize(SQUARE, TWO_TRIANGLES, 5, 5, background=np.zeros((5, 5, 3)))


def test_attributes_without_channels() -> None:
    with pytest.raises(ValueError, match="channels: expected at least 1, got 0"):
        ops.rasterize(SQUARE, TWO_TRIANGLES, 5, 5, attributes=np.empty((4, 0)))


# --- The GIL -------------------------------------------------------------------------------------


def long_calls(folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Calls of some milliseconds, whose arguments need no conversion: NumPy's would release the
    GIL too."""
    rng = np.random.default_rng(0)
    corners = rng.random((3000, 2), np.float32) * 5000
    boxes = np.concatenate([corners, corners + 50], axis=1)
    scores = rng.random(3000, np.float32)
    many = rng.random((200_000, 4), np.float32)
    conf = many[:, :2].copy()
    vertices = rng.random((30_000, 3), np.float32) * 300
    triangles = rng.integers(0, 30_000, (60_000, 3)).astype(np.int32)
    few = triangles[:500]
    image = rng.integers(0, 256, (1000, 1000, 3), np.uint8)
    uv = np.ascontiguousarray(vertices[:, :2] / 300)
    model = load_head(folder / "head.safetensors")
    params = np.tile(head_params(), (300, 1))
    rois = np.tile(np.array([0.0, 0, 100, 100]), (300, 1))
    plain: dict[str, Any] = {
        "mean": real(0, 0, 0),
        "scale": real(1, 1, 1),
        "reverse_channels": False,
    }
    config = PriorConfig.faceboxes()
    yield "nms", lambda: ops.nms(boxes, scores, 0.5)
    yield "prior_boxes", lambda: ops.prior_boxes(4000, 4000, config)
    yield "decode_boxes", lambda: ops.decode_boxes(many, many)
    yield (
        "detect",
        lambda: _core.detect(
            many,
            conf,
            many,
            variances=(0.1, 0.2),
            score_threshold=0.5,
            scale_x=1,
            scale_y=1,
            iou_threshold=0.3,
            nms_offset=0,
            top_k=100,
            keep_top_k=10,
        ),
    )
    yield "vertex_normals", lambda: ops.vertex_normals(vertices, triangles)
    yield "rasterize", lambda: ops.rasterize(vertices, few, 300, 300)
    yield "shade", lambda: _core.shade(vertices, vertices)
    yield "uv_texture", lambda: _core.uv_texture(image, vertices, uv, few, 256)
    yield "sample_bilinear", lambda: _core.sample_bilinear(image, vertices)
    yield "crop_resize", lambda: _core.crop_resize(image, rois[0], 900, 900)
    yield "crop_normalize", lambda: _core.crop_normalize(image, rois[:50], 120, **plain)
    yield "resize_normalize", lambda: _core.resize_normalize(image, 900, 900, **plain)
    yield (
        "resize_normalize_grey",
        lambda: _core.resize_normalize_grey(image, 900, 900, mean=9, scale=2),
    )
    yield "project", lambda: model.project_many(params, rois, dense=True)


@pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="this Python has no GIL"
)
def test_kernels_release_the_gil(tmp_path: Path) -> None:
    """With so long a switch interval a thread runs on until it gives the GIL away by itself, so
    the other thread can only have run if a kernel released it."""
    interval = sys.getswitchinterval()
    for name, call in long_calls(tmp_path):
        call()
        waiting, go = threading.Event(), threading.Event()
        ran: list[bool] = []

        def other(waiting: Any = waiting, go: Any = go, ran: list[bool] = ran) -> None:
            waiting.set()
            go.wait()
            ran.append(True)

        thread = threading.Thread(target=other)
        thread.start()
        waiting.wait()
        try:
            sys.setswitchinterval(1000)
            go.set()
            for _ in range(100_000):  # time enough to wake up
                pass
            ran_before = bool(ran)
            for _ in range(500):
                call()
                if ran:
                    break
            ran_during = bool(ran)
        finally:
            sys.setswitchinterval(interval)
            thread.join()
        assert not ran_before
        assert ran_during, f"{name} holds the GIL"


# --- Non-maximum suppression ---------------------------------------------------------------------


def oracle_nms(boxes: Array, scores: Array, threshold: float, offset: float) -> list[int]:
    """Each pair compared, in the float32 arithmetic of Fast R-CNN."""
    x1, y1, x2, y2 = boxes.T
    extra = np.float32(offset)
    areas = (x2 - x1 + extra) * (y2 - y1 + extra)
    order = np.argsort(scores, kind="stable")[::-1]
    removed = np.zeros(len(boxes), bool)
    keep = []
    for position, i in enumerate(order):
        if removed[i]:
            continue
        keep.append(int(i))
        for j in order[position + 1 :]:
            width = max(np.float32(0), min(x2[i], x2[j]) - max(x1[i], x1[j]) + extra)
            height = max(np.float32(0), min(y2[i], y2[j]) - max(y1[i], y1[j]) + extra)
            union = areas[i] + areas[j] - width * height
            if union > 0 and float(width * height / union) >= threshold:
                removed[j] = True
    return keep


@st.composite
def box_sets(draw: st.DrawFn) -> tuple[Array, Array]:
    """Up to 25 boxes close together, some without area, and distinct scores."""
    count = draw(st.integers(0, 25))
    numbers = st.one_of(st.integers(0, 12).map(float), st.floats(0, 12, width=32))
    corners = draw(hnp.arrays(np.float32, (count, 2), elements=numbers))
    sides = draw(hnp.arrays(np.float32, (count, 2), elements=numbers))
    scores = np.array(draw(st.permutations(range(count))), np.float32) / 25
    return np.concatenate([corners, corners + sides], axis=1), scores


thresholds = st.one_of(st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.floats(0, 1))
offsets = st.sampled_from([0, 1])


@given(box_sets(), thresholds, offsets)
def test_nms_equals_the_plain_algorithm(
    box_set: tuple[Array, Array], threshold: float, offset: int
) -> None:
    keep = ops.nms(*box_set, threshold, offset=offset)
    assert keep.dtype == np.int64
    assert keep.tolist() == oracle_nms(*box_set, threshold, offset)


@given(box_sets(), thresholds, offsets)
def test_nms_keeps_a_subset_best_first(
    box_set: tuple[Array, Array], threshold: float, offset: int
) -> None:
    boxes, scores = box_set
    keep = ops.nms(boxes, scores, threshold, offset=offset)
    assert len(set(keep.tolist())) == len(keep) <= len(boxes)
    assert set(keep.tolist()) <= set(range(len(boxes)))
    assert np.all(np.diff(scores[keep]) < 0)
    assert not len(boxes) or keep[0] == scores.argmax()


@given(box_sets(), thresholds, offsets)
def test_nms_of_its_result_removes_nothing(
    box_set: tuple[Array, Array], threshold: float, offset: int
) -> None:
    boxes, scores = box_set
    keep = ops.nms(boxes, scores, threshold, offset=offset)
    again = ops.nms(boxes[keep], scores[keep], threshold, offset=offset)
    assert again.tolist() == list(range(len(keep)))


@given(box_sets(), thresholds, offsets, seeds)
def test_nms_does_not_depend_on_the_order_of_boxes(
    box_set: tuple[Array, Array], threshold: float, offset: int, seed: int
) -> None:
    boxes, scores = box_set
    order = np.random.default_rng(seed).permutation(len(boxes))
    keep = ops.nms(boxes[order], scores[order], threshold, offset=offset)
    np.testing.assert_array_equal(order[keep], ops.nms(boxes, scores, threshold, offset=offset))


def test_nms_offset() -> None:
    """Two boxes side by side that share a column of pixels, but no area."""
    boxes, scores = [(0, 0, 4, 4), (4, 0, 8, 4)], [2, 1]
    assert ops.nms(boxes, scores, 0.1, offset=0).tolist() == [0, 1]
    assert ops.nms(boxes, scores, 0.1, offset=1).tolist() == [0]


def test_nms_ties_are_visited_by_falling_index() -> None:
    boxes = [(0, 0, 9, 9), (0, 0, 9, 9), (50, 0, 60, 9), (0, 0, 9, 9)]
    assert ops.nms(boxes, [1, 1, 1, 1], 0.5).tolist() == [3, 2]


def test_nms_equals_stored_results() -> None:
    sets = stored("nms.npz")
    checked = 0
    for key in sets:
        name, _, threshold = key.rpartition("_keep_")
        if name:
            dets = sets[f"{name}_dets"]
            keep = ops.nms(dets[:, :4], dets[:, 4], float(threshold), offset=1)
            np.testing.assert_array_equal(keep, sets[key], key)
            checked += 1
    assert checked == 10


# --- Prior boxes and decoding --------------------------------------------------------------------


def oracle_priors(height: int, width: int, config: PriorConfig) -> Array:
    rows = []
    for level in config.levels:
        for i in range(-(-height // level.step)):
            for j in range(-(-width // level.step)):
                for size in level.sizes:
                    inner = size.offset + np.arange(size.density) / size.density
                    for y in i + inner:
                        for x in j + inner:
                            center = (x * level.step / width, y * level.step / height)
                            rows.append((*center, size.size / width, size.size / height))
    return np.array(rows)


prior_configs = st.builds(
    PriorConfig,
    st.lists(
        st.builds(
            PriorLevel,
            st.integers(1, 40),
            st.lists(
                st.builds(
                    PriorSize, st.floats(0.5, 600), st.integers(1, 4), st.sampled_from([0.0, 0.5])
                ),
                min_size=1,
                max_size=3,
            ).map(tuple),
        ),
        min_size=1,
        max_size=3,
    ).map(tuple),
)


@settings(max_examples=60)
@given(prior_configs, st.integers(1, 50), st.integers(1, 50))
def test_priors_equal_the_definition(config: PriorConfig, height: int, width: int) -> None:
    priors = ops.prior_boxes(height, width, config)
    assert priors.dtype == np.float32
    expected = oracle_priors(height, width, config)
    assert priors.shape == expected.shape
    np.testing.assert_allclose(priors, expected, rtol=2e-7)


def test_priors_equal_stored_results() -> None:
    checked = 0
    for key, expected in stored("priors.npz").items():
        if key.startswith("h"):
            height, width = (int(part[1:]) for part in key.split("_"))
            priors = ops.prior_boxes(height, width, PriorConfig.faceboxes())
            np.testing.assert_allclose(priors, expected, rtol=0, atol=1e-6, err_msg=key)
            checked += 1
    assert checked == 8


@pytest.mark.parametrize(
    ("level", "match"),
    [
        (PriorLevel(0, (PriorSize(8),)), "step: expected 1 pixel or more, got 0"),
        (PriorLevel(8, ()), "level: expected at least one size"),
        (PriorLevel(8, (PriorSize(0),)), "size: expected .* got 0"),
        (PriorLevel(8, (PriorSize(float("nan")),)), "size: expected .* got nan"),
        (PriorLevel(8, (PriorSize(8, 0),)), "density: expected 1 or more, got 0"),
        (PriorLevel(8, (PriorSize(8, 1, float("inf")),)), "offset: expected .* got inf"),
    ],
)
def test_prior_configurations_that_are_not_valid(level: PriorLevel, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ops.prior_boxes(8, 8, PriorConfig((level,)))


def test_prior_sizes_out_of_range() -> None:
    with pytest.raises(ValueError, match="at least one level"):
        ops.prior_boxes(8, 8, PriorConfig(()))
    for height, width in ((0, 8), (8, 0), (-1, 8)):
        with pytest.raises(ValueError, match=f"at least 1, got {height} x {width}"):
            ops.prior_boxes(height, width, PriorConfig.faceboxes())


@given(seeds, st.floats(0.05, 1), st.floats(0.05, 1))
def test_decoding_undoes_encoding(seed: int, center: float, size: float) -> None:
    rng = np.random.default_rng(seed)
    priors, boxes = (
        np.concatenate([rng.uniform(0, 1, (20, 2)), rng.uniform(0.02, 1, (20, 2))], axis=1)
        for _ in range(2)
    )
    loc = np.concatenate(
        [
            (boxes[:, :2] - priors[:, :2]) / (center * priors[:, 2:]),
            np.log(boxes[:, 2:] / priors[:, 2:]) / size,
        ],
        axis=1,
    )
    corners = np.concatenate(
        [boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1
    )
    decoded = ops.decode_boxes(loc, priors, (center, size))
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, corners, rtol=0, atol=5e-6)


def test_decoding_equals_stored_results() -> None:
    data = stored("priors.npz")
    boxes = ops.decode_boxes(data["decode_loc"], data["decode_priors"])
    np.testing.assert_allclose(boxes, data["decode_boxes"], rtol=1e-6, atol=1e-6)


def test_variances_must_be_finite() -> None:
    with pytest.raises(ValueError, match="variances: expected finite numbers, got nan"):
        ops.decode_boxes(BOXES, PRIORS, (np.nan, 0.2))


# --- Normals -------------------------------------------------------------------------------------


def random_mesh(rng: np.random.Generator, vertices: int = 30, triangles: int = 60) -> Arguments:
    return {
        "vertices": rng.uniform(-3, 23, (vertices, 3)).astype(np.float32),
        "triangles": rng.integers(0, vertices, (triangles, 3)).astype(np.int32),
    }


@given(seeds)
def test_normals_equal_the_definition(seed: int) -> None:
    mesh = random_mesh(np.random.default_rng(seed))
    corners = mesh["vertices"].astype(np.float64)[mesh["triangles"]]
    areas = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sums = np.zeros(mesh["vertices"].shape)
    for corner in range(3):
        np.add.at(sums, mesh["triangles"][:, corner], areas)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    expected = np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0)
    normals = ops.vertex_normals(**mesh)
    assert normals.dtype == np.float32
    np.testing.assert_allclose(normals, expected, rtol=0, atol=1e-6)


def test_normals_point_to_where_triangles_run_counter_clockwise() -> None:
    vertices = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (5, 5, 5)]
    np.testing.assert_array_equal(
        ops.vertex_normals(vertices, [(0, 1, 2)]), [(0, 0, 1)] * 3 + [(0, 0, 0)]
    )


# --- The rasterizer ------------------------------------------------------------------------------

SIDE = 24


def coverage(vertices: Array, triangle: Sequence[int]) -> Array:
    return ops.rasterize(vertices, [triangle], SIDE, SIDE).triangle == 0


def cross(o: Array, a: Array, b: Array) -> float:
    return float((a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0]))


def convex_hull(points: Array) -> list[Array]:
    """Its corners, by Andrew's monotone chain."""
    ordered = sorted({(x, y) for x, y in points.tolist()})
    hull = []
    for part in (ordered, ordered[::-1]):
        chain: list[Array] = []
        for point in map(np.array, part):
            while len(chain) >= 2 and cross(chain[-2], chain[-1], point) <= 0:
                chain.pop()
            chain.append(point)
        hull += chain[:-1]
    return hull


@st.composite
def triangulations(draw: st.DrawFn) -> tuple[Array, Array, Array]:
    """Vertices and triangles of a convex polygon, and its corners; on whole and half pixels."""
    halves = st.integers(-4, 2 * SIDE + 4)
    points = np.array(draw(st.lists(st.tuples(halves, halves), min_size=3, max_size=8))) / 2
    corners = convex_hull(points)
    if len(corners) < 3:
        corners = [np.array(c) for c in ((0, 0), (5, 0.5), (3, 7.5))]
    polygon = np.array(corners)
    vertices = list(corners)
    triangles = [(0, i, i + 1) for i in range(1, len(corners) - 1)]
    for _ in range(draw(st.integers(0, 6))):
        index = draw(st.integers(0, len(triangles) - 1))
        a, b, c = triangles[index]
        weights = np.array(draw(st.lists(st.integers(1, 9), min_size=3, max_size=3)))
        inner = weights @ np.array([vertices[a], vertices[b], vertices[c]]) / weights.sum()
        inner = np.rint(2 * inner) / 2
        new = len(vertices)
        parts = [(a, b, new), (b, c, new), (c, a, new)]
        if all(cross(vertices[i], vertices[j], inner) > 0 for i, j, _ in parts):
            vertices.append(inner)
            triangles[index : index + 1] = parts
    turned = [draw(st.permutations(triangle)) for triangle in triangles]
    flat_vertices = np.column_stack([np.array(vertices), np.zeros(len(vertices))])
    return flat_vertices.astype(np.float32), np.array(turned, np.int32), polygon


@settings(max_examples=150)
@given(triangulations())
def test_adjacent_triangles_cover_each_pixel_once(mesh: tuple[Array, Array, Array]) -> None:
    vertices, triangles, polygon = mesh
    count = np.sum([coverage(vertices, triangle) for triangle in triangles], axis=0)
    # The top-left rule: a centre on the border counts as if it lay a hair to the right, and less
    # than a hair further down.
    y, x = np.mgrid[:SIDE, :SIDE] + np.array([1e-6, 1e-3])[:, None, None]
    inside = np.ones((SIDE, SIDE), bool)
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        inside &= (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]) > 0
    np.testing.assert_array_equal(count, inside)


@given(seeds)
def test_fans_of_any_coordinates_leave_no_gap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    rim = SIDE / 2 + 9 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    middle = rim.mean(axis=0)
    vertices = np.column_stack([np.vstack([middle, rim]), np.zeros(10)]).astype(np.float32)
    fan = [(0, i, i % 9 + 1) for i in range(1, 10)]
    count = np.sum([coverage(vertices, triangle) for triangle in fan], axis=0)
    whole = np.sum([coverage(vertices, (1, i, i + 1)) for i in range(2, 9)], axis=0)
    np.testing.assert_array_equal(count, whole)
    assert count.max() == 1


def draw_alone(mesh: Arguments) -> Array:
    """Depth of each triangle by itself."""
    return np.array(
        [ops.rasterize(mesh["vertices"], [t], SIDE, SIDE).depth for t in mesh["triangles"]]
    )


@settings(max_examples=30)
@given(seeds)
def test_nearest_triangle_wins_and_then_the_earlier(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mesh = random_mesh(rng, triangles=20)
    mesh["triangles"] = mesh["triangles"][rng.integers(0, 20, 30)]  # some of them twice
    alone = draw_alone(mesh)
    raster = ops.rasterize(**mesh, height=SIDE, width=SIDE)
    np.testing.assert_array_equal(raster.depth, alone.max(axis=0))
    nearest = np.where(np.isfinite(raster.depth), alone.argmax(axis=0), -1)
    np.testing.assert_array_equal(raster.triangle, nearest)


@given(seeds)
def test_pictures_do_not_depend_on_the_order_of_triangles(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mesh = random_mesh(rng)
    order = rng.permutation(len(mesh["triangles"]))
    raster = ops.rasterize(**mesh, height=SIDE, width=SIDE)
    other = ops.rasterize(mesh["vertices"], mesh["triangles"][order], SIDE, SIDE)
    np.testing.assert_array_equal(raster.depth, other.depth)
    alone = draw_alone(mesh)
    single = (alone == raster.depth).sum(axis=0) == 1  # else the order has to decide
    np.testing.assert_array_equal(raster.triangle[single], order[other.triangle[single]])


@given(seeds)
def test_buffers_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mesh = random_mesh(rng)
    attributes = rng.uniform(-1, 2, (30, 4)).astype(np.float32)
    background = rng.uniform(5, 9, (SIDE, SIDE + 3, 4)).astype(np.float32)
    raster = ops.rasterize(
        **mesh, height=SIDE, width=SIDE + 3, attributes=attributes, background=background
    )
    assert raster.image is not None
    dtypes = [a.dtype for a in (raster.depth, raster.triangle, raster.barycentric, raster.image)]
    assert dtypes == [np.float32, np.int32, np.float32, np.float32]

    drawn = raster.triangle >= 0
    np.testing.assert_array_equal(drawn, np.isfinite(raster.depth))
    assert np.all(raster.depth[~drawn] == -np.inf)
    assert np.all(raster.triangle[~drawn] == -1)
    assert np.all(raster.barycentric[~drawn] == 0)
    np.testing.assert_array_equal(raster.image[~drawn], background[~drawn])

    weights = raster.barycentric[drawn]
    assert weights.min(initial=0) >= 0
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    corners = mesh["triangles"][raster.triangle[drawn]]
    points = np.einsum("pc,pcx->px", weights, mesh["vertices"][corners])
    y, x = np.nonzero(drawn)
    np.testing.assert_allclose(points[:, :2], np.stack([x, y], axis=1), atol=1e-4)
    np.testing.assert_allclose(points[:, 2], raster.depth[drawn], atol=1e-4)
    colors = np.einsum("pc,pcx->px", weights, attributes[corners])
    np.testing.assert_allclose(raster.image[drawn], colors, atol=1e-5)

    without = ops.rasterize(**mesh, height=SIDE, width=SIDE + 3)
    assert without.image is None
    np.testing.assert_array_equal(without.depth, raster.depth)
    black = ops.rasterize(**mesh, height=SIDE, width=SIDE + 3, attributes=attributes).image
    assert black is not None
    assert np.all(black[~drawn] == 0)
    np.testing.assert_array_equal(black[drawn], raster.image[drawn])


@given(seeds)
def test_both_sides_are_drawn(seed: int) -> None:
    vertices = random_mesh(np.random.default_rng(seed), vertices=3)["vertices"]
    front, back = (ops.rasterize(vertices, [t], SIDE, SIDE) for t in ((0, 1, 2), (2, 1, 0)))
    np.testing.assert_array_equal(front.triangle, back.triangle)
    np.testing.assert_allclose(front.depth, back.depth, rtol=1e-6, atol=5e-5)
    np.testing.assert_allclose(front.barycentric, back.barycentric[:, :, ::-1], atol=2e-5)


@given(seeds, seeds)
def test_buffers_are_drawn_into_again(first: int, second: int) -> None:
    meshes = [random_mesh(np.random.default_rng(seed)) for seed in (first, second)]
    before, fresh = (ops.rasterize(**mesh, height=SIDE, width=SIDE) for mesh in meshes)
    again = ops.rasterize(**meshes[1], height=SIDE, width=SIDE, out=before)
    for field in ("depth", "triangle", "barycentric"):
        assert getattr(again, field) is getattr(before, field)
        np.testing.assert_array_equal(getattr(again, field), getattr(fresh, field))


def test_buffers_that_do_not_fit() -> None:
    mesh = random_mesh(np.random.default_rng(0))
    raster = ops.rasterize(**mesh, height=SIDE, width=SIDE)
    with pytest.raises(ValueError, match=r"out\.depth"):
        ops.rasterize(**mesh, height=SIDE, width=SIDE + 1, out=raster)
    with pytest.raises(ValueError, match="image"):
        ops.rasterize(
            mesh["vertices"], mesh["triangles"], SIDE, SIDE, attributes=mesh["vertices"], out=raster
        )
    raster.depth.flags.writeable = False
    with pytest.raises(ValueError, match=r"out\.depth"):
        ops.rasterize(**mesh, height=SIDE, width=SIDE, out=raster)


@given(seeds, st.integers(0, 30), st.integers(0, 30), st.integers(1, 40), st.integers(1, 40))
def test_a_clipped_picture_is_a_part_of_the_whole(
    seed: int, left: int, top: int, height: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    # Eighths of a pixel, so that shifting is exact.
    vertices = (rng.integers(-80, 640, (12, 3)) / 8).astype(np.float32)
    triangles = rng.integers(0, 12, (15, 3))
    attributes = rng.random((12, 3), np.float32)
    whole = ops.rasterize(vertices, triangles, 70, 70, attributes=attributes)
    shifted = vertices - np.array([left, top, 0], np.float32)
    part = ops.rasterize(shifted, triangles, height, width, attributes=attributes)
    window = np.s_[top : top + height, left : left + width]
    for expected, actual in zip(astuple(whole), astuple(part), strict=True):
        np.testing.assert_array_equal(actual, expected[window])


def test_triangles_without_area_are_skipped() -> None:
    vertices = [(0, 0, 1), (4, 4, 1), (8, 8, 1), (4, 4, 2)]
    flat_triangles = [(0, 0, 0), (0, 1, 1), (0, 1, 2), (1, 3, 2)]
    assert np.all(ops.rasterize(vertices, flat_triangles, 9, 9).triangle == -1)


def test_coordinates_far_outside() -> None:
    for size in (1e6, 1e12, 1e30, 3e38):
        vertices = [(-size, -size, 1), (size, -size, 1), (size, size, 1), (-size, size, 1)]
        raster = ops.rasterize(vertices, TWO_TRIANGLES, 9, 9)
        np.testing.assert_allclose(raster.depth, 1, rtol=2e-7)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            beyond = np.array(vertices) + (0, 3e38, 0)
            beyond[:, 1] = np.minimum(beyond[:, 1], 3e38)
            beyond[:2, 1] = 1000
            assert np.all(ops.rasterize(beyond, TWO_TRIANGLES, 9, 9).triangle == -1)


def test_offsets_whose_boxes_overflow_are_refused() -> None:
    with pytest.raises(ValueError, match="loc: expected finite"):
        ops.decode_boxes([[0, 0, 1e30, 0]], [[0.5, 0.5, 1, 1]])


def test_buffers_are_refused_before_they_are_made() -> None:
    with pytest.raises(ValueError, match="at most 1073741824 pixels in all, got 65535 x 20000"):
        ops.rasterize(np.zeros((3, 3), np.float32), [[0, 1, 2]], 65535, 20000)


def test_rows_of_text_have_a_number_for_each_conversion() -> None:
    assert _core.format_rows("%d %d\n", np.array([[1, -2]])) == b"1 -2\n"
    with pytest.raises(ValueError, match="a column for each of 1 conversions, got 3"):
        _core.format_rows("%d\n", np.zeros((2, 3), np.int32))
    with pytest.raises(TypeError, match="fit int64, got uint64"):
        _core.format_rows("%d\n", np.zeros((1, 1), np.uint64))


def test_grey_input_names_the_mean_that_was_given() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(ValueError, match="a mean below 1e33 in size, got 19999999"):
        _core.resize_normalize_grey(image, 2, 2, mean=2e33, scale=1.0)
