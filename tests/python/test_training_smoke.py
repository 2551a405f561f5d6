"""Every step of the regressor's training, once, on a handful of pictures drawn here.

The portraits are the default face model in plain colours, so the teacher's points are exact.
What is tested: each step runs and takes up the files of the one before, labels come back as they
were drawn, an interrupted training goes on, and the exported network fits the face model.
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from threedfa import Pack, ops
from toy_pack import build_toy_pack
from training_steps import MODEL, step, tool, write_canonical

torch = pytest.importorskip("torch", reason="training needs torch: pip install 'threedfa[train]'")

SIDE = 220  # pixels of a portrait
PORTRAITS = 8

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def tools(face_model: Any) -> Any:
    """The face model and two of the training steps' own modules."""
    return face_model, tool("face"), tool("renders")


@pytest.fixture(scope="module")
def material(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Array]:
    """A folder laid out like the training material; the cameras its portraits were drawn with."""
    model, _, renders = tools
    folder = tmp_path_factory.mktemp("material")
    rng = np.random.default_rng(5)
    points468, cameras = [], []
    low, high = model.mean.min(0), model.mean.max(0)
    colors = 60 + 160 * (model.mean - low) / (high - low)
    for i in range(PORTRAITS):
        coefficients = np.zeros(model.shape_count + model.expression_count, np.float32)
        coefficients[:10] = rng.normal(0, 0.7, 10)
        coefficients[model.shape_count + model.expression_index("jawOpen")] = i / PORTRAITS
        camera = np.zeros((3, 4), np.float32)
        yaw, pitch, roll = rng.uniform(-0.4, 0.4, 3)
        camera[:, :3] = 6 * renders.rotation(yaw, pitch, roll) * [[1], [-1], [1]]
        camera[:2, 3] = SIDE / 2
        vertices = model.vertices(coefficients)
        drawn = ops.rasterize(
            vertices @ camera[:, :3].T + camera[:, 3],
            model.triangles,
            SIDE,
            SIDE,
            attributes=colors,
            background=np.full((SIDE, SIDE, 3), 90.0),
        )
        assert drawn.image is not None
        cv2.imwrite(str(folder / f"{i}.png"), drawn.image.astype(np.uint8))
        surface = model.points468.of(vertices) @ camera[:, :3].T + camera[:, 3]
        points468.append(surface * [1, 1, -1])  # the teacher's z falls towards the viewer
        cameras.append(camera)
    np.savez(
        folder / "labels.npz",
        image=np.array([f"{i}.png" for i in range(PORTRAITS)]),
        landmarks468=np.array(points468, np.float32),
        keep=np.ones(PORTRAITS, bool),
        heldout=np.arange(PORTRAITS) >= PORTRAITS - 2,
    )
    write_canonical(folder, model)
    return folder, np.array(cameras)


@pytest.fixture(scope="module")
def labels(material: tuple[Path, Array]) -> Path:
    folder, _ = material
    out = folder / "cache" / "portraits.npz"
    step("labels.py", "--material", folder, "--model", MODEL, "--out", out)
    return out


@pytest.fixture(scope="module")
def renders(material: tuple[Path, Array], labels: Path) -> Path:
    folder, _ = material
    out = folder / "cache" / "renders"
    step(
        "renders.py", "--material", folder, "--model", MODEL, "--labels", labels, "--out", out,
        "--count", 16, "--heldout", 16, "--shard-size", 16, "--workers", 1,
    )  # fmt: skip
    return out


def train(
    material: Path, labels: Path, renders: Path, out: Path, images: int, *more: object
) -> str:
    return step(
        "train_regressor.py", "--material", material, "--model", MODEL, "--labels", labels,
        "--renders", renders, "--out", out, "--images", images, "--batch", 8, "--workers", 0,
        "--threads", 1, "--log-every", 1, "--probes", 16, *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(
    material: tuple[Path, Array], labels: Path, renders: Path, tmp_path_factory: Any
) -> tuple[Path, str, str]:
    """Folder of checkpoints and what two runs printed, the second going on from the first."""
    out = tmp_path_factory.mktemp("regressor")
    first = train(material[0], labels, renders, out, 16, "--width", 0.125)
    second = train(material[0], labels, renders, out, 32, "--width", 0.125)
    return out, first, second


def test_labels_are_the_cameras_the_portraits_were_drawn_with(
    material: tuple[Path, Array], labels: Path
) -> None:
    _, cameras = material
    table = np.load(labels)
    assert table["train"].sum() == PORTRAITS - 2
    assert table["heldout"].sum() == 2
    assert table["residual_cm"].max() < 0.05
    found, drawn = (c.reshape(-1, 3, 4)[:, :, :3] for c in (table["params"][:, :12], cameras))
    found, drawn = (c / np.linalg.norm(c, axis=2, keepdims=True) for c in (found, drawn))
    assert np.abs(found - drawn).max() < 0.1  # the size of the head is not known, its pose is


def test_renders_have_exact_labels(renders: Path, tools: Any) -> None:
    model, _, module = tools
    images = np.load(renders / "train_000_images.npy")
    params = np.load(renders / "train_000_params.npy")
    assert images.shape == (16, module.CROP, module.CROP, 3)
    assert images.dtype == np.uint8
    assert params.shape == (16, model.param_count)
    assert images.std(axis=(1, 2, 3)).min() > 5  # something is drawn
    for row in params:
        camera = row[:12].reshape(3, 4)
        points = model.points68.of(model.vertices(row[12:]))
        side, middle = module.region_side(camera, points)
        assert side == pytest.approx(module.REGION, rel=1e-4)
        assert middle == pytest.approx([(module.CROP - 1) / 2] * 2, abs=0.01)


def frontal(model: Any) -> tuple[Array, Array, Array]:
    """A black portrait, the mean face's parameters in its middle, and its 468 points."""
    params = np.zeros(model.param_count, np.float32)
    camera = params[:12].reshape(3, 4)  # a view
    camera[:, :3] = 6 * np.diag([1, -1, 1])
    camera[:2, 3] = SIDE / 2
    points = model.points468.of(model.mean) @ camera[:, :3].T + camera[:, 3]
    return np.zeros((SIDE, SIDE, 3), np.uint8), params, points[:, :2]


def test_texture_lies_where_the_teacher_sees_it(tools: Any) -> None:
    model, _, module = tools
    parts = module.Topology.of(model)
    portrait, params, fitted = frontal(model)
    rng = np.random.default_rng(1)

    def places(points: Array) -> Array:
        found: Array = module.Head(model, parts, portrait, params, points, rng).places
        return found

    missed = (2 * np.sin(fitted / 8)).astype(np.float32)
    moved = places(fitted + missed) - places(fitted)
    seen = model.points468.of(np.pad(moved, ((0, 0), (0, 1))))[:, :2]
    assert np.median(np.linalg.norm(seen - missed, axis=1)) < 0.3
    apart = np.linalg.norm(model.mean[:, None] - model.points468.of(model.mean), axis=2).min(1)
    far = apart > 2 * module.NEAR_CM
    assert far.any()
    assert np.abs(moved[far]).max() == 0


def test_closing_lids_show_the_skin_below_the_eyes(tools: Any) -> None:
    model, _, module = tools
    portrait, params, points = frontal(model)
    colors = {"above": (10, 20, 200), "eyes": (200, 0, 0), "below": (20, 180, 90)}
    middle = points[list(module.OUTLINES[0])].mean(0)[1]
    portrait[:] = colors["below"]
    portrait[: int(middle)] = colors["above"]
    for outline in module.OUTLINES:
        cv2.fillPoly(portrait, [np.rint(points[list(outline)]).astype(np.int32)], colors["eyes"])
    skin = module.without_eyes(portrait, points)
    for outline in module.OUTLINES:
        x, y = np.rint(points[list(outline)].mean(0)).astype(int)
        assert np.abs(skin[y, x].astype(int) - colors["below"]).max() < 12
    assert (skin[:10] == portrait[:10]).all()
    assert (skin[-10:] == portrait[-10:]).all()

    rng = np.random.default_rng(1)
    head = module.Head(model, module.Topology.of(model), portrait, params, points, rng)
    behind = np.zeros((module.CROP, module.CROP, 3), np.uint8)
    shown = {}
    for blink in (0.0, 1.0):
        coefficients = head.coefficients.copy()
        for side in ("Left", "Right"):
            coefficients[model.shape_count + model.expression_index(f"eyeBlink{side}")] = blink
        image, _ = head.render(coefficients, head.turn, np.zeros(3, np.float32), behind, rng)
        shown[blink] = int((image[..., 0].astype(int) - image[..., 1] > 100).sum())
    assert shown[0.0] > 100  # pixels of the eyes' colour
    assert shown[1.0] < shown[0.0] / 20


def test_a_donor_shows_in_its_part_with_the_others_colours(tools: Any) -> None:
    model, _, module = tools
    topology = module.Topology.of(model)
    rng = np.random.default_rng(2)
    grey, params, points = frontal(model)
    grey[:] = 120
    halves = grey.copy()  # of which the face's middle line is the border
    halves[:, : SIDE // 2], halves[:, SIDE // 2 :] = 20, 180
    head, other = (module.Head(model, topology, p, params, points, rng) for p in (grey, halves))
    marks = model.points68.of(model.mean)
    at_mark = np.linalg.norm(model.mean[:, None] - marks, axis=2).argmin(0)
    seen = set()
    for covered in (True, False) * 20:
        donor = module.Donor.draw(head, other, covered, rng)
        assert donor.weight.min() == 0
        assert donor.weight.max() == 1
        eyes, mouth = (donor.weight[at_mark[part]].min() > 0.9 for part in ([37, 46], [48, 54]))
        assert mouth or not covered
        seen.add((covered, bool(eyes), bool(mouth)))
    assert seen == {(True, False, True), *((False, e, m) for e, m in ((0, 1), (1, 0), (1, 1)))}

    donor = module.Donor.draw(head, other, True, rng)
    image, camera = head.render(
        head.coefficients, head.turn, np.zeros(3, np.float32), np.zeros_like(grey), rng, donor
    )
    flat = marks @ camera[:2, :3].T + camera[:2, 3]
    x, y = np.rint(flat[[48, 54, 17, 26]]).astype(int).T
    shown = image[y, x].mean(1)
    half = 80 / tool("donor").MOST_GAIN
    assert shown == pytest.approx([120 - half, 120 + half, 120, 120], abs=12)


def test_eyes_too_narrow_to_show_an_iris_stay(tools: Any) -> None:
    model, _, module = tools
    portrait, params, points = frontal(model)
    blinks = [model.shape_count + model.expression_index(f"eyeBlink{s}") for s in ("Left", "Right")]
    for narrowed, stay, shut in ((1.0, False, False), (0.45, True, False), (0.2, True, True)):
        moved = points.copy()
        for outline in module.OUTLINES:
            ring = list(outline)
            moved[ring, 1] = moved[ring, 1].mean() + narrowed * (
                moved[ring, 1] - moved[ring, 1].mean()
            )
        rng = np.random.default_rng(1)
        head = module.Head(model, module.Topology.of(model), portrait, params, moved, rng)
        assert head.eyes_stay == stay
        assert (head.coefficients[blinks] == 1).all() == shut


def test_covered_eyes_stay_as_they_are(tools: Any) -> None:
    model, _, module = tools
    director = module.Director(model, np.zeros((3, model.shape_count + model.expression_count)))
    own = np.full(model.expression_count, 0.25, np.float32)
    eyes = np.array([name.startswith("eye") for name in model.expression_names])
    rng = np.random.default_rng(4)
    covered = np.array([director.expression(own, True, rng) for _ in range(100)])
    seen = np.array([director.expression(own, False, rng) for _ in range(100)])
    assert (covered[:, eyes] == 0.25).all()
    assert seen[:, eyes].std(axis=0).min() > 0.05
    assert covered[:, ~eyes].std() > 0.05


def test_mixed_shapes_vary_as_the_portraits_do(tools: Any) -> None:
    model, _, module = tools
    rng = np.random.default_rng(5)
    spread = np.linspace(0.5, 1.5, model.shape_count)
    shapes = (1 + spread * rng.normal(size=(400, model.shape_count))).astype(np.float32)
    pool = np.pad(shapes, ((0, 0), (0, model.expression_count)))
    director = module.Director(model, pool)
    drawn = np.array([director.shape(shapes[i % 400], rng) for i in range(4000)])
    own = (drawn == shapes[np.arange(4000) % 400]).all(1)
    assert own.mean() == pytest.approx(module.OWN_SHAPE, abs=0.05)
    mixed = drawn[~own]
    np.testing.assert_allclose(mixed.mean(0), shapes.mean(0), atol=0.15)
    np.testing.assert_allclose(mixed.std(0), shapes.std(0), rtol=0.1)


def test_held_out_faces_keep_their_shapes(renders: Path, tools: Any) -> None:
    model, _, module = tools
    for part, kept in (("train", False), ("heldout", True)):
        params = np.load(renders / f"{part}_000_params.npy")
        shapes = np.unique(params[:, 12 : 12 + model.shape_count], axis=0)
        assert (len(shapes) <= -(-len(params) // module.VARIANTS)) == kept


def test_pose_angles_come_back(tools: Any) -> None:
    _, _, module = tools
    rng = np.random.default_rng(3)
    for _ in range(50):
        wanted = rng.uniform([-1.5, -1.4, -3], [1.5, 1.4, 3])
        turn = module.rotation(*wanted)
        assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-6)
        assert module.angles(turn) == pytest.approx(wanted, abs=1e-4)
    assert module.rotation(0.3, 0, 0)[0, 2] > 0  # the nose goes to the right
    assert module.rotation(0, 0.3, 0)[1, 2] > 0  # up
    assert module.rotation(0, 0, 0.3)[0, 1] > 0  # the top of the head to the right


def test_pack_frame_is_the_one_the_core_projects_from(tools: Any) -> None:
    """Labels written for a crop of a region come out of the core where they were in the image."""
    model, face, _ = tools
    from threedfa import MorphableModel

    core = MorphableModel.load(MODEL, input_size=face.INPUT_SIZE)
    camera = np.array([[5, 1, 0.5, 58], [-1, -5, 0.2, 61], [0, 0, 5, 0]], np.float32)
    coefficients = np.zeros(model.param_count - 12, np.float32)
    crop = model.points68.of(model.mean) @ camera[:, :3].T + camera[:, 3]
    roi = np.array([30.0, 40.0, 270.0, 280.0])  # 240 pixels: 2 for each pixel of the crop
    params = np.concatenate([face.to_pack_camera(camera).ravel(), coefficients])
    found = core.project(params, roi, dense=False)
    expected = (crop[:, :2] + 0.5) * 2 - 0.5 + roi[:2]  # pixel centres
    assert np.abs(found[:, :2] - expected).max() < 1e-3
    flat = face.to_pack_frame(crop[:, :2])
    mapped = model.points68.of(model.mean) @ face.to_pack_camera(camera)[:2, :3].T
    assert np.abs(mapped + face.to_pack_camera(camera)[:2, 3] - flat).max() < 1e-4


def test_training_goes_on_where_it_stopped(trained: tuple[Path, str, str]) -> None:
    out, first, second = trained
    assert "step 2 of 2" in first
    assert "going on from step 2" in second
    assert "step 4 of 4" in second
    assert "step 1 of" not in second
    assert {p.name for p in out.iterdir()} >= {"last.pt", "stable.pt", "final.pt"}
    for line in (first + second).splitlines():
        if line.startswith("step "):
            assert "nan" not in line


def test_a_packs_regressor_is_trained_further(
    material: tuple[Path, Array], labels: Path, renders: Path, tmp_path: Path
) -> None:
    """With frozen statistics, and nothing learnt in a step of rate zero."""
    printed = train(
        material[0], labels, renders, tmp_path, 8, "--init", MODEL.parent, "--lr", 0, "--no-bf16"
    )
    assert "step 1 of 1" in printed
    path = tmp_path / "regressor.onnx"
    step("export.py", "--checkpoint", tmp_path / "final.pt", "--model", MODEL, "--out", path)
    crops = np.random.default_rng(0).normal(0, 1, (3, 3, 120, 120)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(
            None, {"input": crops}
        )
        for file in (MODEL.parent / "regressor.onnx", path)
    )
    for a, b in zip(before, after, strict=True):
        assert np.abs(a - b).max() < 1e-2  # weights rounded to half precision


@pytest.mark.parametrize("start", [("--width", 0.125), ("--init", MODEL.parent)])
def test_training_on_a_gpu(
    material: tuple[Path, Array],
    labels: Path,
    renders: Path,
    tmp_path: Path,
    start: tuple[object, ...],
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU and PyTorch for CUDA")
    run = partial(train, material[0], labels, renders, tmp_path)
    assert "step 2 of 2" in run(16, *start, "--device", "cuda")
    printed = run(32, *start, "--device", "cuda")
    assert "going on from step 2" in printed
    assert "step 4 of 4" in printed


def test_gradients_lie_as_their_parameters_do(tools: Any) -> None:
    """Convolutions of one channel each have two orders in memory that look alike."""
    network = tool("network").Regressor(20, 0.125).to(memory_format=torch.channels_last)
    parts = [[torch.full(p.shape, float(k)) for p in network.parameters()] for k in (1, 2)]
    tool("train_regressor").set_gradients(network, parts)
    for parameter in network.parameters():
        assert parameter.grad.stride() == parameter.stride()
        assert parameter.grad.unique().tolist() == [1.5]


def test_finer_points_tell_more_of_expressions(renders: Path) -> None:
    printed = step(
        "expression_limits.py", "--renders", renders, "--model", MODEL, "--errors", 0.01, 3,
        "--most-yaw", 90,
    )  # fmt: skip
    rows = {name: values for name, *values in map(str.split, printed.splitlines())}
    assert rows.pop("pixels") == ["0.01", "3.00"]
    assert "browInnerUp" in rows
    fine, coarse = np.array([list(map(float, v)) for v in rows.values()]).T
    assert np.nanmean(fine) > np.nanmean(coarse) + 0.05


def test_a_wider_network_begins_as_the_narrower_one(tools: Any) -> None:
    network = tool("network")
    pictures = torch.randn(2, 3, 120, 120, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        narrow, wide = (network.load_network(MODEL.parent, width).eval() for width in (None, 0.875))
        for a, b in zip(narrow(pictures), wide(pictures), strict=True):
            assert (a - b).abs().max() < 1e-4
        assert wide.width == 0.875
        counts = network.channel_counts(0.875)
        assert [len(wide.stem.weight)] + [len(b.pointwise.weight) for b in wide.blocks] == counts
        added = wide.features(pictures)[:, : counts[-1]].std(0)[
            len(narrow.blocks[-1].pointwise.weight) :
        ]
        assert (added > 0).float().mean() > 0.5  # there is something to learn from
    with pytest.raises(ValueError, match=r"expected at most \d+ channels, got \d+"):
        network.load_network(MODEL.parent, 0.25)


def test_other_packs_regressors_are_refused(tools: Any, tmp_path: Path) -> None:
    network = tool("network")
    pack = build_toy_pack(tmp_path / "toy")
    with pytest.raises(ValueError, match=r"expected a network of export\.py"):
        network.load_network(pack)


def test_exported_network_fits_the_face_model(
    trained: tuple[Path, str, str], tools: Any, tmp_path: Path
) -> None:
    model, _, _ = tools
    path = tmp_path / "regressor.onnx"
    step("export.py", "--checkpoint", trained[0] / "final.pt", "--model", MODEL, "--out", path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    crops = np.zeros((3, 3, 120, 120), np.float32)
    params, confidence = session.run(["params", "confidence"], {"input": crops})
    assert params.shape == (3, model.param_count)
    assert confidence.shape == (3, 1)
    entry = json.loads(path.with_suffix(".json").read_text())
    assert len(entry["param_mean"]) == len(entry["param_std"]) == model.param_count
    assert sum(entry["param_split"].values()) == model.param_count


def test_a_pack_is_put_together_and_measured_on_renders(
    trained: tuple[Path, str, str], renders: Path, tmp_path: Path
) -> None:
    regressor, out = tmp_path / "regressor.onnx", tmp_path / "pack"
    step("export.py", "--checkpoint", trained[0] / "final.pt", "--model", MODEL, "--out", regressor)
    entry = json.loads(regressor.with_suffix(".json").read_text())
    entry["confidence_threshold"] = 0  # for a network that has learnt nothing
    regressor.with_suffix(".json").write_text(json.dumps(entry))
    out.mkdir()
    shutil.copy(MODEL, out)
    own = json.loads((MODEL.parent / "pack.json").read_text())
    (tmp_path / "detector.json").write_text(json.dumps(own["detector"]))
    shutil.copy(MODEL.parent / "detector.onnx", tmp_path)
    step("make_pack.py", "--detector", tmp_path, "--regressor", regressor, "--out", out)
    assert Pack.load(out).name == "default"
    with np.errstate(invalid="ignore"):  # eight faces do not have all expressions
        printed = step(
            "evaluate_renders.py", "--renders", renders, "--model", MODEL, "--pack", out,
            "--count", 8, "--most-yaw", 90,
        )  # fmt: skip
    assert "jawOpen" in printed
