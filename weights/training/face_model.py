"""Make the default face model from ICT-FaceKit (MIT): a mesh, two linear bases, tables.

    python weights/training/face_model.py --material ../shared/training \
        --output weights/default/model.safetensors

Deterministic; needs NumPy and safetensors alone and takes some seconds. The steps:

1. mesh: ICT's face as triangles, without the lower neck, and two eyeballs;
2. shape basis: ICT's 100 identity vectors turned to principal axes, symmetric and antisymmetric
   ones apart; the 50 of largest weighted variance;
3. expression basis: the 51 of ARKit's 52 blendshapes that ICT has, eyeballs following the gaze;
4. tables: landmarks, regions, mirror images.

The safetensors file holds what ``threedfa/morphable_model.hpp`` describes and, for training and
for users of the tables: ``landmarks468_*`` (MediaPipe's points in their order), ``five_*`` (the
eyes, the subject's right one first, nose, mouth corners), ``region`` (see REGIONS),
``mirror_vertices``, ``shape_mirror_sign`` and ``expression_mirror`` (a mirror image flips the sign
of the shape coefficients marked -1 and permutes expressions and vertices). Names are in its
metadata, as JSON lists.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import eyes
import numpy as np
import surface
from numpy.typing import NDArray
from safetensors.numpy import save

from threedfa.model import packed_basis

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

FACE_VERTICES, FACE_QUADS = 9409, 9230  # of ICT; the back of the head and the mouth follow
SHAPE_MODES = 50
NECK_CUT_Y, NECK_CUT_SLOPE = -6.4, 1.0  # the neck ends at the plane y = -6.4 cm - z
EYELID_RINGS = 7
BLINK_GAIN = 1.15  # ICT's blink stops short of closing the eye
FLIP_X = np.array([-1.0, 1.0, 1.0])

EXPRESSIONS = (
    "eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft",
    "eyeSquintLeft", "eyeWideLeft",
    "eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight", "eyeLookOutRight", "eyeLookUpRight",
    "eyeSquintRight", "eyeWideRight",
    "jawForward", "jawLeft", "jawRight", "jawOpen",
    "mouthClose", "mouthFunnel", "mouthPucker", "mouthLeft", "mouthRight",
    "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight",
    "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    "mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft", "mouthLowerDownRight",
    "mouthUpperUpLeft", "mouthUpperUpRight",
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
"""In ARKit's order; left and right are the subject's. ICT has no tongueOut."""

REGIONS = ("face", "eyelids", "lips", "left eyeball", "right eyeball", "neck", "ears", "scalp")

# MediaPipe points, in order around the face and around the lips.
FACE_OVAL = [
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
]  # fmt: skip
LIPS = [
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185,
]  # fmt: skip
OUTER_CORNER, INNER_CORNER = {"Right": 36, "Left": 45}, {"Right": 39, "Left": 42}


@dataclass(frozen=True)
class Ict:
    """ICT's face, made exactly symmetric."""

    vertices: Array  # (9409, 3)
    quads: Indices  # (9230, 4)
    uv: Array  # (9409, 2)
    identity: Array  # (100, 9409, 3), symmetric where `sign` is 1, antisymmetric where it is -1
    sign: Array  # (100,)
    expression: dict[str, Array]  # by ARKit's name, (9409, 3)
    mirror: Indices  # (9409,) the vertex at the mirror image of each
    sclera: Array  # (N, 3) of the subject's left eye
    sclera_identity: Array  # (100, N, 3)


@dataclass(frozen=True)
class NeckCut:
    """The part of ICT's face above a plane through the neck, its border moved onto that plane."""

    quads: Indices  # (Q, 4), counter-clockwise, over the N kept vertices
    kept: Indices  # (N,) ICT's vertices
    towards: Indices  # (N,) a neighbour above the plane
    slide: Array  # (N,) how far to move towards it, 0 for all but the border

    def apply(self, values: Array) -> Array:
        """Values (..., 9409, C) of ICT's vertices at the kept ones, (..., N, C)."""
        slide = self.slide[:, None]
        kept: Array = (1 - slide) * values[..., self.kept, :] + slide * values[..., self.towards, :]
        return kept


@dataclass(frozen=True)
class FaceModel:
    """What the file holds, and how ICT's coefficients translate.

    ``shape_coeffs = from_identity @ identity_coeffs``. Expression coefficients are ICT's weights,
    those of a blink divided by BLINK_GAIN.
    The first vertices are ICT's: vertex i is ``(1 - cut.slide[i]) * ict[cut.kept[i]] + cut.slide[i]
    * ict[cut.towards[i]]``; the left and the right eyeball follow.
    """

    tensors: dict[str, NDArray[np.generic]]
    from_identity: Array  # (50, 100)
    cut: NeckCut


def mirrored(moves: Array, mirror: Indices) -> Array:
    """A displacement (..., V, 3) seen in the mirror."""
    seen: Array = moves[..., mirror, :] * FLIP_X
    return seen


def ict_name(name: str) -> str:
    """``eyeBlinkLeft`` to ``eyeBlink_L``."""
    whole = {"jawLeft", "jawRight", "mouthLeft", "mouthRight"}
    if name in whole:
        return name
    return name.replace("Left", "_L").replace("Right", "_R")


def mirror_name(name: str) -> str:
    """The expression that a mirror makes of one."""
    if "Left" in name:
        return name.replace("Left", "Right")
    return name.replace("Right", "Left")


def load_ict(path: Path) -> Ict:
    """Read ``ict_facekit.npz`` and take out its small asymmetries."""
    with np.load(path) as file:
        neutral = file["neutral"].astype(np.float64)
        vertices = neutral[:FACE_VERTICES]
        all_identity = file["identity"].astype(np.float64)
        names = [str(name) for name in file["expression_names"]]
        moves = dict(
            zip(names, file["expression"][:, :FACE_VERTICES].astype(np.float64), strict=True)
        )
        quads = file["faces"][:FACE_QUADS].astype(np.int64)
        quads_uv, all_uv = file["faces_uv"][:FACE_QUADS], file["uv"].astype(np.float64)
        sclera = np.unique(
            file["faces"][file["face_material"] == list(file["materials"]).index("M_ScleraLeft")]
        )
    sclera = sclera[sclera > FACE_VERTICES]  # some faces have corners that are no vertex

    image = vertices * FLIP_X
    mirror = np.array([((vertices - point) ** 2).sum(axis=1).argmin() for point in image])
    assert (mirror[mirror] == np.arange(FACE_VERTICES)).all()
    identity = all_identity[:, :FACE_VERTICES]
    reflected = mirrored(identity, mirror)
    sign = np.sign((identity * reflected).sum(axis=(1, 2)))
    # ICT repeats some texture coordinates; a vertex never has two different ones.
    uv = np.empty((FACE_VERTICES, 2))
    uv[quads] = all_uv[quads_uv]
    assert np.abs(uv[quads] - all_uv[quads_uv]).max() == 0

    def moved(name: str) -> Array:
        if name in ("browInnerUp", "cheekPuff"):
            move: Array = moves[name + "_L"] + moves[name + "_R"]
        else:
            move = moves[ict_name(name)] * (BLINK_GAIN if name.startswith("eyeBlink") else 1)
        return move

    return Ict(
        vertices=(vertices + mirrored(vertices, mirror)) / 2,
        quads=quads,
        uv=(uv + (uv[mirror] * [-1, 1] + [1, 0])) / 2,
        identity=(identity + sign[:, None, None] * reflected) / 2,
        sign=sign,
        expression={
            name: (moved(name) + mirrored(moved(mirror_name(name)), mirror)) / 2
            for name in EXPRESSIONS
        },
        mirror=mirror,
        sclera=neutral[sclera],
        sclera_identity=all_identity[:, sclera],
    )


def above_lower_neck(points: Array) -> Array:
    """Height in centimetres over the plane, under the ears and through the neck, that cuts it."""
    height: Array = (points[:, 1] + NECK_CUT_SLOPE * points[:, 2] - NECK_CUT_Y) / np.hypot(
        1, NECK_CUT_SLOPE
    )
    return height


def cut_neck(ict: Ict) -> NeckCut:
    """Drop the quads wholly below the plane and slide the lower corners of the others up to it."""
    height = above_lower_neck(ict.vertices)
    quads_ict = ict.quads[(height[ict.quads] > 0).sum(axis=1) > 1]
    kept = np.unique(quads_ict)
    around = surface.neighbours(surface.quad_edges(quads_ict))
    towards, slide = kept.copy(), np.zeros(len(kept))
    for row in np.flatnonzero(height[kept] < 0):
        low = int(kept[row])
        # The highest neighbour: the same choice on both sides of the face.
        high = max(around[low], key=lambda other: height[other])
        towards[row], slide[row] = high, height[low] / (height[low] - height[high])
    return NeckCut(np.searchsorted(kept, quads_ict), kept, towards, slide)


def principal_axes(modes: Array, weights: Array) -> tuple[Array, Array]:
    """Rotate K modes (K, V, 3) with N(0, 1) coefficients to their principal axes.

    Closed form: the left singular vectors U of the weighted modes; coefficients U' c are again
    N(0, 1) and uncorrelated, the modes U' M orthogonal under the weights.

    Returns:
        U' (K, K), by falling variance, and the variances (K,).
    """
    weighted = (modes * np.sqrt(weights)[:, None]).reshape(len(modes), -1)
    u, s, _ = np.linalg.svd(weighted, full_matrices=False)
    return u.T, s**2


def build(material: Path) -> FaceModel:
    """The whole model from the folder that holds ICT-FaceKit's arrays."""
    ict = load_ict(material / "ict_facekit.npz")
    with np.load(material / "canonical_468_to_ict.npz") as file:
        points468 = {name: file[name] for name in ("tri", "bary", "w68", "mirror468")}

    # --- mesh
    cut = cut_neck(ict)
    quads, count_face = cut.quads, len(cut.kept)
    face, face_uv = cut.apply(ict.vertices), cut.apply(ict.uv)
    face_triangles = surface.split_quads(face, quads)
    new = np.full(FACE_VERTICES, -1)
    new[cut.kept] = np.arange(count_face)
    face_mirror = new[ict.mirror[cut.kept]]
    first_left, first_right = count_face, count_face + eyes.VERTICES
    count = count_face + 2 * eyes.VERTICES

    edges = surface.quad_edges(quads)
    border = np.unique([edge for edge, on_edge in edges.items() if len(on_edge) == 1])
    at_left_eye = np.abs(face[border] - [3.2, 3.6, 9.0]).max(axis=1) < 1.6
    lid_rings = surface.edge_rings(edges, border[at_left_eye], EYELID_RINGS)

    # --- eyeballs: the left one, then its mirror image
    eye = fit_left_eye(ict, cut.kept, lid_rings)
    local = eyes.ball(eye.radius)
    left = eye.center + local
    ball_mirror = eyes.ball_mirror()
    vertices = np.concatenate([face, left, mirrored(left, ball_mirror)])
    mirror = np.concatenate([face_mirror, first_right + ball_mirror, first_left + ball_mirror])
    ball_triangles = eyes.ball_triangles()
    triangles = np.concatenate(
        [face_triangles, first_left + ball_triangles, first_right + ball_triangles]
    )
    left_identity = eye.shift[:, None] + eye.growth[:, None, None] * local
    identity = np.concatenate(
        [
            cut.apply(ict.identity),
            left_identity,
            ict.sign[:, None, None] * mirrored(left_identity, ball_mirror),
        ],
        axis=1,
    )

    # --- landmarks
    table468 = [
        in_new_triangles(new[corners], weights, vertices, quads, face_triangles)
        for corners, weights in zip(points468["tri"], points468["bary"], strict=True)
    ]
    vertices468 = np.array([corners for corners, _ in table468])
    weights468 = np.array([weights for _, weights in table468])
    position468 = (vertices[vertices468] * weights468[..., None]).sum(axis=1)
    landmarks = [
        landmark(row, vertices468, weights468, position468, vertices, face_triangles)
        for row in points468["w68"]
    ]
    landmark_vertices = np.array([corners for corners, _ in landmarks])
    landmark_weights = np.array([weights for _, weights in landmarks])
    heaviest = np.take_along_axis(
        landmark_vertices, landmark_weights.argmax(axis=1)[:, None], axis=1
    )[:, 0]

    def eye_point(side: str, pole: int) -> tuple[list[int], list[float]]:
        return [pole, heaviest[OUTER_CORNER[side]], heaviest[INNER_CORNER[side]]], [0.5, 0.25, 0.25]

    five = [
        eye_point("Right", first_right),
        eye_point("Left", first_left),
        *((landmark_vertices[i], landmark_weights[i]) for i in (30, 48, 54)),
    ]

    # --- shape basis
    weights = shape_weights(ict, position468[np.argmax(points468["w68"][17:], axis=1)])
    rotations, variances, signs = [], [], []
    for sign in (1.0, -1.0):
        rows = np.flatnonzero(ict.sign == sign)
        axes, variance = principal_axes(ict.identity[rows], weights)
        rotation = np.zeros((len(rows), len(identity)))
        rotation[:, rows] = axes
        rotations.append(rotation)
        variances.append(variance)
        signs.append(np.full(len(rows), sign))
    order = np.argsort(-np.concatenate(variances), kind="stable")[:SHAPE_MODES]
    from_identity = np.concatenate(rotations)[order]
    shape_sign = np.concatenate(signs)[order]
    shape = np.tensordot(from_identity, identity, axes=1)
    # The sign of a principal axis is arbitrary: the largest displacement points to +x, +y or +z.
    largest = shape.reshape(SHAPE_MODES, -1)
    flip = np.sign(largest[np.arange(SHAPE_MODES), np.abs(largest).argmax(axis=1)])
    shape *= flip[:, None, None]
    from_identity *= flip[:, None]

    # --- expression basis
    expression = np.zeros((len(EXPRESSIONS), count, 3))
    for row, name in enumerate(EXPRESSIONS):
        expression[row, :count_face] = cut.apply(ict.expression[name])
        direction = name.removeprefix("eye").removesuffix("Left")
        if name.endswith("Left") and direction in eyes.GAZE_DEGREES:
            turned = eyes.gaze(eye.center, left, direction, outwards=1.0)
            expression[row, first_left:first_right] = turned
            other = EXPRESSIONS.index(mirror_name(name))
            expression[other, first_right:] = mirrored(turned, ball_mirror)

    uv = texture_coordinates(face_uv)
    tensors: dict[str, NDArray[np.generic]] = {
        "mean": vertices.astype(np.float32),
        **packed_basis("shape", shape),
        **packed_basis("expression", expression),
        "triangles": triangles.astype(np.int32),
        "uv": uv.astype(np.float32),
        "landmark_vertices": landmark_vertices.astype(np.int32),
        "landmark_weights": landmark_weights.astype(np.float32),
        "landmarks468_vertices": vertices468.astype(np.int32),
        "landmarks468_weights": weights468.astype(np.float32),
        "five_vertices": np.array([corners for corners, _ in five], np.int32),
        "five_weights": np.array([weights for _, weights in five], np.float32),
        "region": regions(face_uv, face, position468, vertices468, weights468, lid_rings,
                          face_mirror),
        "mirror_vertices": mirror.astype(np.int32),
        "shape_mirror_sign": shape_sign.astype(np.float32),
        "expression_mirror": np.array(
            [EXPRESSIONS.index(mirror_name(name)) for name in EXPRESSIONS], np.int32
        ),
    }  # fmt: skip
    return FaceModel(tensors, from_identity, cut)


def fit_left_eye(ict: Ict, kept: Indices, lid_rings: list[Indices]) -> eyes.Eye:
    """The subject's left eyeball: the sphere of ICT's visible white, moved with the lids."""
    visible = ict.sclera[:, 2] > 8.4
    center, radius = eyes.fit_sphere(ict.sclera[visible])
    rims = kept[np.concatenate(lid_rings[:4])]
    lids = np.concatenate(
        [ict.vertices[rims], ict.vertices[rims] + ict.expression["eyeBlinkLeft"][rims]]
    )
    shift, growth = eyes.follow_lids(
        center,
        radius,
        lids,
        np.tile(ict.identity[:, rims], (1, 2, 1)),
        ict.sclera[visible],
        ict.sclera_identity[:, visible],
    )
    return eyes.Eye(center, radius, shift, growth)


def in_new_triangles(
    corners: Indices, weights: Array, vertices: Array, quads: Indices, triangles: Indices
) -> tuple[Indices, Array]:
    """A point given in one half of a quad, in the halves that `triangles` split that quad into."""
    quad = int(np.isin(quads, corners).sum(axis=1).argmax())
    assert np.isin(corners, quads[quad]).all()
    halves = triangles[2 * quad : 2 * quad + 2]
    half, bary = surface.closest_point(weights @ vertices[corners], vertices, halves)
    return halves[half], bary


def landmark(
    row: Array,
    vertices468: Indices,
    weights468: Array,
    position468: Array,
    vertices: Array,
    triangles: Indices,
) -> tuple[Indices, Array]:
    """One of the 68 points, a row of weights over the 468.

    A single point is taken as it is, so lips and lids stay on their own side; a mixture (on the jaw
    line) is taken to the nearest place of the surface.
    """
    used = np.flatnonzero(row)
    if len(used) == 1:
        return vertices468[used[0]], weights468[used[0]]
    nearest, bary = surface.closest_point(row @ position468, vertices, triangles)
    return triangles[nearest], bary


def shape_weights(ict: Ict, inner: Array) -> Array:
    """Weight in the PCA of each of ICT's vertices: its area, up to four times that near the
    `inner` landmarks (N, 3): brows, eyes, nose, mouth. Nothing for the lower neck."""
    areas = surface.vertex_areas(ict.vertices, surface.split_quads(ict.vertices, ict.quads))
    distance = np.sqrt(((ict.vertices[:, None] - inner) ** 2).sum(axis=2).min(axis=1))
    weights: Array = areas * (1 + 3 * np.exp(-(distance**2) / 2))
    return weights * (above_lower_neck(ict.vertices) > 0)


def texture_coordinates(face_uv: Array) -> Array:
    """ICT's layout of the face, and a disc for each eyeball."""
    return np.concatenate(
        [face_uv, eyes.ball_uv((0.9, 0.05), 0.045), eyes.ball_uv((0.1, 0.05), 0.045)]
    )


def regions(
    uv: Array,
    face: Array,
    position468: Array,
    vertices468: Indices,
    weights468: Array,
    lid_rings: list[Indices],
    mirror: Indices,
) -> NDArray[np.int32]:
    """(V,) index into REGIONS of each vertex."""
    uv468 = (uv[vertices468] * weights468[..., None]).sum(axis=1)
    label = np.full(len(uv) + 2 * eyes.VERTICES, REGIONS.index("face"), np.int32)
    outside = ~surface.inside_polygon(uv, uv468[FACE_OVAL])
    above = face[:, 1] > position468[[234, 454], 1].mean()
    label[: len(uv)][outside & above] = REGIONS.index("scalp")
    label[: len(uv)][outside & ~above] = REGIONS.index("neck")
    ears = (np.abs(uv[:, 0] - 0.5) > 0.41) & (np.abs(uv[:, 1] - 0.575) < 0.115)
    label[: len(uv)][ears] = REGIONS.index("ears")
    label[: len(uv)][surface.inside_polygon(uv, uv468[LIPS])] = REGIONS.index("lips")
    lids = np.concatenate(lid_rings)
    label[lids] = label[mirror[lids]] = REGIONS.index("eyelids")
    label[len(uv) : len(uv) + eyes.VERTICES] = REGIONS.index("left eyeball")
    label[len(uv) + eyes.VERTICES :] = REGIONS.index("right eyeball")
    return label


def in_fixed_order(file: bytes) -> bytes:
    """A safetensors file with its metadata sorted: the library writes them in random order."""
    size = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + file[8 + size :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--material", type=Path, required=True, help="folder of the ICT arrays")
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    arguments = parser.parse_args()
    model = build(arguments.material)
    metadata = {
        "format": "threedfa-model",
        "unit": "centimetre",
        "expression_names": json.dumps(EXPRESSIONS),
        "region_names": json.dumps(REGIONS),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_bytes(in_fixed_order(save(model.tensors, metadata)))
    print(f"{arguments.output}: {arguments.output.stat().st_size} bytes")
    for name, tensor in model.tensors.items():
        print(f"  {name} {tensor.dtype} {tensor.shape}")


if __name__ == "__main__":
    main()
