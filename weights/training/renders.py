"""Step 3: render the portraits' heads anew, with exact labels.

    python weights/training/renders.py --material ../shared/training \
        --labels CACHE/portraits.npz --model weights/default/model.safetensors --out CACHE/renders

Each portrait is a texture for its own fitted mesh: a vertex takes the colour of the pixel it
projects to, moved by what the fit misses the teacher's points by; lids that close take theirs from
the portrait with skin painted over its eyes. The mesh gets another pose, expression and, to train
on, often another shape and a part of another portrait's face (``donor.py``), and is drawn by the
project's rasterizer, whose interpolated attributes are positions in the portraits, so the texture
stays as sharp as they are. A grid around the head
carries hair and background along and falls away behind it; a disc inside the lips shows teeth and
tongue or the portrait's own open mouth. What the pose uncovers beyond the grid shows a piece of
another portrait.

Result: shards of ``--shard-size`` pictures, ``NAME_images.npy`` uint8 (n, 224, 224, 3) BGR and
``NAME_params.npy`` float32 (n, 12 + S + E) with the camera in pixels of the picture (image frame),
the landmarks' region being the middle 132 pixels. Shards that exist are kept, so an interrupted run
goes on where it stopped; ``settings.json`` says what they depend on beside their numbers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from donor import Donor, looked_up
from face import CAMERA, REGION_SCALE, Array, Morphable
from numpy.typing import NDArray

from threedfa import ops

Image = NDArray[np.uint8]
Loop = NDArray[np.int64]

CROP, REGION = 224, 132  # pixels: the pictures and the landmarks' region in their middle
OVERSAMPLING = 1.5
VARIANTS = 8  # of one portrait in a row
ALIKE = np.deg2rad(12)  # yaw of two portraits of which one can show a part of the other
DONATED = 0.6  # of the portraits to train on get a part of another's face
GRID = 32  # cells of the background across the portrait
OPEN_MOUTH_CM = 0.35  # from here the portrait shows its own mouth inside
ATLAS = 64  # pixels, side of the drawn mouth inside
NEAR_CM = 2.0  # from the teacher's points; farther vertices keep their places
# Of the teacher's points: the eyes' outlines, right eye first, corners at 0 and 8.
OUTLINES = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
    (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249),
)
LASHES = 0.12  # of an eye's width: how far around it the skin takes its place on the lids
CLOSING = 0.15  # from there on a lid's own pixels do not do: they hold lashes and what it misses
OWN_SHAPE = 0.3  # of the renders to train on show their portrait's own shape
MOST_MIXED = np.pi / 3  # of another's; at a quarter of a circle nothing is left of the own
SHUT, NARROW = 0.12, 0.16  # height of an eye / its width; below, no iris can be shown
# Portraits in dark or mirroring glasses. Looked through by hand, with the help of a classifier.
COVERED_EYES = frozenset(Path(__file__).with_name("covered_eyes.txt").read_text().split())


def rotation(yaw: float, pitch: float, roll: float) -> Array:
    """Radians to object-to-camera axes (y up): yaw first, then pitch, then in the image plane.

    yaw > 0 turns the nose to the image's right, pitch > 0 up, roll > 0 clockwise.
    """
    (cy, cx, cz), (sy, sx, sz) = (f([yaw, pitch, roll]) for f in (np.cos, np.sin))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    about_z = np.array([[cz, sz, 0], [-sz, cz, 0], [0, 0, 1]])
    return (about_z @ about_x @ about_y).astype(np.float32)


def angles(turn: Array) -> tuple[float, float, float]:
    """Inverse of :func:`rotation`."""
    yaw = np.arctan2(-turn[2, 0], turn[2, 2])
    pitch = np.arcsin(np.clip(-turn[2, 1], -1, 1))
    roll = np.arctan2(turn[0, 1], turn[1, 1])
    return float(yaw), float(pitch), float(roll)


@dataclass(frozen=True)
class Topology:
    """Openings of the mesh as loops of vertices, and the eyeballs' vertices; right eye first.

    ``spread`` (V, 468) carries values at the teacher's points to all vertices.
    """

    mouth: Loop
    eyes: tuple[Loop, Loop]
    eyeballs: tuple[Loop, Loop]
    spread: Array

    @staticmethod
    def of(model: Morphable) -> Topology:
        """Find the openings nearest to the inner lips and the lids."""
        points = model.points68.of(model.mean)
        loops = [loop for loop in boundary_loops(model.triangles) if len(loop) > 12]

        def nearest(part: slice) -> Loop:
            middle = points[part].mean(0)
            return min(loops, key=lambda lp: np.abs(model.mean[lp].mean(0) - middle)[:2].sum())

        right, left = (
            np.flatnonzero(model.region == model.region_names.index(f"{side} eyeball"))
            for side in ("right", "left")
        )
        return Topology(
            mouth=nearest(slice(60, 68)),
            eyes=(nearest(slice(36, 42)), nearest(slice(42, 48))),
            eyeballs=(right, left),
            spread=interpolation(model.points468.of(model.mean), model.mean),
        )


def eye_openness(points: Array) -> float:
    """Height of the eyes / their width, the mean of both, from the teacher's points (468, 2)."""
    found = []
    for outline in OUTLINES:
        ring = points[list(outline)]
        heights = np.linalg.norm(ring[3:6] - ring[13:10:-1], axis=1)
        found.append(heights.mean() / np.linalg.norm(ring[0] - ring[8]))
    return float(np.mean(found))


def without_eyes(portrait: Image, points: Array) -> Image:
    """The portrait with skin in place of eyes and lashes: what lies below them, mirrored upwards.

    What lies above would not do: often that is a brow or its shadow.
    """
    result = portrait.astype(np.float32)
    y, x = np.mgrid[: portrait.shape[0], : portrait.shape[1]].astype(np.float32)
    for outline in OUTLINES:
        ring = points[list(outline)].astype(np.float32)
        across = ring[8] - ring[0]
        width = float(np.linalg.norm(across))
        down = np.array([-across[1], across[0]]) / width
        down *= np.sign(down[1]) or 1.0
        lowest = float((ring @ down).max()) + LASHES * width
        beyond = 2 * np.minimum(lowest - (x * down[0] + y * down[1]), 0.7 * width)
        skin = cv2.remap(
            portrait,
            (x + beyond * down[0]).astype(np.float32),
            (y + beyond * down[1]).astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        mask = np.zeros(portrait.shape[:2], np.float32)
        shape = [np.rint(ring).astype(np.int32)]
        cv2.fillPoly(mask, shape, 1.0)
        cv2.polylines(mask, shape, True, 1.0, 2 * max(1, round(LASHES * width)) + 1)
        mask = cv2.GaussianBlur(mask, (0, 0), 0.4 * LASHES * width)[..., None]
        result += mask * (skin - result)
    return result.astype(np.uint8)


def interpolation(known: Array, wanted: Array) -> Array:
    """(N, L) matrix from values at (L, 3) points to values at (N, 3) points, centimetres.

    Linear radial basis functions with a constant, a little smoothed; away from the known points
    they fall to zero.
    """
    count = len(known)
    system = np.ones((count + 1, count + 1))
    system[:count, :count] = -np.linalg.norm(known[:, None] - known[None], axis=2)
    system[:count, :count] += 0.02 * np.eye(count)
    system[count, count] = 0
    distance = np.linalg.norm(wanted[:, None] - known[None], axis=2)
    kernel = np.column_stack([-distance, np.ones(len(wanted))])
    matrix = np.linalg.solve(system, kernel.T).T[:, :count]
    fall = np.clip(2 - distance.min(1) / NEAR_CM, 0, 1)
    return (matrix * fall[:, None]).astype(np.float32)


def boundary_loops(triangles: NDArray[np.int32]) -> list[Loop]:
    """Loops of edges that belong to one triangle only."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    unique, count = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
    neighbours: dict[int, list[int]] = {}
    for a, b in unique[count == 1].tolist():
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    loops, seen = [], set()
    for start in neighbours:
        if start in seen:
            continue
        loop = [start]
        seen.add(start)
        while rest := [v for v in neighbours[loop[-1]] if v not in seen]:
            loop.append(rest[0])
            seen.add(rest[0])
        loops.append(np.array(loop))
    return loops


class Head:
    """A portrait turned into a textured head.

    Args:
        model: the face model.
        topology: its openings.
        portrait: uint8 (H, W, 3) BGR.
        params: fitted to it, camera in its pixels.
        points: (468, 2) the teacher's, in its pixels.
        rng: for how dark the lashes are.

    Attributes:
        coefficients: (S + E,) of the portrait.
        eyes_stay: whether its eyes are so narrow that nothing but their own state can be shown.
    """

    def __init__(
        self,
        model: Morphable,
        topology: Topology,
        portrait: Image,
        params: Array,
        points: Array,
        rng: np.random.Generator,
    ) -> None:
        self.model, self.topology = model, topology
        camera = params[:CAMERA].reshape(3, 4).astype(np.float32)
        self.coefficients = params[CAMERA:].copy()
        openness = eye_openness(points)
        self.eyes_stay = openness < NARROW
        if openness < SHUT:
            for name in ("eyeBlinkLeft", "eyeBlinkRight"):
                self.coefficients[model.shape_count + model.expression_index(name)] = 1
        self.vertices = model.vertices(self.coefficients)
        side = region_side(camera, model.points68.of(self.vertices))[0]
        # Not much finer than the result, or sampling would alias.
        shrink = min(1.0, REGION * OVERSAMPLING * 1.25 / side)
        if shrink < 1:
            portrait = cv2.resize(
                portrait, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA
            )
            camera = camera * shrink
            camera[:2, 3] += (shrink - 1) / 2  # pixel centres
            points = points * shrink + (shrink - 1) / 2
        pad = int(0.35 * max(portrait.shape[:2]))
        self.texture = cv2.copyMakeBorder(portrait, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
        points = points + pad
        camera[:2, 3] += pad
        self.pixels_per_cm = float(np.linalg.norm(camera[2, :3]))
        self.turn = camera[:, :3] / self.pixels_per_cm * np.array([[1], [-1], [1]], np.float32)
        self.offset = camera[:2, 3]
        missed = points - self._project(model.points468.of(self.vertices))
        self.places = self._project(self.vertices) + topology.spread @ missed
        self._tame_eyeballs()
        self.lashes = self._lashes(rng)
        self.grid, self.grid_places, self.grid_triangles = self._background()
        self.mouth_open = self._mouth_height(self.vertices) > OPEN_MOUTH_CM
        # Beside the portrait the one that the skin shows while lids close.
        self.skin_offset = self.texture.shape[1]
        self.texture = np.hstack([self.texture, without_eyes(self.texture, points)])

    def _project(self, points: Array) -> Array:
        """(N, 3) in object space to (N, 2) pixels of the texture."""
        flat = self.pixels_per_cm * (points @ self.turn[:2].T)
        return (flat * [1, -1] + self.offset).astype(np.float32)

    def _mouth_height(self, vertices: Array) -> float:
        lips = self.model.points68.of(vertices)[[62, 66]]
        return float(np.linalg.norm(lips[0] - lips[1]))

    def _tame_eyeballs(self) -> None:
        """Let hidden parts of the eyeballs take their colour from the part that is seen."""
        for loop, ball in zip(self.topology.eyes, self.topology.eyeballs, strict=True):
            rim = self.places[loop]
            middle = (rim.min(0) + rim.max(0)) / 2
            half = np.maximum(np.ptp(rim, axis=0) / 2, 0.5) * [0.85, 0.75]
            away = self.places[ball] - middle
            reach = np.sqrt(((away / half) ** 2).sum(1, keepdims=True))
            self.places[ball] = middle + away / np.maximum(reach, 1)

    def _lashes(self, rng: np.random.Generator) -> Array:
        """(V,) times the brightness of each vertex: less than 1 on the edges of the lids."""
        result = np.ones(len(self.vertices), np.float32)
        upper, lower = rng.uniform(0.35, 0.9), rng.uniform(0.6, 1)
        for loop in self.topology.eyes:
            heights = self.model.mean[loop, 1]
            result[loop] = np.where(heights > heights.mean(), upper, lower)
        return result

    def closes(self, coefficients: Array) -> bool:
        """Whether a lid covers more of an eye than in the portrait."""
        places = [
            self.model.shape_count + self.model.expression_index(f"eye{name}{side}")
            for name in ("Blink", "Squint")
            for side in ("Left", "Right")
        ]
        return bool((coefficients[places] > self.coefficients[places] + CLOSING).any())

    def places_for(self, coefficients: Array) -> Array:
        """(V, 2) where each vertex takes its colour in the texture."""
        places = self.places.copy()
        if self.closes(coefficients):
            skin = np.ones(len(places), bool)
            skin[np.concatenate(self.topology.eyeballs)] = False
            places[skin, 0] += self.skin_offset
        return places

    def _background(self) -> tuple[Array, Array, Array]:
        """A grid over the portrait, as deep as the head's outline and falling away from it."""
        height, width = self.texture.shape[:2]
        step = max(height, width) / GRID
        x, y = np.meshgrid(np.arange(0, width + step, step), np.arange(0, height + step, step))
        places = np.stack([x.ravel(), y.ravel()], 1).astype(np.float32)
        hull = cv2.convexHull(self.places, returnPoints=False).ravel()
        outline = self.places[hull]
        depth = (self.vertices @ self.turn[2])[hull]
        following, following_depth = np.roll(outline, -1, 0), np.roll(depth, -1)
        parts = (0, 1 / 3, 2 / 3)
        rim = np.concatenate([outline + k * (following - outline) for k in parts])
        rim_depth = np.concatenate([depth + k * (following_depth - depth) for k in parts])
        squared = ((places[:, None] - rim[None]) ** 2).sum(2) + 4
        weight = squared**-1.5
        z = (weight @ rim_depth) / weight.sum(1)
        distance = np.sqrt(squared.min(1)) / self.pixels_per_cm
        contour = outline.reshape(-1, 1, 2)
        inside = np.array([cv2.pointPolygonTest(contour, p.tolist(), False) > 0 for p in places])
        z -= np.where(inside, 2.0, 0.3 + 0.25 * np.minimum(distance, 8))
        flat = (places - self.offset) / self.pixels_per_cm * [1, -1]
        points = np.column_stack([flat, z]) @ self.turn
        rows, columns = x.shape
        ids = np.arange(rows * columns).reshape(rows, columns)
        a, b, c, d = (
            part.ravel() for part in (ids[:-1, :-1], ids[:-1, 1:], ids[1:, 1:], ids[1:, :-1])
        )
        triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
        return points.astype(np.float32), places, triangles

    def _mouth_plug(self, vertices: Array) -> tuple[Array, Array]:
        """Ring and middle of a disc inside the lips: points and places in texture and atlas."""
        loop = self.topology.mouth
        ring = vertices[loop]
        middle = ring.mean(0)
        points = np.vstack([ring - [0, 0, 0.1], middle - [0, 0, 0.3]])
        if self.mouth_open:
            places = self.places[loop]
            return points, np.vstack([places, places.mean(0)])
        flat = (ring - middle)[:, :2]
        half = np.array([np.ptp(flat[:, 0]) / 2, max(np.ptp(flat[:, 1]) / 2, 0.3)])
        corner = np.array([self.texture.shape[1] + ATLAS / 2, ATLAS / 2])
        places = corner + np.clip(flat / half, -1, 1) * [1, -1] * (ATLAS / 2 - 3)
        return points, np.vstack([places, corner])

    def render(
        self,
        coefficients: Array,
        turn: Array,
        light: Array,
        behind: Image,
        rng: np.random.Generator,
        donor: Donor | None = None,
    ) -> tuple[Image, Array]:
        """Draw the head.

        Args:
            coefficients: (S + E,) of the face to draw.
            turn: (3, 3) object to camera axes.
            light: (3,) direction in camera axes; its length is the depth of shading.
            behind: uint8 (CROP, CROP, 3), seen where nothing is drawn.
            rng: for the inside of the mouth.
            donor: whose face to show in a part of this one.

        Returns:
            uint8 (CROP, CROP, 3) and the (3, 4) camera in its pixels.
        """
        model = self.model
        vertices = model.vertices(coefficients)
        camera = np.zeros((3, 4), np.float32)
        camera[:, :3] = turn * np.array([[1], [-1], [1]], np.float32)
        side, middle = region_side(camera, model.points68.of(vertices))
        camera *= REGION / side
        camera[:2, 3] = (CROP - 1) / 2 - middle * (REGION / side)

        plug, plug_places = self._mouth_plug(vertices)
        ring = len(plug) - 1
        fan = np.stack([np.arange(ring), np.roll(np.arange(ring), -1), np.full(ring, ring)], 1)
        first_grid, first_plug = len(vertices), len(vertices) + len(self.grid)
        triangles = np.concatenate(
            [model.triangles, first_grid + self.grid_triangles, first_plug + fan]
        ).astype(np.int32)
        points = np.concatenate([vertices, self.grid, plug]).astype(np.float32)
        shade = np.ones((len(points), 1), np.float32)
        normals = ops.vertex_normals(vertices, model.triangles)
        brightness = np.exp(normals @ (turn.T @ light))
        facing = normals @ turn[2] > 0.2
        lit = np.clip(brightness / brightness[facing].mean(), 0.35, 1.7)
        if self.closes(coefficients):
            lit *= self.lashes
        places = [self.places_for(coefficients), self.grid_places, plug_places]
        shade[: len(vertices), 0] = lit
        size = int(CROP * OVERSAMPLING)
        pixels = points @ camera[:, :3].T + camera[:, 3]
        pixels[:, :2] = (pixels[:, :2] + 0.5) * OVERSAMPLING - 0.5
        attributes = [np.concatenate(places), shade]
        if donor is not None:
            attributes.append(np.zeros((len(points), 3), np.float32))
            attributes[-1][: len(vertices)] = donor.attributes(coefficients)
        drawn = ops.rasterize(pixels, triangles, size, size, attributes=np.column_stack(attributes))
        assert drawn.image is not None
        image = looked_up(self._with_atlas(rng), drawn.image[..., :2])
        if donor is not None:
            image = donor.shown(image, drawn.image[..., 3:])
        image *= drawn.image[..., 2:3]
        empty = drawn.triangle < 0
        image[empty] = cv2.resize(behind, (size, size))[empty]
        image = cv2.resize(image, (CROP, CROP), interpolation=cv2.INTER_AREA)
        return np.clip(image, 0, 255).astype(np.uint8), camera

    def _with_atlas(self, rng: np.random.Generator) -> Image:
        """The texture with a drawn mouth inside to the right of it."""
        if self.mouth_open:
            return self.texture
        atlas = mouth_inside(float(np.clip(self.texture.mean() / 110, 0.4, 1.2)), rng)
        strip = np.zeros((self.texture.shape[0], ATLAS, 3), np.uint8)
        strip[:ATLAS] = atlas
        return np.hstack([self.texture, strip])


def region_side(camera: Array, points: Array) -> tuple[float, Array]:
    """Side and middle of the region that the landmarks (68, 3) give, pixels."""
    flat = points @ camera[:2, :3].T + camera[:2, 3]
    low, high = flat.min(0), flat.max(0)
    return float(REGION_SCALE * (high - low).max()), (low + high) / 2


def mouth_inside(brightness: float, rng: np.random.Generator) -> Image:
    """Something like teeth and tongue in the dark, (ATLAS, ATLAS, 3)."""
    dark = np.array([rng.uniform(10, 45), rng.uniform(8, 35), rng.uniform(30, 90)])
    picture = np.ones((ATLAS, ATLAS, 3)) * dark * np.linspace(0.6, 1, ATLAS)[:, None, None]
    teeth = np.array([rng.uniform(150, 215), rng.uniform(165, 225), rng.uniform(175, 235)])
    arch = np.cos(np.linspace(-1.3, 1.3, ATLAS))[None, :, None]
    if rng.random() < 0.7:
        height = int(rng.integers(10, 26))
        picture[:height] = teeth * (0.7 + 0.3 * arch)
        picture[:height, 4::9] *= 0.8
    if rng.random() < 0.3:
        picture[-int(rng.integers(6, 14)) :] = teeth * 0.8 * (0.6 + 0.4 * arch)
    if rng.random() < 0.5:
        center = (ATLAS // 2, int(rng.integers(46, 60)))
        cv2.ellipse(picture, center, (20, 12), 0, 0, 360, (90.0, 90.0, 170.0), -1)
    return cv2.GaussianBlur(np.clip(picture * brightness, 0, 255), (3, 3), 0).astype(np.uint8)


class Director:
    """Draws shapes, poses, expressions and lights.

    Args:
        model: the face model.
        pool: (n, S + E) coefficients of fitted portraits, the shapes and expressions to start from.
    """

    def __init__(self, model: Morphable, pool: Array) -> None:
        self.model = model
        self.shapes, self.pool = np.split(pool, [model.shape_count], axis=1)
        self.mean_shape = self.shapes.mean(0)

    def shape(self, own: Array, rng: np.random.Generator) -> Array:
        """(S,) the portrait's own shape or, mostly, one between it and another's.

        Portraits are few: a network can learn by heart how high the brows of each are at rest.
        Going along an arc about the mean keeps the variance of all shapes as it is.
        """
        if rng.random() < OWN_SHAPE:
            return own
        other = self.shapes[rng.integers(len(self.shapes))]
        way = rng.uniform(0, MOST_MIXED)
        mixed: Array = np.cos(way) * (own - self.mean_shape) + np.sin(way) * (
            other - self.mean_shape
        )
        return self.mean_shape + mixed

    def pose(self, turn: Array, rng: np.random.Generator) -> Array:
        """A pose that mostly shows what the portrait's own pose shows."""
        yaw, pitch, _ = angles(turn)
        degree = np.pi / 180
        u = rng.random()
        if u < 0.45:
            yaw += rng.normal(0, 12 * degree)
        else:
            side = np.sign(yaw) if abs(yaw) > 8 * degree else rng.choice([-1, 1])
            yaw = side * (rng.uniform(0, 90) if u < 0.8 else rng.uniform(25, 70)) * degree
        pitch = float(np.clip(pitch + rng.normal(0, 13 * degree), -40 * degree, 40 * degree))
        roll = rng.normal(0, 12) if rng.random() < 0.7 else rng.uniform(-50, 50)
        return rotation(float(yaw), pitch, float(roll * degree))

    def expression(self, own: Array, covered: bool, rng: np.random.Generator) -> Array:
        """(E,) weights, from the portrait's own to strong and rare ones; where the eyes are covered
        and nobody could tell what they do, their own."""
        value = own.copy()
        names = self.model.expression_names
        index = {name: i for i, name in enumerate(names)}

        def both(name: str, strength: float) -> None:
            for side in ("Left", "Right"):
                value[index[name + side]] = np.clip(strength + rng.normal(0, 0.1), 0, 1)

        u = rng.random()
        if u >= 0.2:
            other = self.pool[rng.integers(len(self.pool))]
            mix = 0.0 if u < 0.4 else rng.random()
            value = mix * own + (1 - mix) * other
        if u >= 0.4:
            if rng.random() < 0.4:
                both("mouthSmile", rng.uniform(0.3, 1))
                for side in ("Left", "Right"):
                    value[index["mouthFrown" + side]] *= 0.2
            if rng.random() < 0.45:
                value[index["jawOpen"]] = rng.beta(1.2, 2.0)
            for name, chance in SINGLE:
                if rng.random() < chance:
                    value[index[name]] = rng.uniform(0.2, 0.9)
            for name, chance in PAIRED:
                if rng.random() < chance:
                    both(name, rng.uniform(0.2, 1))
                    if rng.random() < 0.25:  # one side only
                        value[index[name + str(rng.choice(["Left", "Right"]))]] = 0
            for side in ("Left", "Right"):  # muscles that pull against each other
                value[index["browOuterUp" + side]] *= 1 - value[index["browDown" + side]]
        if rng.random() < 0.35:
            shut = 1.0 if rng.random() < 0.45 else rng.uniform(0.2, 1)
            wink = rng.choice(["Left", "Right"]) if rng.random() < 0.15 else ""
            for side in ("Left", "Right"):
                if side == wink:
                    continue
                value[index["eyeBlink" + side]] = shut
                value[index["eyeWide" + side]] *= 1 - shut
                value[index["eyeSquint" + side]] *= 1 - 0.7 * shut
        if rng.random() < 0.6:
            self._gaze(value, index, rng)
        if covered:
            eyes = [place for name, place in index.items() if name.startswith("eye")]
            value[eyes] = own[eyes]
        return np.clip(value, 0, 1)

    @staticmethod
    def _gaze(value: Array, index: dict[str, int], rng: np.random.Generator) -> None:
        left, up = rng.normal(0, 0.4), rng.normal(0, 0.3)  # to the subject's left
        strengths = {
            "OutLeft": left, "InRight": left, "InLeft": -left, "OutRight": -left,
            "UpLeft": up, "UpRight": up, "DownLeft": -up, "DownRight": -up,
        }  # fmt: skip
        for name, strength in strengths.items():
            value[index["eyeLook" + name]] = np.clip(strength, 0, 1)

    @staticmethod
    def light(rng: np.random.Generator) -> Array:
        """A light's direction, mostly from above and the front, times the depth of shading."""
        direction = rng.normal(0, 1, 3) + [0, 0.4, 0.5]
        depth = abs(rng.normal(0, 0.35)) if rng.random() < 0.8 else rng.uniform(0.4, 0.9)
        return (direction / np.linalg.norm(direction) * depth).astype(np.float32)


SINGLE = (
    ("mouthPucker", 0.12), ("mouthFunnel", 0.12), ("mouthRollLower", 0.08),
    ("mouthRollUpper", 0.08), ("jawLeft", 0.06), ("jawRight", 0.06), ("mouthLeft", 0.06),
    ("mouthRight", 0.06), ("mouthShrugUpper", 0.06), ("browInnerUp", 0.4), ("cheekPuff", 0.05),
)  # fmt: skip
PAIRED = (
    ("browDown", 0.35), ("browOuterUp", 0.35), ("mouthUpperUp", 0.12), ("mouthLowerDown", 0.15),
    ("mouthStretch", 0.08), ("eyeSquint", 0.15), ("noseSneer", 0.1), ("eyeWide", 0.1),
    ("mouthDimple", 0.06), ("mouthFrown", 0.1), ("mouthPress", 0.06), ("cheekSquint", 0.08),
)  # fmt: skip


def shard(number: int, options: argparse.Namespace, heldout: bool) -> None:
    """Render one shard and put it in place."""
    name = f"{'heldout' if heldout else 'train'}_{number:03d}"
    images_path, params_path = (options.out / f"{name}_{kind}.npy" for kind in ("images", "params"))
    if params_path.exists():
        return
    cv2.setNumThreads(1)
    model = Morphable.load(options.model)
    parts = Topology.of(model)
    labels = dict(np.load(options.labels))  # read once: the archive is compressed
    rows = np.flatnonzero(labels["heldout" if heldout else "train"])
    director = Director(model, labels["params"][labels["train"]][:, CAMERA:])
    rng = np.random.default_rng([options.seed, number, int(heldout)])
    images = np.empty((options.shard_size, CROP, CROP, 3), np.uint8)
    params = np.empty((options.shard_size, model.param_count), np.float32)
    behind = np.zeros((CROP, CROP, 3), np.uint8)
    yaws = np.array([angles(object_rotation(params))[0] for params in labels["params"][rows]])

    def textured(row: int) -> tuple[Head, bool, Image]:
        """A portrait's head, whether its eyes show nothing but their own state, the portrait."""
        file = str(labels["image"][row])
        portrait = read_portrait(options.material / file)
        head = Head(model, parts, portrait, labels["params"][row], labels["points"][row], rng)
        return head, file in COVERED_EYES or head.eyes_stay, portrait

    for i in range(options.shard_size):
        if i % VARIANTS == 0:
            place = rng.integers(len(rows))
            head, covered, portrait = textured(rows[place])
            donor = None
            if not heldout and rng.random() < DONATED:
                alike = np.flatnonzero(np.abs(yaws - yaws[place]) < ALIKE)
                other, other_covered, _ = textured(rows[rng.choice(alike)])
                donor = Donor.draw(head, other, covered or other_covered, rng)
        # Held-out faces keep their shapes, to measure on.
        coefficients = head.coefficients.copy()
        if not heldout:
            shape = director.shape(coefficients[: model.shape_count], rng)
            coefficients[: model.shape_count] = shape
        coefficients[model.shape_count :] = director.expression(
            coefficients[model.shape_count :], covered, rng
        )
        images[i], camera = head.render(
            coefficients, director.pose(head.turn, rng), director.light(rng), behind, rng, donor
        )
        params[i] = np.concatenate([camera.ravel(), coefficients])
        if i % VARIANTS == VARIANTS - 1:
            behind = backdrop(portrait, rng)
    options.out.mkdir(parents=True, exist_ok=True)
    for path, array in ((images_path, images), (params_path, params)):
        partial = path.with_name(f".{path.name}")
        np.save(partial, array)
        partial.replace(path)
    print(f"{name}: {len(images)} renders", flush=True)


def keep_settings(options: argparse.Namespace) -> None:
    """Write what the shards depend on beside them.

    Raises:
        SystemExit: if those that are there were made otherwise.
    """
    files = {"labels": options.labels, "model": options.model}
    settings = {
        "seed": options.seed,
        "shard_size": options.shard_size,
        **{name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()},
    }
    path = options.out / "settings.json"
    if not path.exists():
        path.write_text(json.dumps(settings, indent=1) + "\n")
    elif (there := json.loads(path.read_text())) != settings:
        changed = ", ".join(name for name in settings if there.get(name) != settings[name])
        raise SystemExit(
            f"{options.out}: expected renders made with the same settings, found others with "
            f"another {changed}; remove them, or give another folder"
        )


def object_rotation(params: Array) -> Array:
    """(3, 3) rotation, object to camera axes (y up), of a head with its camera into a picture."""
    camera = params[:CAMERA].reshape(3, 4)[:, :3]
    turn = camera / np.linalg.norm(camera, axis=1, keepdims=True)
    result: Array = turn * np.array([[1], [-1], [1]], np.float32)
    return result


def read_portrait(path: Path) -> Image:
    """(H, W, 3) BGR.

    Raises:
        FileNotFoundError: if there is no picture.
    """
    portrait = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if portrait is None:
        raise FileNotFoundError(f"cannot read {path}; unpack the portraits into --material")
    return portrait.astype(np.uint8, copy=False)


def backdrop(portrait: Image, rng: np.random.Generator) -> Image:
    """A piece of a portrait's upper corner, stretched to (CROP, CROP, 3)."""
    side = int(min(portrait.shape[:2]) * rng.uniform(0.12, 0.3))
    left = rng.integers(2) * (portrait.shape[1] - side)
    piece = portrait[:side, left : left + side]
    return cv2.resize(piece, (CROP, CROP), interpolation=cv2.INTER_CUBIC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--material", type=Path, default=Path("../shared/training"))
    parser.add_argument("--model", type=Path, default=Path("weights/default/model.safetensors"))
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=30000, help="renders to train on")
    parser.add_argument("--heldout", type=int, default=1000, help="renders of held-out portraits")
    parser.add_argument("--shard-size", type=int, default=1000, help="both numbers are rounded up")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    keep_settings(options)
    jobs = [(k, True) for k in range(-(-options.heldout // options.shard_size))]
    jobs += [(k, False) for k in range(-(-options.count // options.shard_size))]
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        for job in [pool.apply_async(shard, (k, options, heldout)) for k, heldout in jobs]:
            job.get()


if __name__ == "__main__":
    main()
