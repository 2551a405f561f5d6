"""Step 2: fit the face model to the teacher's points on each portrait.

    python weights/training/labels.py --material ../shared/training \
        --model weights/default/model.safetensors --out CACHE/portraits.npz

Weak perspective camera and coefficients by alternation: a Gauss-Newton step for the camera, bounded
regularised least squares for the coefficients (coordinate descent). Shape coefficients have unit
variance; expressions lie in 0..1 with an L1 cost, so that few of them are used, except blinks and
the jaw, which must follow the points exactly. The teacher gives no gaze: people in portraits are
taken to look into the camera.

Result: ``image`` (n) paths relative to the material, ``params`` (n, 12 + S + E) with the camera in
pixels of the portrait (image frame), ``points`` (n, 468, 2) the teacher's points, ``residual_cm``,
``train`` and ``heldout`` (n) bool.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from face import Array, Morphable
from numpy.typing import NDArray

NOISE_CM = 0.08  # of the teacher's points
DEPTH_WEIGHT = 0.25  # of z against x and y; the teacher's depth is a guess
EFFECTIVE_POINTS = 60.0  # the 468 errors are far from independent
# L1 cost of an expression weight. What people do in portraits is cheap; what mostly stands in for
# the shape of a face at rest is not, or avatars of such a face would never come to rest.
FREE = ("eyeBlink", "jawOpen")  # hardly regularised
COSTS = {
    "mouthSmile": 8.0,  # more, and a faint smile or half of a laugh is taken for the shape
    "mouthPucker": 30.0, "mouthFunnel": 30.0, "mouthUpper": 30.0, "brow": 30.0,
}  # fmt: skip
RARE_COST = 60.0
UNSEEN = ("eyeLook", "cheekPuff")  # the points do not tell; stay at zero
# Times the weight of these points, which fits smooth away otherwise.
EMPHASIS = {"lid_up": 4.0, "lid_lo": 4.0, "lips_up": 3.0, "lips_lo": 3.0}
GAZE_RANGE = np.deg2rad(30.0)  # rotation of an eye at weight 1
CHUNK = 128


def fit(
    model: Morphable, points: Array, weight: Array, iterations: int = 10
) -> tuple[Array, Array]:
    """Fit n faces at once.

    Args:
        model: the face model.
        points: (n, 468, 3) pixels, image frame.
        weight: (468,) of each point.
        iterations: alternations.

    Returns:
        (n, 3, 4) cameras and (n, S + E) coefficients.
    """
    mean, basis = model.at(model.points468)
    count, shapes = len(points), model.shape_count
    low = np.concatenate([np.full(shapes, -3.5), np.zeros(model.expression_count)])
    high = np.concatenate([np.full(shapes, 3.5), np.ones(model.expression_count)])
    ridge, sparse = np.ones(len(low)), np.zeros(len(low))
    for i, name in enumerate(model.expression_names):
        free = name.startswith(FREE)
        ridge[shapes + i] = 0.05 if free else 1.0
        if not free:
            known = (cost for part, cost in COSTS.items() if name.startswith(part))
            sparse[shapes + i] = next(known, RARE_COST)
        if name.startswith(UNSEEN):
            high[shapes + i] = 0.0

    target = points * np.array([1, -1, 1], np.float32)  # y up
    axes = np.array([1, 1, DEPTH_WEIGHT], np.float32)
    gain = np.sqrt(weight * EFFECTIVE_POINTS / len(weight)) / NOISE_CM
    coefficients = np.zeros((count, len(low)), np.float32)
    shape = np.broadcast_to(mean, (count, *mean.shape)).copy()
    scale, rotation, offset = _procrustes(shape, target, weight)
    for step in range(iterations):
        for _ in range(2):
            scale, rotation, offset = _pose_step(
                shape, target, scale, rotation, offset, np.sqrt(weight)[:, None] * axes
            )
        in_object = ((target - offset[:, None]) / scale[:, None, None]) @ rotation
        whiten = axes[:, None] * rotation  # (n, 3, 3): object to weighted camera axes
        rows = gain[:, None, None] * np.matmul(whiten[:, None], basis.transpose(1, 2, 0)[None])
        rows = rows.reshape(count, -1, len(low))
        right = gain[:, None] * ((in_object - mean) @ whiten.transpose(0, 2, 1))
        hessian = rows.transpose(0, 2, 1) @ rows
        slope = np.einsum("nrp,nr->np", rows, right.reshape(count, -1)) - sparse
        hessian[:, np.arange(len(low)), np.arange(len(low))] += ridge
        sweeps = 150 if step == iterations - 1 else 40
        coefficients = _descend(hessian, slope, coefficients, low, high, sweeps)
        shape = mean + np.einsum("np,pld->nld", coefficients, basis)
    cameras = np.zeros((count, 3, 4), np.float32)
    cameras[:, :, :3] = scale[:, None, None] * rotation
    cameras[:, :2, 3] = offset[:, :2]
    cameras[:, 1] *= -1
    return cameras, coefficients


def look_into_camera(model: Morphable, cameras: Array, coefficients: Array) -> Array:
    """Coefficients with the eyes turned towards the camera, as far as eyes turn."""
    out = coefficients.copy()
    toward = cameras[:, 2, :3] / np.linalg.norm(cameras[:, 2, :3], axis=1, keepdims=True)
    left = np.arctan2(toward[:, 0], toward[:, 2]) / GAZE_RANGE  # to the subject's left
    up = np.arctan2(toward[:, 1], toward[:, 2]) / GAZE_RANGE
    values = {
        "eyeLookOutLeft": left, "eyeLookInRight": left, "eyeLookInLeft": -left,
        "eyeLookOutRight": -left, "eyeLookUpLeft": up, "eyeLookUpRight": up,
        "eyeLookDownLeft": -up, "eyeLookDownRight": -up,
    }  # fmt: skip
    for name, value in values.items():
        out[:, model.shape_count + model.expression_index(name)] = np.clip(value, 0, 0.8)
    return out


def _procrustes(shape: Array, target: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Similarity from shape to target (Umeyama 1991)."""
    w = (weight / weight.sum())[None, :, None]
    center_a, center_b = (shape * w).sum(1), (target * w).sum(1)
    a, b = shape - center_a[:, None], target - center_b[:, None]
    u, singular, vt = np.linalg.svd((b * w).transpose(0, 2, 1) @ a)
    sign = np.ones_like(singular)
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign[:, None]) @ vt
    scale = (singular * sign).sum(1) / ((a**2) * w).sum((1, 2))
    return scale, rotation, center_b - scale[:, None] * np.einsum("nij,nj->ni", rotation, center_a)


def _pose_step(
    shape: Array, target: Array, scale: Array, rotation: Array, offset: Array, weight: Array
) -> tuple[Array, Array, Array]:
    """One Gauss-Newton step for log scale, rotation and offset; weight is (468, 3)."""
    turned = shape @ rotation.transpose(0, 2, 1)
    error = (target - offset[:, None]) / scale[:, None, None] - turned
    x, y, z = (turned[..., i] for i in range(3))
    jacobian = np.zeros((*turned.shape, 7), np.float32)
    jacobian[..., 0] = turned
    jacobian[:, :, 0, 2], jacobian[:, :, 0, 3] = z, -y
    jacobian[:, :, 1, 1], jacobian[:, :, 1, 3] = -z, x
    jacobian[:, :, 2, 1], jacobian[:, :, 2, 2] = y, -x
    for axis in range(3):
        jacobian[:, :, axis, 4 + axis] = 1
    rows = (jacobian * weight[None, :, :, None]).reshape(len(shape), -1, 7)
    right = (error * weight).reshape(len(shape), -1)
    normal = rows.transpose(0, 2, 1) @ rows + 1e-4 * np.eye(7, dtype=np.float32)
    step = np.linalg.solve(normal, np.einsum("nrp,nr->np", rows, right)[..., None])[..., 0]
    turn = _rotation(step[:, 1:4])
    return (
        scale * np.exp(step[:, 0]),
        turn @ rotation,
        offset + scale[:, None] * step[:, 4:],
    )


def _rotation(vectors: Array) -> Array:
    """(n, 3) rotation vectors to (n, 3, 3) matrices (Rodrigues)."""
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    x, y, z = (vectors / np.maximum(angle[:, :, 0], 1e-12)).T
    o = np.zeros_like(x)
    cross = np.stack([o, -z, y, z, o, -x, -y, x, o], 1).reshape(-1, 3, 3)
    result: Array = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
    return result


def _descend(
    hessian: Array, slope: Array, start: Array, low: Array, high: Array, sweeps: int
) -> Array:
    """Bounded quadratic programmes by coordinate descent, n at once."""
    x = start.astype(np.float64)
    hessian = hessian.astype(np.float64)
    diagonal = hessian[:, np.arange(x.shape[1]), np.arange(x.shape[1])]
    for _ in range(sweeps):
        for i in range(x.shape[1]):
            step = (slope[:, i] - (hessian[:, i] * x).sum(1)) / diagonal[:, i]
            x[:, i] = np.clip(x[:, i] + step, low[i], high[i])
    return x.astype(np.float32)


def label(material: Path, model: Morphable) -> dict[str, NDArray[np.generic]]:
    """All arrays of the result."""
    table = np.load(material / "labels.npz")
    canonical = np.load(material / "canonical_468_to_ict.npz")
    weight = canonical["weight"].astype(np.float32)
    for part, gain in EMPHASIS.items():
        weight[canonical[part]] *= gain
    points = table["landmarks468"].astype(np.float32) * np.array([1, 1, -1], np.float32)
    usable = np.flatnonzero(table["keep"] & np.isfinite(points).all((1, 2)))
    points = points[usable]
    parts = []
    for start in range(0, len(usable), CHUNK):
        parts.append(fit(model, points[start : start + CHUNK], weight))
        print(f"fitted {min(start + CHUNK, len(usable))} of {len(usable)}", flush=True)
    cameras = np.concatenate([p[0] for p in parts])
    coefficients = np.concatenate([p[1] for p in parts])
    mean, basis = model.at(model.points468)
    shape = mean + np.einsum("np,pld->nld", coefficients, basis)
    flat = np.einsum("nij,nlj->nli", cameras[:, :2, :3], shape) + cameras[:, None, :2, 3]
    pixels_per_cm = np.linalg.norm(cameras[:, 0, :3], axis=1)
    residual = np.linalg.norm(flat - points[..., :2], axis=2).mean(1) / pixels_per_cm
    coefficients = look_into_camera(model, cameras, coefficients)
    params = np.concatenate([cameras.reshape(len(usable), 12), coefficients], axis=1)
    heldout = table["heldout"][usable]
    return {
        "image": table["image"][usable],
        "params": params.astype(np.float32),
        "points": points[..., :2],
        "residual_cm": residual.astype(np.float32),
        "train": ~heldout & (residual < 0.2),
        "heldout": heldout,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--material", type=Path, default=Path("../shared/training"))
    parser.add_argument("--model", type=Path, default=Path("weights/default/model.safetensors"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    model = Morphable.load(options.model)
    result = label(options.material, model)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(options.out, **result)
    used = result["params"][:, 12 + model.shape_count :]
    print(
        f"{options.out}: {int(result['train'].sum())} portraits to train on, "
        f"{int(result['heldout'].sum())} held out; mean residual "
        f"{10 * float(result['residual_cm'].mean()):.2f} mm, "
        f"{float((used > 0.05).sum(1).mean()):.1f} expressions in use per face"
    )


if __name__ == "__main__":
    main()
