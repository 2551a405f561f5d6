"""Draw the picture that ships with the package, two heads that belong to nobody, and the README's.

The heads are random identities of ICT-FaceKit (MIT, (c) 2020 USC Institute for Creative
Technologies), coloured by hand and drawn by the project's own rasterizer.

    python weights/sample/make_sample.py --ict ../shared/training \
        --sample python/threedfa/data/sample.jpg --overview docs/overview.jpg
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from threedfa import ops, rendering, save_image
from threedfa._core import rotation_from_angles

Array = NDArray[np.float32]

HEIGHT, WIDTH, OVERSAMPLING = 540, 800, 2
FACE_VERTICES = 9409  # the first ones; eyes, teeth and the back of the head follow
LIGHT = np.array([-0.45, 0.55, 0.7])
HIDDEN = {"M_LacrimalFluid", "M_EyeBlend", "M_EyeOcclusion", "M_EyeLashes"}


@dataclass(frozen=True)
class Head:
    """One head: who, how it looks at us, and its colours (RGB 0..1)."""

    seed: int
    center: tuple[float, float]
    pixels_per_cm: float
    yaw: float
    pitch: float
    roll: float
    expression: dict[str, float]
    skin: tuple[float, float, float]
    hair: tuple[float, float, float]
    iris: tuple[float, float, float]


HEADS = (
    Head(
        seed=11,
        center=(250, 262),
        pixels_per_cm=13.5,
        yaw=14,
        pitch=-2,
        roll=5,
        expression={"mouthSmile_L": 0.75, "mouthSmile_R": 0.75, "cheekSquint_L": 0.3,
                    "cheekSquint_R": 0.3, "jawOpen": 0.12},
        skin=(0.80, 0.58, 0.47),
        hair=(0.16, 0.10, 0.07),
        iris=(0.25, 0.42, 0.50),
    ),
    Head(
        seed=23,
        center=(560, 285),
        pixels_per_cm=12.5,
        yaw=-22,
        pitch=4,
        roll=-6,
        expression={"browInnerUp_L": 0.5, "browInnerUp_R": 0.5, "jawOpen": 0.05},
        skin=(0.52, 0.34, 0.25),
        hair=(0.05, 0.04, 0.04),
        iris=(0.20, 0.11, 0.06),
    ),
)  # fmt: skip


def distance_to_lines(points: Array, lines: list[Array]) -> Array:
    """Distance of (N, 3) points to the nearest of several polylines (L, 3)."""
    nearest = np.full(len(points), np.inf)
    for line in lines:
        for a, b in pairwise(line):
            t = ((points - a) @ (b - a) / max(float((b - a) @ (b - a)), 1e-9)).clip(0, 1)
            nearest = np.minimum(nearest, np.linalg.norm(points - a - t[:, None] * (b - a), axis=1))
    return nearest


def smooth(x: Array, low: float, high: float) -> Array:
    """1 below ``low``, 0 above ``high``, smooth between."""
    t = ((high - x) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)


class IctHead:
    """ICT-FaceKit's arrays as triangles with a colour for each vertex."""

    def __init__(self, folder: Path) -> None:
        data = np.load(folder / "ict_facekit.npz", allow_pickle=False)
        self.neutral: Array = data["neutral"]
        self.identity: Array = data["identity"]
        self.expression = dict(
            zip(data["expression_names"].tolist(), data["expression"], strict=True)
        )
        quads = data["faces"]
        names = data["materials"][data["face_material"]]
        visible = ~np.isin(names, list(HIDDEN))
        quads, names = quads[visible], names[visible]
        whole = quads[:, 3] >= 0
        self.triangles = np.concatenate([quads[:, :3], quads[whole][:, [0, 2, 3]]])
        self.vertex_material = np.full(len(self.neutral), "", dtype=names.dtype)
        for name in np.unique(names)[::-1]:  # M_Face last: it owns the seam to M_BackHead
            used = quads[names == name]
            self.vertex_material[used[used >= 0]] = name
        points = np.load(folder / "canonical_468_to_ict.npz", allow_pickle=False)
        on_face = np.einsum("nij,ni->nj", self.neutral[points["tri"]], points["bary"])
        ibug = np.einsum("ln,nj->lj", points["w68"], on_face)
        self.brows = [ibug[17:22] - [0, 0.25, 0], ibug[22:27] - [0, 0.25, 0]]
        self.lip_lines = [ibug[[48, 49, 50, 51, 52, 53, 54]], ibug[[54, 55, 56, 57, 58, 59, 48]],
                          ibug[[60, 61, 62, 63, 64]], ibug[[64, 65, 66, 67, 60]]]  # fmt: skip

    def vertices(self, head: Head) -> Array:
        rng = np.random.default_rng(head.seed)
        coefficients = rng.normal(0, 0.8, 30).astype(np.float32)
        shape = self.neutral + np.tensordot(coefficients, self.identity[:30], 1)
        for name, weight in head.expression.items():
            shape = shape + weight * self.expression[name]
        return shape

    def colors(self, head: Head) -> Array:
        p, material = self.neutral, self.vertex_material
        colors = np.tile(np.array(head.skin), (len(p), 1))

        def tint(color: tuple[float, float, float] | Array, amount: Array) -> None:
            colors[:] += (np.asarray(color) - colors) * amount[:, None]

        face = np.isin(material, ["M_Face", "M_BackHead"])
        red = np.array(head.skin) * (1.05, 0.72, 0.72)
        cheeks = [np.array([[side * 5.2, -0.5, 8.0], [side * 4.6, -1.2, 8.8]]) for side in (-1, 1)]
        tint(red, 0.3 * face * smooth(distance_to_lines(p, cheeks), 0.5, 3.2))
        lips = np.array(head.skin) * (0.86, 0.50, 0.50)
        tint(lips, 0.9 * face * smooth(distance_to_lines(p, self.lip_lines), 0.28, 0.5))
        tint(head.hair, 0.85 * face * smooth(distance_to_lines(p, self.brows), 0.22, 0.5))
        # Hair begins behind a line from the forehead over the ears to the nape.
        hairline = 8.6 - 0.02 * p[:, 0] ** 2 - np.maximum(0, 6.0 - p[:, 2]) * 1.3
        ears = smooth(np.linalg.norm((np.abs(p) - (9.3, 1.5, 0))[:, 1:], axis=1), 3.6, 4.2)
        ears *= smooth(8.2 - np.abs(p[:, 0]), 0.0, 0.4)
        tint(head.hair, face * smooth(hairline - p[:, 1], 0.0, 0.7) * (1 - ears) * (p[:, 1] > -7))
        for side in ("Left", "Right"):
            # The sclera's clear front covers the iris, so both carry its colours.
            eye = np.isin(material, [f"M_Sclera{side}", f"M_Iris{side}"])
            center = p[eye].mean(axis=0)
            radius = np.linalg.norm(p[:, :2] - center[:2], axis=1)
            front = eye & (p[:, 2] > center[2])
            colors[eye] = (0.93, 0.91, 0.89)
            tint(head.iris, front * smooth(radius, 0.56, 0.66))
            tint((0.02, 0.02, 0.02), front * smooth(radius, 0.22, 0.30))
        colors[material == "M_Teeth"] = (0.90, 0.88, 0.82)
        colors[material == "M_GumsTongue"] = (0.62, 0.28, 0.28)
        return colors


def place(vertices: Array, head: Head) -> tuple[Array, Array]:
    """The head turned as it looks at us, in model units, and in pixels of the picture."""
    rotation = rotation_from_angles(head.yaw, head.pitch, head.roll)
    turned = (vertices - vertices.mean(axis=0)) @ rotation.T
    scale = head.pixels_per_cm
    return turned, turned * (scale, -scale, scale) + (*head.center, 0)


def draw(canvas: Array, model: IctHead, head: Head) -> None:
    """Draw one head into a float canvas (H, W, 3), 0..1, larger than the picture."""
    turned, pixels = place(model.vertices(head), head)
    normals = ops.vertex_normals(turned, model.triangles)
    light = LIGHT / np.linalg.norm(LIGHT)
    halfway = light + (0, 0, 1)
    halfway /= np.linalg.norm(halfway)
    diffuse = (normals @ light).clip(0) + 0.25 * (normals @ (-light[0], 0.1, 0.5)).clip(0)
    wet = np.isin(model.vertex_material, ["M_ScleraLeft", "M_ScleraRight"])
    gloss = np.where(wet, 0.7, 0.10) * (normals @ halfway).clip(0) ** np.where(wet, 60, 12)
    colors = model.colors(head) * (0.28 + 0.72 * diffuse)[:, None] + gloss[:, None]
    enlarged = pixels * OVERSAMPLING
    raster = ops.rasterize(enlarged, model.triangles, *canvas.shape[:2], attributes=colors)
    covered = raster.triangle >= 0
    canvas[covered] = raster.image[covered]


def overview(sample: NDArray[np.uint8], model: IctHead) -> NDArray[np.uint8]:
    """The sample beside its true faces as the library draws them: lit, depth, PNCC."""
    panels = [sample, *(sample.copy() for _ in range(3))]
    for head in HEADS:
        _, vertices = place(model.vertices(head), head)
        vertices = vertices.astype(np.float32)[:FACE_VERTICES]
        triangles = model.triangles[(model.triangles < FACE_VERTICES).all(axis=1)]
        mean = model.neutral[:FACE_VERTICES]
        ncc = (mean - mean.min(axis=0)) / np.ptp(mean, axis=0)
        normals = -ops.vertex_normals(vertices, triangles)
        rendering.paint_lit(panels[1], vertices, triangles, normals)
        rendering.paint_depth(panels[2], vertices, triangles)
        rendering.paint_mesh(panels[3], vertices, triangles, ncc)
    small = [cv2.resize(panel, (400, 270), interpolation=cv2.INTER_AREA) for panel in panels]
    return np.hstack(small)


def background() -> Array:
    """A wall out of focus, lit from the left."""
    y, x = np.mgrid[0 : HEIGHT * OVERSAMPLING, 0 : WIDTH * OVERSAMPLING] / OVERSAMPLING
    light = np.exp(-(((x - 230) / 520) ** 2) - ((y - 160) / 420) ** 2)[..., None]
    return np.array([0.24, 0.30, 0.36]) + light * np.array([0.34, 0.33, 0.28])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ict", type=Path, required=True, help="folder with ict_facekit.npz")
    parser.add_argument("--sample", type=Path, required=True, help="picture to write")
    parser.add_argument("--overview", type=Path, required=True, help="picture to write")
    arguments = parser.parse_args()
    model = IctHead(arguments.ict)
    canvas = background()
    for head in HEADS:
        draw(canvas, model, head)
    noise = np.random.default_rng(0).normal(0, 0.008, canvas.shape)
    pixels = (((canvas + noise).clip(0, 1)) * 255).astype(np.uint8)
    sample = cv2.resize(pixels, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    save_image(arguments.sample, sample)
    save_image(arguments.overview, overview(sample, model))


if __name__ == "__main__":
    main()
