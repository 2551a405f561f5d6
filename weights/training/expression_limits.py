"""What the places of points can tell of expressions at all.

    python weights/training/expression_limits.py --renders CACHE/renders

Says how well expressions of the held-out renders could be known from the 468 points if these were
seen with some error: the best linear estimate, given how coefficients vary over the renders to
train on and any affine camera. An expression that looks like a shape at rest, as a raised brow does
like a high one, needs points that are finer than one like an open jaw. Creases and shadows, which
real faces have and renders do not, are not considered.

Errors of points that lie together are alike, so the 468 count as many as the labels take them for
(``labels.EFFECTIVE_POINTS``). Prints, for each error in pixels of the regressor's crop (the
standard deviation of each coordinate), the correlation of the estimates with the truth, as
``evaluate_renders.py`` does for a pack.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from crops import Crops, render_crops
from evaluate_renders import EXPRESSIONS
from face import CAMERA, INPUT_SIZE, Array, Morphable
from labels import EFFECTIVE_POINTS
from numpy.typing import NDArray
from renders import REGION, angles, object_rotation

from threedfa.evaluation import correlation

CAMERA_PRIOR = 10.0  # pixels for a centimetre, deviation; as good as none


@dataclass(frozen=True)
class Prior:
    """How the coefficients of faces vary: their mean and the inverse of their covariance."""

    mean: NDArray[np.float64]
    precision: NDArray[np.float64]

    @staticmethod
    def of(coefficients: Array) -> Prior:
        """(n, S + E) coefficients of faces."""
        covariance = np.cov(coefficients.T) + 1e-6 * np.eye(coefficients.shape[1])
        return Prior(coefficients.mean(0, dtype=np.float64), np.linalg.inv(covariance))


def estimate(
    model: Morphable, prior: Prior, params: Array, error: float, rng: np.random.Generator
) -> Array:
    """(S + E,) coefficients, as far as one face's points tell them.

    Args:
        model: the face model.
        prior: of the coefficients.
        params: of the face, camera in pixels of a render.
        error: pixels of the crop.
        rng: for the errors of the points.
    """
    mean, basis = model.at(model.points468)
    camera = params[:CAMERA].reshape(3, 4)[:2, :3] * (INPUT_SIZE / REGION)
    change = params[CAMERA:] - prior.mean
    shape = mean + np.einsum("k,kpj->pj", params[CAMERA:], basis)
    count = len(change)
    seen = np.einsum("ij,kpj->pik", camera, basis).reshape(-1, count)
    # A wrong camera moves points, to first order, as an affine map of the face does.
    moved = np.zeros((len(shape), 2, 8))
    moved[:, 0, :4] = moved[:, 1, 4:] = np.column_stack([shape, np.ones(len(shape))])
    rows = np.hstack([seen, moved.reshape(-1, 8)])
    sigma = error * np.sqrt(len(mean) / EFFECTIVE_POINTS)
    right = seen @ change + rng.normal(0, sigma, len(seen))
    precision = np.eye(count + 8) / CAMERA_PRIOR**2
    precision[:count, :count] = prior.precision
    solved = np.linalg.solve(rows.T @ rows / sigma**2 + precision, rows.T @ right / sigma**2)
    result: Array = (prior.mean + solved[:count]).astype(np.float32)
    return result


def correlations(
    model: Morphable, prior: Prior, heldout: Crops, error: float, most_yaw: float, seed: int
) -> list[float]:
    """For each of ``EXPRESSIONS``; nan where one does not vary."""
    rng = np.random.default_rng(seed)
    found, true = [], []
    for params in heldout.params:
        yaw = np.degrees(angles(object_rotation(params))[0])
        if abs(yaw) <= most_yaw:
            found.append(estimate(model, prior, params, error, rng))
            true.append(params[CAMERA:])
    columns = [model.shape_count + model.expression_index(name) for name in EXPRESSIONS]
    return [correlation(np.array(found)[:, c], np.array(true)[:, c]) for c in columns]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--renders", type=Path, required=True, help="what renders.py made")
    parser.add_argument("--model", type=Path, default=Path("weights/default/model.safetensors"))
    parser.add_argument("--errors", type=float, nargs="+", default=[0.1, 0.3, 0.5, 1.0, 1.5])
    parser.add_argument("--most-yaw", type=float, default=45.0, help="degrees")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    model = Morphable.load(options.model)
    prior = Prior.of(render_crops(options.renders, "train").params[:, CAMERA:])
    heldout = render_crops(options.renders, "heldout")
    table = [
        correlations(model, prior, heldout, error, options.most_yaw, options.seed)
        for error in options.errors
    ]
    print(f"{'pixels':>16}" + "".join(f"{error:7.2f}" for error in options.errors))
    for name, row in zip(EXPRESSIONS, zip(*table, strict=True), strict=True):
        print(f"{name:>16}" + "".join(f"{value:7.3f}" for value in row))


if __name__ == "__main__":
    main()
