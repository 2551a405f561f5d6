"""From image to faces in one call, for one image, many, and from many threads."""

from __future__ import annotations

import io
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from threedfa import Analysis, Face, FaceAligner, FaceAnalyzer, FaceDetector, RefusedFace
from threedfa.errors import BackendError, ImageError
from toy_pack import build_toy_pack

Picture = npt.NDArray[np.uint8]

THREADS = 8


@pytest.fixture(scope="module")
def analyzer(toy_pack: Path) -> FaceAnalyzer:
    return FaceAnalyzer(toy_pack)


def picture(count: int, *, seed: int = 0, size: tuple[int, int] = (192, 256)) -> Picture:
    """As many red cells of 32 x 32, one in each block of 64 x 64, each with a green and blue of its
    own."""
    rng = np.random.default_rng([seed, count])
    image = np.zeros((*size, 3), np.uint8)
    columns = size[1] // 64
    assert count <= columns * (size[0] // 64)
    for block in range(count):
        top, left = 64 * (block // columns) + 32 * (block % 2), 64 * (block % columns)
        image[top : top + 32, left : left + 32, 0] = rng.integers(180, 256)
        image[top : top + 32, left : left + 32, 1:] = rng.integers(0, 256, 2)
    return image


def assert_same(faces: Sequence[Face], others: Sequence[Face], *, exactly: bool = True) -> None:
    assert len(faces) == len(others)
    # A matrix product may add up in another order for another number of faces.
    tolerance = {} if exactly else {"rtol": 1e-5, "atol": 1e-3}
    for face, other in zip(faces, others, strict=True):
        np.testing.assert_array_equal(face.bbox, other.bbox)
        np.testing.assert_array_equal(face.roi, other.roi)
        assert face.score == other.score
        for name in ("params", "landmarks", "vertices"):
            compare = np.testing.assert_array_equal if exactly else np.testing.assert_allclose
            compare(getattr(face, name), getattr(other, name), **tolerance)


def test_analyze_is_detect_and_align(analyzer: FaceAnalyzer, toy_pack: Path) -> None:
    image = picture(5)
    faces = analyzer.analyze(image)
    found = FaceDetector(toy_pack).detect(image)
    assert len(faces) == len(found) == 5
    assert [face.score for face in faces] == sorted(found.confidence.tolist(), reverse=True)
    assert_same(faces, FaceAligner(toy_pack).align(image, found))
    # Each face has the colours of its own square, which is 4 / 9 of its region.
    for face in faces:
        left, top = face.bbox[:2].round().astype(int)
        np.testing.assert_allclose(
            face.shape_coeffs[:3], image[top + 8, left + 8] / 255 * 4 / 9, atol=0.01
        )


def test_parts(analyzer: FaceAnalyzer) -> None:
    assert isinstance(analyzer.detector, FaceDetector)
    assert isinstance(analyzer.aligner, FaceAligner)
    assert analyzer.model is analyzer.aligner.model
    assert_same(analyzer(picture(3)), analyzer.analyze(picture(3)))


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 100000), (100000, 1), (64, 64)])
def test_no_face(analyzer: FaceAnalyzer, size: tuple[int, int]) -> None:
    assert analyzer.analyze(np.zeros((*size, 3), np.uint8)) == []


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 100000), (100000, 1), (3, 900)])
def test_faces_that_are_hardly_there(toy_pack: Path, size: tuple[int, int]) -> None:
    """Whatever is reported can be aligned."""
    faces = FaceAnalyzer(toy_pack, score_threshold=0).analyze(np.zeros((*size, 3), np.uint8))
    assert faces
    assert all(np.isfinite(face.vertices).all() for face in faces)


@pytest.mark.parametrize(
    ("loc", "why"),
    [
        ((0, 18, -6, 6), "a sliver at the lower border, whose square lies below it"),
        ((0, 0, -30, -30), "a speck, too small for a region of a pixel"),
        ((0, 0, -600, -600), "no width or height at all"),
        ((0, 0, 70, 70), "millions of pixels, of which no crop can be made"),
    ],
)
def test_what_cannot_be_aligned_is_left_out(
    tmp_path: Path, loc: tuple[float, ...], why: str
) -> None:
    analyzer = FaceAnalyzer(build_toy_pack(tmp_path / "pack", loc=loc))
    image = np.zeros((192, 256, 3), np.uint8)
    image[160:, :32] = 255
    assert len(analyzer.detector.detect(image)) == 1, why
    assert analyzer.analyze(image) == []
    with pytest.raises(ValueError, match="expected"):  # who asks for that very box is told
        analyzer.aligner.align(image, analyzer.detector.detect(image))


def test_any_kind_of_image(analyzer: FaceAnalyzer, tmp_path: Path) -> None:
    image = picture(4)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    path = tmp_path / "four.png"
    path.write_bytes(stream.getvalue())
    expected = analyzer.analyze(image)
    sources: list[tuple[Any, Any]] = [
        (path, "rgb"),
        (str(path), "bgr"),
        (stream.getvalue(), "bgr"),
        (Image.fromarray(image), "rgb"),
        (image[:, :, ::-1], "bgr"),
        (np.asfortranarray(image), "rgb"),
    ]
    for source, color in sources:
        assert_same(analyzer.analyze(source, color=color), expected)
        assert_same(analyzer.analyze_batch([source], color=color)[0], expected)


def test_batches(analyzer: FaceAnalyzer) -> None:
    """Of all sizes, faces in some: 75 in all, which takes two runs of the regressor."""
    images = [
        picture(5),
        np.zeros((20, 30, 3), np.uint8),
        picture(48, size=(384, 512), seed=1)[:, :, ::-1].copy()[:, :, ::-1],
        picture(0),
        picture(12, seed=2),
        picture(10, size=(192, 512), seed=3),
    ]
    results = analyzer.analyze_batch(images)
    singles = [analyzer.analyze(image) for image in images]
    assert [len(faces) for faces in results] == [len(faces) for faces in singles]
    for faces, single in zip(results, singles, strict=True):
        assert_same(faces, single, exactly=False)


@pytest.mark.parametrize("count", [64, 65, 130])
def test_any_number_of_faces(analyzer: FaceAnalyzer, count: int) -> None:
    images = [picture(1, seed=seed) for seed in range(count)]
    results = analyzer.analyze_batch(images)
    assert [len(faces) for faces in results] == [1] * count
    for seed in (0, 1, 63, count - 1):
        assert_same(results[seed], analyzer.analyze(images[seed]), exactly=False)


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_images_of_an_iterator_are_not_kept(toy_pack: Path, num_threads: int) -> None:
    drawn: list[weakref.ref[Picture]] = []
    most = 0

    def images() -> Iterator[Picture]:
        nonlocal most
        for seed in range(60):
            image = picture(1, seed=seed)
            drawn.append(weakref.ref(image))
            yield image
            del image
            most = max(most, sum(ref() is not None for ref in drawn))

    analyzer = FaceAnalyzer(toy_pack, num_threads=num_threads)
    results = analyzer.analyze_batch(images())
    assert [len(faces) for faces in results] == [1] * 60
    assert 1 <= most <= 12 * num_threads
    for seed in (0, 1, 31, 59):
        assert_same(results[seed], analyzer.analyze(picture(1, seed=seed)), exactly=False)


def test_batches_without_faces(analyzer: FaceAnalyzer) -> None:
    dark = np.zeros((64, 64, 3), np.uint8)
    assert analyzer.analyze_batch([]) == []
    assert analyzer.analyze_batch(iter([])) == []
    assert analyzer.analyze_batch([dark]) == [[]]
    assert analyzer.analyze_batch(image for image in (dark, dark)) == [[], []]


@pytest.mark.parametrize(
    "one",
    [np.zeros((8, 9, 3), np.uint8), np.zeros((8, 9), np.uint8), "a.png", b"bytes", Path("a.png"),
     Image.new("RGB", (4, 4))],
    ids=["array", "grey", "text", "bytes", "path", "pil"],
)  # fmt: skip
def test_one_image_is_no_batch(analyzer: FaceAnalyzer, one: Any) -> None:
    with pytest.raises(TypeError, match="expected several images, got one"):
        analyzer.analyze_batch(one)


def test_an_array_of_images_is_a_batch(analyzer: FaceAnalyzer) -> None:
    assert analyzer.analyze_batch(np.zeros((2, 64, 64, 3), np.uint8)) == [[], []]


def test_a_bad_image_in_a_batch(analyzer: FaceAnalyzer) -> None:
    with pytest.raises(ImageError, match="dtype uint8, got float64"):
        analyzer.analyze_batch([picture(1), np.zeros((4, 4, 3))])


def test_settings_reach_both_parts(toy_pack: Path) -> None:
    image = picture(6)
    assert len(FaceAnalyzer(toy_pack, max_faces=2).analyze(image)) == 2
    assert FaceAnalyzer(toy_pack, score_threshold=1).analyze(image) == []
    assert len(FaceAnalyzer(toy_pack, iou_threshold=0).analyze(image)) == 1
    assert len(FaceAnalyzer(toy_pack, num_threads=1).analyze(image)) == 6
    for wrong in ({"max_faces": 0}, {"score_threshold": 2}, {"iou_threshold": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            FaceAnalyzer(toy_pack, **wrong)
    with pytest.raises(BackendError, match=r"CPUExecutionProvider.*got NoSuchProvider"):
        FaceAnalyzer(toy_pack, providers=["NoSuchProvider"])


def test_the_image_is_left_as_it_was(analyzer: FaceAnalyzer) -> None:
    image = picture(5)
    copy = image.copy()
    faces = analyzer.analyze(image)
    analyzer.analyze_batch([image, image], color="bgr")
    np.testing.assert_array_equal(image, copy)
    assert image.flags.writeable
    image[:] = 0  # faces keep nothing of it
    assert_same(faces, analyzer.analyze(copy))


# --- threads --------------------------------------------------------------------------------------


def run_in_threads(analyzers: Sequence[FaceAnalyzer], images: Sequence[Picture]) -> list[Any]:
    """Each thread analyzes all images, beginning with another one, all at the same moment."""
    barrier = Barrier(THREADS)

    def work(thread: int) -> list[list[Face]]:
        barrier.wait(timeout=60)
        analyzer = analyzers[thread % len(analyzers)]
        results: list[list[Face]] = [[] for _ in images]
        for step in range(len(images)):
            index = (thread + step) % len(images)
            results[index] = analyzer.analyze(images[index])
        return results

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, range(THREADS)))


@pytest.mark.parametrize("count", [1, 2], ids=["one shared analyzer", "two analyzers"])
@pytest.mark.parametrize("pack", ["toy_pack", "synthetic_pack"])
def test_threads_give_what_one_thread_gives(
    pack: str, count: int, request: pytest.FixtureRequest
) -> None:
    """To the last bit; with networks of the published architectures too."""
    folder = request.getfixturevalue(pack)
    # Networks of random weights see faces everywhere.
    settings: Any = {"max_faces": 3} if pack == "synthetic_pack" else {}
    images = [picture(n, seed=n, size=(128 + n, 160 + 3 * n)) for n in range(4)] + [picture(9)]
    serial = FaceAnalyzer(folder, **settings)
    expected = [serial.analyze(image) for image in images]
    assert sum(map(len, expected)) >= 5
    analyzers = [FaceAnalyzer(folder, **settings) for _ in range(count)]
    for results in run_in_threads(analyzers, images):
        for faces, others in zip(results, expected, strict=True):
            assert_same(faces, others)


@pytest.mark.parametrize("threads", [1, 3])
def test_map_gives_results_in_order_and_takes_items_as_needed(toy_pack: Path, threads: int) -> None:
    analyzer = FaceAnalyzer(toy_pack, num_threads=threads)
    images = [picture(n, seed=n) for n in range(9)]
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for n in range(9):
            taken += 1
            yield n

    def work(own: FaceAnalyzer, n: int) -> tuple[int, list[Face]]:
        return n, own.analyze(images[n])

    results = analyzer.map(work, items())
    assert next(results)[0] == 0
    assert taken <= 3 * threads
    rest = list(results)
    assert [n for n, _ in rest] == list(range(1, 9))
    for n, faces in rest:
        assert_same(faces, analyzer.analyze(images[n]))


def test_map_leaves_what_is_not_begun_when_something_fails(
    toy_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, *arguments: Any, **options: Any) -> None:
            super().shutdown(wait=False, **options)
            over.set()
            super().shutdown(*arguments, **options)

    monkeypatch.setattr("threedfa.analyzer.ThreadPoolExecutor", Pool)
    begun: list[int] = []

    def work(_: FaceAnalyzer, n: int) -> None:
        begun.append(n)
        if n == 0:
            raise ValueError("the first one")
        assert over.wait(timeout=60)

    with pytest.raises(ValueError, match="the first one"):
        list(FaceAnalyzer(toy_pack, num_threads=2).map(work, range(100)))
    assert sorted(begun) in ([0, 1], [0, 1, 2])  # of five that were to be done


@pytest.mark.parametrize("threads", [1, 3])
def test_map_gives_what_came_before_items_that_fail(toy_pack: Path, threads: int) -> None:
    def items() -> Iterator[int]:
        yield from range(4)
        raise KeyError("no more")

    analyzer = FaceAnalyzer(toy_pack, num_threads=threads)
    found = []
    with pytest.raises(KeyError, match="no more"):
        for result in analyzer.map(lambda _, n: n, items()):
            found.append(result)
    assert found == [0, 1, 2, 3]
    with pytest.raises(TypeError):
        analyzer.map(lambda _, n: n, 5)  # type: ignore[arg-type, misc]


def test_map_gives_a_single_item_all_threads(toy_pack: Path) -> None:
    analyzer = FaceAnalyzer(toy_pack, num_threads=2)
    used: list[FaceAnalyzer] = []
    for items in ([1], [1, 2]):
        list(analyzer.map(lambda own, _: used.append(own), items))
    assert used[0] is analyzer
    assert used[1] is used[2] is not analyzer
    assert used[1].detector.score_threshold == analyzer.detector.score_threshold


# --- refusal and turned faces ---------------------------------------------------------------------


def test_what_was_refused(tmp_path: Path) -> None:
    pack = build_toy_pack(tmp_path / "pack", presence={})  # a region is a face as far as it is red
    image = picture(4)
    everything = FaceAnalyzer(pack, confidence_threshold=0).analyze(image)
    sure = sorted(face.confidence or 0 for face in everything)
    assert len(sure) == 4
    threshold = (sure[1] + sure[2]) / 2
    analyzer = FaceAnalyzer(pack, confidence_threshold=threshold)
    found = analyzer.analyze(image, return_refused=True)
    assert isinstance(found, Analysis)
    faces, refused = found
    assert_same(faces, analyzer.analyze(image))
    assert [len(faces), len(refused)] == [2, 2]
    assert all(isinstance(each, RefusedFace) for each in refused)
    assert all(each.confidence < threshold for each in refused)
    by_score = sorted([*faces, *refused], key=lambda each: -each.score)
    np.testing.assert_array_equal(
        [each.bbox for each in by_score], [face.bbox for face in everything]
    )
    batch = analyzer.analyze_batch([image, 0 * image, image], return_refused=True)
    assert [(len(each.faces), len(each.refused)) for each in batch] == [(2, 2), (0, 0), (2, 2)]


def test_turned_faces_are_found_where_nothing_upright_is_a_face(tmp_path: Path) -> None:
    """The toy's boxes lie one side below its cells, so that upright the region is dark: no face.
    Turned by half, it is where the light is."""
    image = np.zeros((192, 192, 3), np.uint8)
    image[64:96, 96:128, 0] = 255
    image[0:64, 64:160, 0] = 110  # too dark for the detector, but not for the other network
    pack = build_toy_pack(
        tmp_path / "pack", presence={"confidence_threshold": 0.3}, loc=(0, 10, 0, 0)
    )
    assert FaceAnalyzer(pack).analyze(image) == []
    analyzer = FaceAnalyzer(pack, orientations="any")
    (face,), refused = analyzer.analyze(image, return_refused=True)
    np.testing.assert_allclose(face.bbox, [96, 32, 128, 64], atol=1e-3)
    assert len(refused) >= 1 and refused[0].bbox[1] == pytest.approx(96, abs=1e-3)
    assert abs(face.pose.roll) == pytest.approx(180, abs=1e-3)
    (again,) = analyzer.analyze_batch([image])[0]
    assert_same([again], [face])
