"""The steps of the detector's and the presence network's training, each once, on a few cartoons
drawn here."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from threedfa import FaceDetector, _core, ops
from threedfa.networks import open_network
from toy_pack import build_toy_pack
from training_steps import step, tool

pytest.importorskip("torch", reason="training needs torch: pip install 'threedfa[train]'")

PORTRAITS = 6
PHOTOGRAPHS = 8  # of each kind, the last two of them held out

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def tools() -> Any:
    """The steps' own modules, imported as they import each other."""
    return tuple(tool(name) for name in ("detector_data", "detector_network", "train_detector"))


def draw_face(image: Array, x: int, y: int, a: int, b: int) -> None:
    """An oval with dots."""
    cv2.ellipse(image, (x, y), (a, b), 0, 0, 360, (150, 180, 220), -1, cv2.LINE_AA)
    for dx in (-a // 2, a // 2):
        cv2.circle(image, (x + dx, y - b // 4), max(1, a // 8), (40, 40, 40), -1, cv2.LINE_AA)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out like the training material: faces on plain paper."""
    folder = tmp_path_factory.mktemp("material")
    rng = np.random.default_rng(1)
    angle = np.linspace(0, 2 * np.pi, 469)[:-1]
    ring = np.column_stack([np.cos(angle), np.sin(angle), 0 * angle])
    landmarks, yunet = [], []
    for i in range(PORTRAITS):
        image = np.full((260, 220, 3), rng.integers(120, 220, 3), np.uint8)
        (x, y), (a, b) = rng.integers(100, 120, 2).tolist(), rng.integers(40, 55, 2).tolist()
        draw_face(image, x, y, a, b)
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
    photographs(folder / "photos")
    return folder


def photographs(folder: Path) -> None:
    """Photographs with two faces each, one of them not sure, and without; their manifest and
    ``boxes.npz``."""
    rng = np.random.default_rng(2)
    rows, index, squares, sure = [], [], [], []
    for kind in ("people", "negatives"):
        (folder / kind).mkdir(parents=True)
        for i in range(PHOTOGRAPHS):
            image = np.full((120, 160, 3), rng.integers(0, 256, 3), np.uint8)
            cv2.rectangle(image, (10, 10), (40, 100), rng.integers(0, 256, 3).tolist(), -1)
            name = f"{kind}/{i}.png"
            if kind == "people":
                for x, known in ((50, True), (120, False)):
                    draw_face(image, x, 60, 14, 18)
                    index.append(len(rows))
                    squares.append((x, 62, 38))
                    sure.append(known)
            cv2.imwrite(str(folder / name), image)
            rows.append({"file": name, "heldout": int(i >= PHOTOGRAPHS - 2)})
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["file", "heldout"])
        writer.writeheader()
        writer.writerows(rows)
    np.savez(
        folder / "boxes.npz",
        names=np.array([row["file"] for row in rows]),
        image_index=np.array(index),
        squares=np.array(squares, np.float32),
        sure=np.array(sure),
    )


def sources(material: Path) -> tuple[object, ...]:
    photos = material / "photos"
    return "--material", material, "--photos", photos, "--boxes", photos / "boxes.npz"


def train(material: Path, cache: Path, steps: int, *more: object) -> str:
    return step(
        "train_detector.py", *sources(material), "--cache", cache, "--steps", steps,
        "--batch", 2, "--workers", 0, *more,
    )  # fmt: skip


def sampler(data: Any, material: Path, seed: int) -> Any:
    import torch

    photos = material / "photos"
    people, negatives = data.load_photographs(photos, photos / "boxes.npz", "train")
    portraits = data.load_portraits(material, "train")
    hardness = torch.full((len(negatives),), 0.5)
    return data.Sampler(people, negatives, portraits, np.random.default_rng(seed), hardness)


def test_portraits_on_which_detectors_disagree_are_left_out(tools: Any, material: Path) -> None:
    data, _, _ = tools
    assert len(data.load_portraits(material, "train")) == PORTRAITS - 3
    assert len(data.load_portraits(material, "heldout")) == 2


def test_photographs_are_divided_by_the_manifest(tools: Any, material: Path) -> None:
    data, _, _ = tools
    photos = material / "photos"
    for part, count in (("train", PHOTOGRAPHS - 2), ("heldout", 2)):
        people, negatives = data.load_all_photographs(
            [photos] * 2, [photos / "boxes.npz"] * 2, part
        )
        assert len(people) == len(negatives) == 2 * count
        assert all(scene.sure.tolist() == [True, False] for scene in people)
        assert all(len(scene.squares) == 0 for scene in negatives)


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
    first, again = (sampler(data, material, 4) for _ in range(2))
    faces = negatives = 0
    for i in range(60):
        height, width = ((160, 160), (128, 192))[i % 2]
        sample, same = first.sample(height, width), again.sample(height, width)
        assert sample.image.shape == (height, width, 3)
        assert sample.image.dtype == np.uint8
        assert (sample.image == same.image).all()
        assert sample.squares.shape == (len(sample.sure), 3)
        assert (sample.squares[sample.sure, 2] >= data.SMALLEST).all()
        if sample.negative >= 0:
            assert len(sample.squares) == 0
            negatives += 1
        faces += int(sample.sure.sum())
    assert faces > 20
    assert negatives > 5


def test_boxes_follow_their_faces(tools: Any, material: Path) -> None:
    """Wherever a photograph is put, a face's colour lies in the middle of its box."""
    data, _, _ = tools
    made = sampler(data, material, 5)
    seen = 0
    for _ in range(60):
        scene = made._people[int(made._rng.integers(len(made._people)))]
        image, squares, _ = made._place(scene, 160, 160)
        for x, y, side in squares:
            if side > 16 and 8 < x < 152 and 8 < y < 152:
                color = image[round(float(y)), round(float(x))].astype(int)
                assert np.abs(color - (150, 180, 220)).max() < 60
                seen += 1
    assert seen > 20


def test_damage_is_repeatable_and_leaves_its_input_alone(tools: Any) -> None:
    damages = tool("damage")
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    before = image.copy()
    different = 0
    for seed in range(60):
        one, limit = damages.damage(image, np.random.default_rng(seed), 1.0, 30.0)
        two, _ = damages.damage(image, np.random.default_rng(seed), 1.0, 30.0)
        assert one.shape == image.shape
        assert one.dtype == np.uint8
        assert (one == two).all()
        assert limit >= 0
        different += int((one != image).any())
    assert (image == before).all()
    assert different > 40


def test_what_covers_a_face_stays_near_it() -> None:
    damages = tool("damage")
    for seed in range(60):
        image = np.full((200, 240, 3), 128, np.uint8)
        rng = np.random.default_rng(seed)
        square = np.array([100, 90, 50], np.float32)
        damages.cover_face(image, square, 20.0, rng, lambda h, w: np.zeros((h, w, 3), np.uint8))
        rows, columns = np.nonzero((image != 128).any(-1))
        assert len(rows) > 0
        assert np.abs(columns - 100).max() <= 1.2 * 50
        assert np.abs(rows - 90).max() <= 1.2 * 50


def test_cells_answer_for_the_faces_on_them(tools: Any) -> None:
    import torch

    _, _, trainer = tools
    cells = trainer.Cells.of(192, 256)
    squares = torch.tensor([[60.0, 70, 30], [180, 100, 60], [60, 140, 12], [200, 30, 20]])
    sure = torch.tensor([True, True, True, False])
    offsets, logits = torch.zeros(len(cells.centers), 4), torch.zeros(len(cells.centers))
    where, faces, counts = trainer.assign(cells.boxes(offsets), logits, squares, sure, cells)
    assert set(faces.tolist()) == {0, 1, 2}
    apart = (cells.centers[where] - squares[faces, :2]).abs().amax(1)
    assert (apart < torch.maximum(squares[faces, 2] / 2, 2.5 * cells.strides[where, 0])).all()
    unsure = (cells.centers - squares[3, :2]).abs().amax(1) < 10
    assert not counts[unsure].any()
    far = (cells.centers[:, None] - squares[None, :, :2]).abs().amax(-1).amin(1) > 70
    assert counts[far].all()


def test_perfect_answers_have_the_least_loss(tools: Any) -> None:
    import torch

    _, _, trainer = tools
    cells = trainer.Cells.of(128, 128)
    square = torch.tensor([[60.0, 60, 32]])
    centers = (square[:, :2] - cells.centers) / cells.strides
    sizes = torch.log(square[:, 2:] / cells.strides).expand(-1, 2)
    offsets = torch.cat([centers, sizes], 1)[None]
    near = (cells.centers - 60).abs().amax(1) < 12
    right = torch.where(near, 8.0, -8.0)[None]
    batch = trainer.Batch(torch.zeros(1, 128, 128, 3), [square], [torch.tensor([True])], [-1])

    def loss(offsets: Any, logits: Any) -> float:
        return float(sum(trainer.detection_loss(offsets, logits, batch, cells)))

    best = loss(offsets, right)
    assert loss(offsets + 0.5, right) > best + 0.1
    assert loss(offsets, -right) > best + 1
    # What is not sure is neither a face nor background.
    batch = trainer.Batch(batch.images, [square], [torch.tensor([False])], [-1])
    inside = (cells.centers - 60).abs().amax(1) < 16
    everywhere = torch.where(inside, 8.0, -8.0)[None]
    nowhere = torch.full_like(everywhere, -8.0)
    assert loss(offsets, everywhere) == pytest.approx(loss(offsets, nowhere), abs=1e-3)


def test_network_has_a_row_for_each_prior_whose_box_the_library_decodes(tools: Any) -> None:
    import torch

    _, network, trainer = tools
    detector = network.Detector().eval()
    for height, width in ((64, 64), (128, 192)):
        with torch.no_grad():
            offsets, logits = detector(torch.zeros(2, 3, height, width))
        priors = ops.prior_boxes(height, width, network.PRIORS)
        assert offsets.shape == (2, len(priors), 4)
        assert logits.shape == (2, len(priors))
        some = np.random.default_rng(0).normal(0, 1, (len(priors), 4)).astype(np.float32)
        boxes = ops.decode_boxes(some, priors, network.VARIANCES) * (width, height, width, height)
        ours = trainer.Cells.of(height, width).boxes(torch.from_numpy(some))
        np.testing.assert_allclose(ours.numpy(), boxes, atol=2e-2, rtol=1e-4)


def test_network_sees_what_the_library_gives_it(tools: Any) -> None:
    import torch

    _, network, _ = tools
    image = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)
    ours = _core.resize_normalize(
        image, 9, 14, mean=[network.MEAN] * 3, scale=[network.SCALE] * 3, reverse_channels=True
    )
    theirs = network.normalize(torch.from_numpy(image[None, ..., ::-1].copy()))
    np.testing.assert_allclose(theirs.numpy(), ours, atol=1e-6)


def test_norms_set_by_measuring_change_nothing(tools: Any) -> None:
    """Neither the running statistics nor, in training, those of the batch."""
    import torch

    _, network, _ = tools
    torch.manual_seed(0)
    detector = network.Detector()
    images = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        features = detector.eval().features(images)[1]
        for module in detector.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.fill_(1 - module.eps)
        folded = detector.rows(features)
        network.measure_norms(detector.behind_front(), lambda: detector.rows(features))
        for ready in (detector.eval(), detector.train()):
            for ours, before in zip(ready.rows(features), folded, strict=True):
                torch.testing.assert_close(ours, before, atol=1e-3, rtol=1e-3)


def square_boxes(*squares: tuple[float, float, float]) -> Array:
    """Boxes x1 y1 x2 y2 of squares by centre and side."""
    x, y, side = np.array(squares, np.float32).T
    return np.stack([x - side / 2, y - side / 2, x + side / 2, y + side / 2], axis=1)


def test_faces_found_and_false_alarms_are_told_apart(tools: Any) -> None:
    data, _, trainer = tools
    squares = np.array([[50, 50, 20], [90, 50, 20], [130, 50, 20], [170, 50, 20]], np.float32)
    sure = np.array([True, True, False, True])
    scene = data.Scene((np.zeros((100, 200, 3), np.uint8),), squares, sure)
    boxes = square_boxes(
        (52, 49, 21),  # the first face
        (90, 50, 20),  # the second, with too low a score
        (129, 50, 20),  # one that is not asked for
        (170, 60, 20),  # the last, beside its place
        (50, 90, 20),  # nothing
        (90, 50, 4),  # a part of the second
    )
    scores = np.array([0.9, 0.2, 0.8, 0.9, 0.7, 0.6], np.float32)
    found = trainer.Found(boxes, scores, scene)
    hit, alarms = trainer.match(found, 0.5)
    assert hit.tolist() == [True, False, False]
    assert alarms == 1
    hit, alarms = trainer.match(found, 0.1)
    assert hit.tolist() == [True, True, False]
    hit, alarms = trainer.match(found, 0.95)
    assert hit.tolist() == [False] * 3
    assert alarms == 0
    assert "0.5: 0.3333 of 3;" in trainer.table([found])
    assert "1 on 1 others" in trainer.table([found])


def test_threshold_allows_the_chosen_number_of_false_alarms(tools: Any) -> None:
    data, _, trainer = tools
    none = np.zeros((0, 3), np.float32)
    empty = data.Scene((np.zeros((8, 8, 3), np.uint8),), none, np.zeros(0, bool))
    boxes = np.array([[0, 0, 5, 5]], np.float32)
    results = [
        trainer.Found(boxes, np.array([score], np.float32), empty) for score in (0.1, 0.5, 0.7, 0.9)
    ]
    assert trainer.choose_threshold(results, 0.25) == pytest.approx(0.7)
    assert trainer.choose_threshold(results, 0.5) == pytest.approx(0.5)
    assert trainer.choose_threshold(results, 1.0) == pytest.approx(0.3)


def test_training_goes_on_and_its_networks_make_a_pack(material: Path, tmp_path: Path) -> None:
    first = train(material, tmp_path, 3)
    second = train(material, tmp_path, 5)
    assert "step 3 of 3" in first
    assert "resuming at step 3 of 5" in second
    assert "step 5 of 5" in second
    assert "boxes at no face" in second
    assert "differs from torch" in step(
        "export_detector.py", "--cache", tmp_path, "--out", tmp_path
    )
    entry = json.loads((tmp_path / "detector.json").read_text())
    assert 0.3 <= entry["score_threshold"] <= 0.95

    networks = {"detector.onnx": (tmp_path / "detector.onnx").read_bytes()}
    pack = build_toy_pack(tmp_path / "pack", networks=networks, **entry)
    image = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)
    found = FaceDetector(pack, score_threshold=0.0).detect(image)
    assert len(found) > 0

    # A pack's detector can be trained further: it begins as what the pack holds.
    train(material, tmp_path / "further", 0, "--init", pack)
    step("export_detector.py", "--cache", tmp_path / "further", "--out", tmp_path / "further")
    pixels = np.random.default_rng(0).normal(0, 1, (1, 3, 64, 128)).astype(np.float32)
    before, after = (
        open_network(folder / "detector.onnx", num_threads=1).run(pixels)
        for folder in (tmp_path, tmp_path / "further")
    )
    for ours, theirs in zip(after, before, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="expected a network of export_detector"):
        train(material, tmp_path / "other", 1, "--init", build_toy_pack(tmp_path / "toy"))

    # The presence network learns from what the detector finds.
    cache = tmp_path / "presence"
    printed = step(
        "train_presence.py", *sources(material), "--detector", tmp_path / "detector.onnx",
        "--cache", cache, "--steps", 2, "--batch", 4, "--workers", 0,
    )  # fmt: skip
    assert "refused" in printed
    assert "MB, differs by" in step("export_presence.py", "--cache", cache, "--out", cache)
    presence = json.loads((cache / "presence.json").read_text())
    assert presence["input_size"] == 64


def test_calibrated_confidences_are_frequencies() -> None:
    import torch

    network = tool("presence_network")
    torch.manual_seed(0)
    truth = torch.rand(20000)
    faces = torch.rand(20000) < truth
    logits = 3 * torch.logit(truth.clamp(1e-4, 1 - 1e-4)) + 2  # three times too sure, and shifted
    gain, shift = network.calibrate(logits, faces, torch.ones(20000))
    assert gain == pytest.approx(1 / 3, rel=0.05)
    assert shift == pytest.approx(-2 / 3, abs=0.05)


def test_steps_say_so_where_there_is_nothing_to_work_on(tmp_path: Path) -> None:
    for script, arguments in {
        "train_detector.py": (*sources(tmp_path), "--cache", tmp_path),
        "export_detector.py": ("--cache", tmp_path, "--out", tmp_path),
        "export_presence.py": ("--cache", tmp_path, "--out", tmp_path),
    }.items():
        with pytest.raises(SystemExit, match=r"^no .*(give another --material|first)$"):
            step(script, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_sheet_of_samples(material: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    step("detector_data.py", *sources(material), "--out", out, "--size", 96, "--rows", 2)
    assert cv2.imread(str(out)).shape == (192, 192, 3)
