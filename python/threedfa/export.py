"""Meshes of faces as files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import ExportError
from .face import Face
from .image import ColorOrder, load_image
from .mesh_files import merge_meshes, to_y_up, write_obj, write_ply
from .rendering import vertex_colors

_WRITERS = {".obj": write_obj, ".ply": write_ply}


def save_mesh(
    path: str | os.PathLike[str],
    image: Any,
    faces: Sequence[Face],
    *,
    color: ColorOrder = "rgb",
) -> None:
    """Write the dense meshes of one image's faces to one file, coloured by the image.

    Coordinates are pixels in right-handed axes: x right, y up (``height - y``), z towards the
    viewer. Each vertex has the colour of the pixel nearest to it.

    Args:
        path: ends in ``.obj`` or ``.ply`` (binary little-endian).
        image: (H, W, 3) uint8 or anything else that :func:`threedfa.image.load_image` takes.
        faces: of this image, at least one.
        color: channel order of ``image`` if it is an array, ``"rgb"`` or ``"bgr"``.

    Raises:
        ImageError: if the image cannot be read or used.
        ExportError: for another suffix, no faces, or a file that cannot be written.
    """
    writer = _WRITERS.get(Path(path).suffix.lower())
    if writer is None:
        raise ExportError(f"{path}: expected a name that ends in {' or '.join(_WRITERS)}")
    if not faces:
        raise ExportError(f"{path}: expected at least one face, got none")
    pixels = load_image(image, color=color)
    vertices, triangles, colors = merge_meshes(
        [
            (
                to_y_up(face.vertices, pixels.shape[0]),
                face.triangles,
                vertex_colors(pixels, face.vertices),
            )
            for face in faces
        ]
    )
    writer(path, vertices, triangles, colors=colors)
