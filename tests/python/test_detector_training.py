"""The steps of the face detector's training, each once, on a few cartoons drawn here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from threedfa import FaceDetector, _core, ops
from toy_pack import build_toy_pack
from training_steps import step, tool

pytest.importorskip("torch", reason="training needs torch: pip install 'threedfa[train]'")

PORTRAITS = 6

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def tools() -> Any:
    """The steps' own modules, imported as they import each other."""
    return tuple(tool(name) for name in ("detector_data", "detector_network", "train_detector"))


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out like the training material: ovals with dots, on plain paper."""
    folder = tmp_path_factory.mktemp("material")
    rng = np.random.default_rng(1)
    angle = np.linspace(0, 2 * np.pi, 469)[:-1]
    ring = np.column_stack([np.cos(angle), np.sin(angle), 0 * angle])
    landmarks, yunet = [], []
    for i in range(PORTRAITS):
        image = np.full((260, 220, 3), rng.integers(120, 220, 3), np.uint8)
        (x, y), (a, b) = rng.integers(100, 120, 2).tolist(), rng.integers(40, 55, 2).tolist()
        cv2.ellipse(image, (x, y), (a, b), 0, 0, 360, (150, 180, 220), -1, cv2.LINE_AA)
        for dx in (-a // 2, a // 2):
            cv2.circle(image, (x + dx, y - b // 4), 6, (40, 40, 40), -1, cv2.LINE_AA)
        cv2.imwrite(str(folder / f"{i}.png"), image)
        landmarks.append(ring * [a, b, 1] + [x, y, 0])
        yunet.append([x - a, y - 1.2 * b, 2 * a, 2.1 * b, *[0] * 10])
    yunet[0][0] += 90  # the detectors disagree
    np.savez(
        folder / "labels.npz",
        image=np.array([f"{i}.png" for i in range(PORTRAITS)]),
        landmarks468=np.array(landmarks, np.float32),
        yunet=np.array(yunet, np.float32),
        faces_found=np.ones(PORTRAITS, int),
        keep=np.ones(PORTRAITS, bool),
        heldout=np.arange(PORTRAITS) >= PORTRAITS - 2,
    )
    w68 = np.zeros((68, 468))
    w68[np.arange(68), np.linspace(0, 467, 68).astype(int)] = 1
    np.savez(folder / "canonical_468_to_ict.npz", w68=w68)
    return folder


def train(material: Path, cache: Path, steps: int, *more: object) -> str:
    return step(
        "train_detector.py", "--material", material, "--cache", cache, "--steps", steps,
        "--batch", 2, "--workers", 0, "--validation", 6, *more,
    )  # fmt: skip


def test_portraits_on_which_detectors_disagree_are_left_out(tools: Any, material: Path) -> None:
    data, _, _ = tools
    assert len(data.load_portraits(material, "train")) == PORTRAITS - 3
    assert len(data.load_portraits(material, "heldout")) == 2


def test_box_and_landmarks_give_one_region(tools: Any) -> None:
    """However a face is turned: the promise that the regressor relies on."""
    data, _, _ = tools
    rng = np.random.default_rng(2)
    for _ in range(20):
        points = rng.uniform(0, 300, (68, 2)).astype(np.float32)
        x, y, side = data.box_square(points)
        low, high = points.min(0), points.max(0)
        assert (x, y) == pytest.approx((low + high) / 2, rel=1e-5)
        region = data.REGION_SCALE * (high - low).max()
        assert side * data.BOX_SCALE == pytest.approx(region, rel=1e-5)


def test_samples(tools: Any, material: Path) -> None:
    data, _, _ = tools
    portraits = data.load_portraits(material, "train")
    first, again = (data.Painter(portraits, np.random.default_rng(4)) for _ in range(2))
    faces = 0
    for i in range(30):
        height, width = ((160, 160), (120, 200))[i % 2]
        sample, same = (p.sample(height, width, faces=i % 5 > 0) for p in (first, again))
        assert sample.image.shape == (height, width, 3)
        assert sample.image.dtype == np.uint8
        assert (sample.image == same.image).all()
        assert sample.squares.shape == (len(sample.sure), 3)
        assert len(sample.squares) == 0 or i % 5 > 0
        assert (sample.squares[sample.sure, 2] >= data.SMALLEST).all()
        assert (np.abs(sample.turns) <= 48).all()
        faces += int(sample.sure.sum())
    assert faces > 20


def test_every_face_has_a_prior_that_decodes_to_it(tools: Any) -> None:
    data, network, trainer = tools
    rng = np.random.default_rng(6)
    for _ in range(30):
        height, width = (int(v) for v in rng.integers(100, 700, 2))
        priors = trainer.pixel_priors(height, width)
        side = np.exp(rng.uniform(np.log(10), np.log(90), 3))
        middle = np.array([[0.2, 0.2], [0.8, 0.3], [0.5, 0.8]]) * (width, height)
        squares = np.column_stack([middle, side]).astype(np.float32)
        sure = np.array([True, True, False])
        offsets, labels, weights = data.assign(priors, squares, sure)
        assert ((weights > 0) == (labels == 1)).all()
        scaled = offsets / np.repeat(np.array(network.VARIANCES, np.float32), 2)
        relative = ops.prior_boxes(height, width, network.PRIORS)
        boxes = ops.decode_boxes(scaled, relative, network.VARIANCES)
        boxes = boxes * np.array([width, height, width, height])
        found = np.zeros(3, bool)
        for box in boxes[labels == 1]:
            centers = (box[:2] + box[2:]) / 2
            nearest = int(np.abs(squares[:, :2] - centers).sum(1).argmin())
            x, y, size = squares[nearest]
            expected = [x - size / 2, y - size / 2, x + size / 2, y + size / 2]
            assert box == pytest.approx(expected, abs=0.02)
            found[nearest] = True
        assert found.tolist() == [True, True, False]
        close = np.abs(priors[:, :2] - squares[2, :2]).max(1) < 0.5 * squares[2, 2]
        alike = np.abs(np.log2(priors[:, 2] / squares[2, 2])) < 1
        assert (labels[close & alike] != 0).all()


def test_network_has_a_row_for_each_prior(tools: Any) -> None:
    import torch

    _, network, _ = tools
    detector = network.Detector().eval()
    for height, width in ((1, 1), (33, 64), (97, 131)):
        with torch.no_grad():
            offsets, logits = detector(torch.zeros(2, 1, height, width))
        count = len(ops.prior_boxes(height, width, network.PRIORS))
        assert offsets.shape == (2, count, 4)
        assert logits.shape == (2, count)


def test_network_sees_what_the_library_gives_it(tools: Any) -> None:
    import torch

    _, network, _ = tools
    picture = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)
    ours = _core.resize_normalize_grey(picture, 9, 14, mean=network.MEAN, scale=network.SCALE)
    theirs = network.normalize(torch.from_numpy(picture[None, ..., ::-1].copy()))
    np.testing.assert_allclose(theirs.numpy(), ours, atol=1e-6)


def test_channels_asleep_in_training_do_not_explode(tools: Any) -> None:
    import torch

    _, module, _ = tools
    torch.manual_seed(0)
    network = module.Detector().eval()
    picture = torch.randn(1, 1, 64, 96)
    with torch.no_grad():
        ordinary = network(picture)[0]
        module.tame(network)
        assert torch.equal(network(picture)[0], ordinary)
        for layer in list(network.levels[1])[2:]:
            norm = layer.identity or layer.norm
            norm.running_var[3] = 1e-40
        wild = network(picture)[0]
        module.tame(network)
        tamed = network(picture)[0]
    assert (tamed - ordinary).abs().max() < (wild - ordinary).abs().max() / 1000


def test_loss_counts_faces_missed_and_the_worst_false_alarms(tools: Any) -> None:
    import torch

    _, _, trainer = tools
    labels = torch.zeros(2, 30, dtype=torch.int8)
    labels[0, :4] = torch.tensor([1, 1, -1, -1])  # two priors with a face, two that do not count
    target = torch.zeros(2, 30, 4)
    target[0, 0] = torch.tensor([0.5, -0.5, 1.0, 2.0])
    weights = torch.zeros(2, 30)
    weights[0, :2] = torch.tensor([1.0, 3.0])
    batch = trainer.Batch(torch.zeros(2, 8, 8, 3), target, labels, weights)
    right = torch.where(labels == 1, 30.0, -30.0)

    def loss(logits: Any, offsets: Any = target) -> list[float]:
        return [float(value) for value in trainer.detection_loss(offsets, logits, batch)]

    def changed(values: Any, place: tuple[int, ...], value: float) -> Any:
        values = values.clone()
        values[place] = value
        return values

    assert loss(right) == pytest.approx([0, 0], abs=1e-6)
    # An error of 30 on one of two priors; their weights, 1 to 3, are 2 together.
    assert loss(changed(right, (0, 0), -30)) == pytest.approx([30 / 2 * 0.5, 0], abs=1e-4)
    assert loss(changed(right, (0, 1), -30)) == pytest.approx([30 / 2 * 1.5, 0], abs=1e-4)
    assert loss(changed(right, (1, 7), 30)) == pytest.approx([30 / 2, 0], abs=1e-4)
    assert loss(changed(right, (0, 3), 30)) == pytest.approx([0, 0], abs=1e-6)
    everywhere = right.clone()
    everywhere[labels == 0] = 30
    counted = max(2 * trainer.NEGATIVES_PER_POSITIVE, 8 * len(labels))
    assert counted < int((labels == 0).sum())
    assert loss(everywhere) == pytest.approx([30 / 2 * counted, 0], abs=1e-3)

    beside = torch.nn.functional.smooth_l1_loss(torch.tensor(2.0), torch.tensor(0.0), beta=0.5)
    moved = loss(right, changed(target, (0, 0, 2), 3.0))
    assert moved == pytest.approx([0, float(beside) / 2 * 0.5], abs=1e-4)
    assert loss(right, changed(target, (1, 7, 2), 3.0)) == pytest.approx([0, 0], abs=1e-6)


def square_boxes(*squares: tuple[float, float, float]) -> Array:
    """Boxes x1 y1 x2 y2 of squares by centre and side."""
    x, y, side = np.array(squares, np.float32).T
    return np.stack([x - side / 2, y - side / 2, x + side / 2, y + side / 2], axis=1)


def test_faces_found_and_false_alarms_are_told_apart(tools: Any) -> None:
    data, _, trainer = tools
    squares = np.array([[50, 50, 20], [90, 50, 20], [130, 50, 20], [170, 50, 20]], np.float32)
    sample = data.Sample(
        np.zeros((100, 200, 3), np.uint8), squares, squares[:, 0] * 0,
        np.array([True, True, False, True]),
    )  # fmt: skip
    boxes = square_boxes(
        (52, 49, 21),  # the first face
        (90, 50, 20),  # the second, with too low a score
        (129, 50, 20),  # one that is not asked for
        (170, 58, 20),  # the last, beside its place: IoU 3/7
        (50, 90, 20),  # nothing
        (90, 50, 4),  # a part of the second
    )
    scores = np.array([0.9, 0.2, 0.8, 0.9, 0.7, 0.6], np.float32)
    found = trainer.Found(boxes, scores, sample)
    hit, alarms = trainer.match(found, 0.5)
    assert hit.tolist() == [True, False, False]
    assert alarms == 1
    hit, alarms = trainer.match(found, 0.1)
    assert hit.tolist() == [True, True, False]
    assert alarms == 1
    hit, alarms = trainer.match(found, 0.95)
    assert hit.tolist() == [False] * 3
    assert alarms == 0
    table = trainer.table([found], 0.5)
    assert "recall 0.3333 of 3" in table
    assert "20-40: 0.333 (3)" in table
    assert "1.0000 with faces" in table


def test_threshold_allows_the_chosen_number_of_false_alarms(tools: Any) -> None:
    data, _, trainer = tools
    none = np.zeros((0, 3), np.float32)
    image = np.zeros((8, 8, 3), np.uint8)
    empty = data.Sample(image, none, none[:, 0], np.zeros(0, bool))
    boxes = np.array([[0, 0, 5, 5]], np.float32)
    results = [
        trainer.Found(boxes, np.array([score], np.float32), empty) for score in (0.1, 0.5, 0.7, 0.9)
    ]
    assert trainer.choose_threshold(results, 0.25) == pytest.approx(0.7)
    assert trainer.choose_threshold(results, 0.5) == pytest.approx(0.5)
    assert trainer.choose_threshold(results, 1.0) == pytest.approx(0.3)


def test_training_goes_on_and_its_network_makes_a_pack(material: Path, tmp_path: Path) -> None:
    first = train(material, tmp_path, 3)
    second = train(material, tmp_path, 5)
    assert "step 3 of 3" in first
    assert "resuming at step 3 of 5" in second
    assert "step 5 of 5" in second
    assert "by rotation" in second
    assert "differs from torch" in step(
        "export_detector.py", "--cache", tmp_path, "--out", tmp_path
    )
    entry = json.loads((tmp_path / "detector.json").read_text())
    assert 0.3 <= entry["score_threshold"] <= 0.95

    networks = {"detector.onnx": (tmp_path / "detector.onnx").read_bytes()}
    pack = build_toy_pack(tmp_path / "pack", networks=networks, **entry)
    toy = build_toy_pack(tmp_path / "toy")
    printed = step(
        "evaluate_detector.py", "--pack", pack, "--against", toy, "--material", material,
        "--photographs", tmp_path, "--pictures", 3, "--repeats", 1,
    )  # fmt: skip
    assert "recall left out" in printed
    assert "false alarms per 1,000" in printed
    assert "time against the other" in printed

    picture = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)
    found = FaceDetector(pack, score_threshold=0.0).detect(picture)
    assert len(found) > 0

    # A pack's detector can be trained further: it begins as what the pack holds.
    train(material, tmp_path / "further", 0, "--init", pack)
    step("export_detector.py", "--cache", tmp_path / "further", "--out", tmp_path / "further")
    networks = {"detector.onnx": (tmp_path / "further" / "detector.onnx").read_bytes()}
    again = build_toy_pack(tmp_path / "again", networks=networks, **entry)
    same = FaceDetector(again, score_threshold=0.0).detect(picture)
    np.testing.assert_allclose(same.xyxy, found.xyxy, rtol=1e-3, atol=1e-2)
    assert "step 1 of 1" in train(material, tmp_path / "further", 1, "--init", pack)
    with pytest.raises(ValueError, match="expected a network of export_detector"):
        train(material, tmp_path / "other", 1, "--init", toy)


def test_steps_say_so_where_there_is_nothing_to_work_on(tmp_path: Path) -> None:
    for script, arguments in {
        "detector_data.py": ("--material", tmp_path, "--out", tmp_path / "a.png"),
        "train_detector.py": ("--material", tmp_path, "--cache", tmp_path),
        "export_detector.py": ("--cache", tmp_path, "--out", tmp_path),
    }.items():
        with pytest.raises(SystemExit, match=r"^no .*(give another --material|first)$"):
            step(script, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_sheet_of_samples(material: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    step("detector_data.py", "--material", material, "--out", out, "--size", 96, "--rows", 2)
    assert cv2.imread(str(out)).shape == (192, 192, 3)
