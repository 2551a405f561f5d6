"""The routes of ThreeDFA's server, for its clients."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import numpy as np
from fastapi import APIRouter, Depends, Path, Query
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from .. import compat
from ..face import Face
from .access import Admission
from .answers import ZIP, encode_picture, json_bytes, zip_answer
from .pictures import (
    JSON,
    MULTIPART,
    URLENCODED,
    Upload,
    decode_base64,
    files_in,
    media_type,
    read_form,
    text_in,
    urlencoded_field,
)
from .problems import Problem
from .routes import PROBLEMS
from .service import Named, Options, Scene, service_of

_SCORE: Final = 0.85  # of ThreeDFA's detector
_THRESHOLD: Final = r"^\d{1,6},\d{1,6}$"
_COLOR: Final = "^#?[0-9A-Fa-f]{6}$"

router = APIRouter(
    tags=["ThreeDFA's routes"],
    dependencies=[Depends(Admission(counted=True))],
    default_response_class=Response,
)


@dataclass(frozen=True)
class _Query:
    """What all of the routes take."""

    size_threshold: str
    return_original: bool
    convert_to_int: bool

    def keeps(self, face: Face) -> bool:
        """Whether a face is large enough."""
        least = np.array(self.size_threshold.split(","), np.float32)
        return bool((face.bbox[2:] - face.bbox[:2] >= least).all())


async def _query(
    size_threshold: Annotated[
        str,
        Query(pattern=_THRESHOLD, description="WIDTH,HEIGHT: smaller faces are left out."),
    ] = "64,64",
    return_original: Annotated[
        bool, Query(description="The picture as base64 in original_img.")
    ] = False,
    convert_to_int: Annotated[
        bool, Query(description="Whole pixels; landmarks as (68, 2) instead of (3, 68).")
    ] = False,
) -> _Query:
    return _Query(size_threshold, return_original, convert_to_int)


_LegacyQuery = Annotated[_Query, Depends(_query)]


def _body(field: str, **schema: str) -> dict[str, Any]:
    content = {
        "schema": {
            "type": "object",
            "required": [field],
            "properties": {field: {"type": "string", **schema}},
        }
    }
    return {"requestBody": {"required": True, "content": {MULTIPART: content}}}


_BASE64: Final = "b64_image"
_FILE: Final = _body("bin_image", format="binary")


def _answers(kind: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": "As ThreeDFA's.", "content": {kind: {}}}, **PROBLEMS}


@router.post("/detect", openapi_extra=_FILE, responses=_answers(JSON))
async def detect(request: Request, query: _LegacyQuery) -> Response:
    """Boxes and landmarks of the picture in the field ``bin_image``."""
    upload = await _file(request)
    return await _describe(request, query, upload)


@router.post(
    "/b64/detect",
    openapi_extra=_body(_BASE64, format="byte"),
    responses=_answers(JSON),
)
async def b64_detect(request: Request, query: _LegacyQuery) -> Response:
    """The same of the base64 text in the field ``b64_image``."""
    service, kind = service_of(request), media_type(request)
    if kind == URLENCODED:
        body = await request.body()
        text = await service.in_thread(lambda: urlencoded_field(body, _BASE64))
    elif kind == MULTIPART:
        text = text_in(await read_form(request, service.limits), _BASE64)
    else:
        raise Problem(415, f"expected a body of {MULTIPART} or {URLENCODED}, got {kind or 'none'}")
    upload = Upload(None, await service.in_thread(lambda: decode_base64(text)))
    return await _describe(request, query, upload)


@router.post("/detect/crop", openapi_extra=_FILE, responses=_answers(ZIP))
async def crop(request: Request, query: _LegacyQuery) -> Response:
    """The boxes of the picture, cut out: a zip of ``0.png``, ``1.png``, …"""

    def cut(scene: Scene) -> Iterator[Named]:
        for i, face in enumerate(scene.faces):
            yield encode_picture(str(i), _cut(scene.image, face), "png")

    upload = await _file(request)
    return await _answer(request, query, upload, cut, lambda files: zip_answer(files, "crops"))


@router.post("/detect/overlay", openapi_extra=_FILE, responses=_answers("image/png"))
async def overlay(
    request: Request,
    query: _LegacyQuery,
    dot_color: Annotated[str, Query(pattern=_COLOR)] = "#00FF80",
) -> Response:
    """The picture with the landmarks drawn over it."""
    color = bytes.fromhex(dot_color.lstrip("#"))

    def draw(scene: Scene) -> NDArray[np.uint8]:
        drawn = scene.image
        for face in scene.faces:
            drawn = compat.FaceUtils.cv_draw_landmark(
                drawn, face.landmarks.T, dot_color=(color[0], color[1], color[2])
            )
        return drawn

    return await _drawn(request, query, draw)


@router.post("/detect/dense/{mode}", openapi_extra=_FILE, responses=_answers("image/png"))
async def dense(
    request: Request,
    query: _LegacyQuery,
    mode: Annotated[Literal["base", "depth", "pncc", "uvtex"], Path()],
) -> Response:
    """The picture with lit meshes, depth or PNCC over it; or textures side by side."""
    model = service_of(request).analyzer(None).model
    if mode == "uvtex" and model.uv is None:
        raise Problem(422, "expected a pack whose model has texture coordinates")

    def draw(scene: Scene) -> NDArray[np.uint8]:
        meshes = [face.vertices.T for face in scene.faces]
        triangles = np.ascontiguousarray(model.triangles[:, ::-1])  # ThreeDFA's are clockwise
        if mode == "uvtex" and not meshes:
            raise Problem(422, "expected a picture with a face, found none")
        painters: dict[str, Callable[[], NDArray[np.uint8]]] = {
            "base": lambda: compat.render(scene.image, meshes, triangles),
            "depth": lambda: compat.depth(scene.image, meshes, triangles),
            "pncc": lambda: compat.pncc(scene.image, meshes, triangles, model=model),
            "uvtex": lambda: compat.uv_tex(scene.image, meshes, triangles, model=model),
        }
        return painters[mode]()

    return await _drawn(request, query, draw)


async def _file(request: Request) -> Upload:
    kind = media_type(request)
    if kind != MULTIPART:
        raise Problem(415, f"expected a body of {MULTIPART}, got {kind or 'none'}")
    uploads = await files_in(await read_form(request, service_of(request).limits), "bin_image")
    if len(uploads) > 1:
        raise Problem(400, f"bin_image: expected one picture, got {len(uploads)}")
    return uploads[0]


async def _answer(
    request: Request,
    query: _Query,
    upload: Upload,
    make: Callable[[Scene], Iterable[Named]],
    answer: Callable[[Sequence[Named]], Response],
) -> Response:
    """Made of the picture and those of its faces that ThreeDFA would have kept."""

    def make_of_kept(number: int, scene: Scene) -> Iterable[Named]:
        kept = [face for face in scene.faces if query.keeps(face)]
        return make(Scene(scene.name, scene.image, kept))

    options = Options(score_threshold=_SCORE)
    return await service_of(request).analyze(request, [upload], options, make_of_kept, answer)


async def _drawn(
    request: Request, query: _Query, draw: Callable[[Scene], NDArray[np.uint8]]
) -> Response:
    return await _answer(
        request,
        query,
        await _file(request),
        lambda scene: [encode_picture("overlay", draw(scene), "png")],
        lambda files: Response(files[0][1], media_type="image/png"),
    )


async def _describe(request: Request, query: _Query, upload: Upload) -> Response:
    def describe(scene: Scene) -> list[Named]:
        original = base64.b64encode(upload.content).decode() if query.return_original else None
        document = {
            "timestamp": int(time.time()),
            "faces_detected": len(scene.faces),
            "bounding_boxes": [
                (face.bbox.astype(int) if query.convert_to_int else face.bbox).tolist()
                for face in scene.faces
            ],
            "landmarks": [_landmarks(face, query.convert_to_int) for face in scene.faces],
            "original_img": original,
            "filename": upload.name,
        }
        return [("faces.json", json_bytes(document))]

    return await _answer(
        request,
        query,
        upload,
        describe,
        lambda files: Response(files[0][1], media_type=JSON),
    )


def _landmarks(face: Face, whole: bool) -> Sequence[Any]:
    """ThreeDFA's shapes: whole pixels (68, 2), or (3, 68) with z from the farthest landmark."""
    if whole:
        pixels: list[Any] = np.rint(face.landmarks[:, :2]).astype(int).tolist()
        return pixels
    points = face.landmarks - np.array([0, 0, face.landmarks[:, 2].min()], np.float32)
    rows: list[Any] = points.T.tolist()
    return rows


def _cut(image: NDArray[np.uint8], face: Face) -> NDArray[np.uint8]:
    """The part of the picture in a face's box; at least one pixel of it."""
    height, width = image.shape[:2]
    left, top, right, bottom = face.bbox.astype(int).tolist()
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    return image[top : max(bottom, top + 1), left : max(right, left + 1)]
