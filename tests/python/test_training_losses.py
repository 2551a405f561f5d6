"""What the regressor's loss is least for, and what it does not count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from training_steps import tool, write_canonical

torch = pytest.importorskip("torch", reason="training needs torch: pip install 'threedfa[train]'")

OUT_OF_PLACE = 3  # of the batch's five pictures
TAUGHT = [0, 1, OUT_OF_PLACE]
GEOMETRY = ("points", "heights", "parameters")  # losses on the face
ROUND = 0.5, 0.2  # pixels: what distances and heights that are exact count for
NEAREST = 0.05  # pixels: the nearest of the teacher's points lie beside some of the 68


@pytest.fixture(scope="module")
def points(face_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("material")
    write_canonical(folder, face_model)
    return tool("train_regressor").Points(face_model, folder)


@pytest.fixture(scope="module")
def network(face_model: Any) -> Any:
    network = tool("network").Regressor(face_model.param_count, 0.125)
    mean = np.zeros(face_model.param_count, np.float32)
    mean[:12] = [5, 0, 0, 60, 0, 5, 0, 60, 0, 0, 5, 0]
    network.param_mean.copy_(torch.from_numpy(mean))
    network.param_std.fill_(0.5)
    return network


@pytest.fixture
def batch(points: Any, network: Any) -> dict[str, Any]:
    """Labels of five faces; three have the teacher's points, which are the face model's."""
    generator = torch.Generator().manual_seed(1)
    params = network.param_mean + 0.2 * torch.randn(5, network.param_count, generator=generator)
    taught = torch.zeros(5, dtype=torch.bool)
    taught[TAUGHT] = True
    aligned = torch.ones(5)
    aligned[OUT_OF_PLACE] = 0
    surface = points(params)[:, :468, :2]
    taught_points = torch.where(taught[:, None, None], surface, 0.0)
    return {"params": params, "points": taught_points, "taught": taught, "aligned": aligned}


@pytest.fixture
def loss(points: Any, network: Any, batch: dict[str, Any]) -> Any:
    """The losses, as numbers, for errors of the parameters: none, or (5, P)."""
    logit = 50 * (2 * batch["aligned"] - 1)[:, None]

    def loss(error: Any = 0.0, logit: Any = logit) -> dict[str, float]:
        out = (batch["params"] + error - network.param_mean) / network.param_std
        found = tool("train_regressor").losses(out, logit, points, network, batch)
        return {name: float(value) for name, value in found.items()}

    return loss


def error_of(face_model: Any, row: int, column: int, size: float) -> Any:
    error = torch.zeros(5, face_model.param_count)
    error[row, column] = size
    return error


def columns(face_model: Any) -> dict[str, int]:
    """A parameter of every kind."""
    jaw = 12 + face_model.shape_count + face_model.expression_index("jawOpen")
    return {"x of the head": 3, "y of the head": 7, "turn": 2, "shape": 12, "jawOpen": jaw}


def test_exact_parameters_have_the_least_loss(loss: Any, points: Any, face_model: Any) -> None:
    exact = loss()
    assert exact["parameters"] == pytest.approx(0, abs=1e-6)
    assert exact["confidence"] == pytest.approx(0, abs=1e-6)
    assert exact["points"] == pytest.approx(ROUND[0], abs=NEAREST)
    heights = ROUND[1] * float(points.pair_weight.mean())
    assert exact["heights"] == pytest.approx(heights, abs=1e-3)
    for column in columns(face_model).values():
        for size in (-0.05, 0.05):
            wrong = loss(error_of(face_model, 0, column, size))
            assert all(wrong[name] >= exact[name] - 1e-5 for name in GEOMETRY)


@pytest.mark.parametrize("row", [0, 2])  # taught by points, by parameters
def test_loss_grows_with_the_error(loss: Any, face_model: Any, row: int) -> None:
    for name, column in columns(face_model).items():
        steps = [loss(error_of(face_model, row, column, size)) for size in (0.0, 0.2, 0.4)]
        shift = name.endswith("of the head")  # moves all points alike: no height changes
        for part in GEOMETRY:
            if part == "heights" and shift:
                assert steps[2][part] == pytest.approx(steps[0][part], abs=1e-4)
            else:
                assert steps[0][part] < steps[1][part] < steps[2][part], (name, part)


def test_faces_out_of_place_count_for_the_confidence_alone(loss: Any, face_model: Any) -> None:
    exact = loss()
    generator = torch.Generator().manual_seed(2)
    error = torch.zeros(5, face_model.param_count)
    error[OUT_OF_PLACE] = torch.randn(face_model.param_count, generator=generator)
    assert loss(error) == pytest.approx(exact, abs=1e-6)
    for row in range(5):
        logit = torch.full((5, 1), 50.0)
        logit[OUT_OF_PLACE] = -50
        logit[row] *= -1
        wrong = loss(logit=logit)
        assert wrong.pop("confidence") == pytest.approx(50 / 5, rel=1e-3)
        assert wrong == pytest.approx({name: exact[name] for name in GEOMETRY}, abs=1e-6)


def test_the_teachers_points_count_where_there_are_any(loss: Any, batch: dict[str, Any]) -> None:
    exact = loss()
    batch["points"][~batch["taught"]] += 7
    batch["points"][OUT_OF_PLACE] += 7
    assert loss() == pytest.approx(exact, abs=1e-6)
    batch["points"][0, :, 0] += 7  # of one of four faces, and not its other vertices
    moved = loss()
    assert exact["points"] + 5 / 4 < moved["points"] < exact["points"] + 7 / 4
    assert moved["parameters"] == pytest.approx(exact["parameters"], abs=1e-6)
