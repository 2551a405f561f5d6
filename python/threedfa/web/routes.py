"""The API under ``/v1``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

from fastapi import APIRouter, Depends, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from .. import __version__
from ..export import DEFAULT_TEXTURE_SIZE, Space, encode_mesh
from ..landmark_sets import table_named
from ..rendering import Mode, render
from ..textures import uv_texture
from .access import Admission
from .answers import (
    BINARY,
    MESHES,
    NPZ,
    ZIP,
    MeshFormat,
    PictureFormat,
    binary_answer,
    boxes_json,
    encode_picture,
    faces_binary,
    faces_json,
    faces_npz,
    file_answer,
    json_answer,
    json_list_answer,
    picture_type,
    zip_answer,
)
from .metrics import CONTENT_TYPE
from .pictures import JSON, MULTIPART
from .problems import Problem
from .service import Named, Options, OptionsQuery, Scene, lease_of, service_of

_Fill: TypeAlias = Literal["mirror", "photo"]  # "transparent" would need a fourth channel

_READ: Final = ["GET", "HEAD"]
_LARGEST_TEXTURE: Final = 2048
_LARGEST_CROP: Final = 1024

_PICTURES: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "One or several pictures (PNG, JPEG, WebP, BMP, TIFF, GIF or PNM files).",
        "content": {
            MULTIPART: {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            },
            JSON: {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "byte"},
                        }
                    },
                },
                "example": {
                    "images": ["iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4n"]
                },
            },
        },
    }
}
_PROBLEM: Final = {
    "application/problem+json": {
        "schema": {
            "type": "object",
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
            },
        },
        "example": {
            "type": "about:blank",
            "title": "Unprocessable Content",
            "status": 422,
            "detail": "picture 0: cannot read image data of 12 bytes: not an image, damaged, ...",
        },
    }
}
PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"description": "A malformed body", "content": _PROBLEM},
    401: {"description": "No API key, where one is needed", "content": _PROBLEM},
    408: {"description": "A body that does not come to its end in time", "content": _PROBLEM},
    413: {"description": "Too many bytes, pixels or pictures", "content": _PROBLEM},
    415: {"description": "A body of another kind", "content": _PROBLEM},
    422: {"description": "No picture, or an option that cannot be", "content": _PROBLEM},
    429: {"description": "Too many requests of this client at once", "content": _PROBLEM},
    503: {"description": "A full queue, or no answer in time", "content": _PROBLEM},
}
_BOXES_EXAMPLE: Final = [
    {
        "schema_version": 1,
        "image": {"name": "photo.jpg", "height": 480, "width": 640},
        "faces": [{"bbox": [210.5, 102.25, 330.0, 251.5], "score": 0.99}],
    }
]
_FACES_EXAMPLE: Final = [
    {
        "schema_version": 1,
        "image": {"name": "photo.jpg", "height": 480, "width": 640},
        "faces": [
            {
                "bbox": [210.5, 102.25, 330.0, 251.5],
                "score": 0.99,
                "roi": [171.0, 86.0, 383.0, 298.0],
                "pose": {"yaw": -12.5, "pitch": 3.25, "roll": 1.0, "scale": 0.0004},
                "landmarks": [[214.3, 160.1, -55.0]],
                "blendshapes": {"jawOpen": 0.12},
            }
        ],
    }
]

health = APIRouter(prefix="/v1", tags=["server"])
router = APIRouter(prefix="/v1")
_admitted = [Depends(Admission(counted=False))]

_FaceQuery = Annotated[
    int | None, Query(ge=0, description="The number of one face; all if not given.")
]
_LandmarksQuery = Annotated[
    str | None, Query(description="Another set of landmarks, such as mediapipe468.")
]
_FormatQuery = Annotated[PictureFormat, Query(description="Of the picture.")]


def _answers(description: str, *kinds: str, example: Any = None) -> dict[int | str, Any]:
    """What a route's answers look like, for the schema."""
    content: dict[str, Any] = {kind: {} for kind in kinds}
    if example is not None:
        content[kinds[0]] = {"example": example}
    return {200: {"description": description, "content": content}, **PROBLEMS}


_BYTES: Final[dict[str, Any]] = {
    "response_class": Response,
    "openapi_extra": _PICTURES,
    "dependencies": [Depends(Admission(counted=True))],
}


@router.post(
    "/detect",
    tags=["faces"],
    responses=_answers("Boxes and scores of each picture.", JSON, example=_BOXES_EXAMPLE),
    **_BYTES,
)
async def detect(request: Request, options: OptionsQuery) -> Response:
    """Find faces: boxes and scores, best first."""
    service = service_of(request)
    return await service.detect(request, await service.uploads(request), options, boxes_json)


@router.post(
    "/align",
    tags=["faces"],
    responses=_answers(
        "The faces of each picture.", JSON, NPZ, BINARY, ZIP, example=_FACES_EXAMPLE
    ),
    **_BYTES,
)
async def align(
    request: Request,
    options: OptionsQuery,
    landmarks: _LandmarksQuery = None,
    vertices: Annotated[bool, Query(description="Dense vertices in the JSON, too.")] = False,
    refused: Annotated[
        bool, Query(description="In the JSON, too: what was found and is no face.")
    ] = False,
    format: Annotated[
        Literal["json", "npz", "binary"],
        Query(
            description="json: the document of `threedfa image --json`; npz: arrays, a file for "
            "each picture; binary: dense vertices of all faces, float32 little-endian, their shape "
            "in the header X-Threedfa-Shape, faces of each picture in X-Threedfa-Faces.",
        ),
    ] = "json",
) -> Response:
    """Find and align faces: boxes, landmarks, pose, parameters, blend shapes, dense vertices."""
    sets = _landmark_sets(request, options, landmarks)
    makers: dict[str, Callable[[int, Scene], Named]] = {
        "json": lambda number, scene: faces_json(number, scene, sets, vertices, refused),
        "npz": lambda number, scene: faces_npz(number, scene, sets),
        "binary": faces_binary,
    }
    count = len(service_of(request).analyzer(options.pack).model.mean)
    answers: dict[str, Callable[[Sequence[Named]], Response]] = {
        "json": json_list_answer,
        "npz": lambda files: file_answer(files, NPZ, "faces"),
        "binary": lambda files: binary_answer(files, count),
    }
    make = makers[format]
    return await _files(
        request, options, lambda number, scene: [make(number, scene)], answers[format]
    )


@router.post(
    "/render/{mode}",
    tags=["pictures"],
    responses=_answers(
        "The picture with its faces drawn over it; of several pictures a zip.",
        *("image/png", "image/jpeg", "image/webp", ZIP),
    ),
    **_BYTES,
)
async def render_faces(
    request: Request,
    options: OptionsQuery,
    mode: Annotated[Mode, Path(description="What to draw.")],
    alpha: Annotated[float | None, Query(ge=0, le=1, description="Opacity.")] = None,
    landmarks: _LandmarksQuery = None,
    format: _FormatQuery = "png",
) -> Response:
    """Draw the faces over their picture."""
    landmark_set = (*_landmark_sets(request, options, landmarks), "ibug68")[0]

    def draw(number: int, scene: Scene) -> list[Named]:
        drawn = render(scene.image, scene.faces, mode, alpha=alpha, landmark_set=landmark_set)
        return [encode_picture(str(number), drawn, format)]

    return await _files(
        request,
        options,
        draw,
        lambda files: file_answer(files, picture_type(format), mode),
    )


@router.post(
    "/texture",
    tags=["pictures"],
    responses=_answers(
        "The texture of one face; of several pictures a zip.",
        *("image/png", "image/jpeg", "image/webp", ZIP),
    ),
    **_BYTES,
)
async def texture(
    request: Request,
    options: OptionsQuery,
    face: Annotated[int, Query(ge=0, description="The number of the face.")] = 0,
    size: Annotated[int, Query(ge=1, le=_LARGEST_TEXTURE)] = DEFAULT_TEXTURE_SIZE,
    fill: Annotated[_Fill, Query(description="What to show that the picture does not.")] = "mirror",
    format: _FormatQuery = "png",
) -> Response:
    """The skin of a face, laid out by the model's texture coordinates."""

    def lay_out(number: int, scene: Scene) -> list[Named]:
        skin = uv_texture(scene.image, _chosen(scene, face, number)[0], size=size, fill=fill)
        return [encode_picture(str(number), skin, format)]

    if service_of(request).analyzer(options.pack).model.uv is None:
        raise Problem(422, "expected a pack whose model has texture coordinates")
    return await _files(
        request,
        options,
        lay_out,
        lambda files: file_answer(files, picture_type(format), "texture"),
    )


@router.post(
    "/mesh",
    tags=["meshes"],
    responses=_answers("The mesh; OBJ and several pictures as a zip.", *MESHES.values()),
    **_BYTES,
)
async def mesh(
    request: Request,
    options: OptionsQuery,
    format: Annotated[
        MeshFormat,
        Query(description="glb has texture and expressions as morph targets; obj comes as a zip."),
    ] = "glb",
    face: _FaceQuery = None,
    space: Annotated[
        Space, Query(description="Where heads stand: as in the picture, or at the origin.")
    ] = "image",
    texture_size: Annotated[
        int | None,
        Query(
            ge=0,
            le=_LARGEST_TEXTURE,
            description=f"0: colours of vertices, not a texture. If not given: "
            f"{DEFAULT_TEXTURE_SIZE}, or 0 where the pack's model has no texture coordinates.",
        ),
    ] = None,
) -> Response:
    """The faces as meshes."""
    has_layout = service_of(request).analyzer(options.pack).model.uv is not None
    if texture_size is None:
        texture_size = DEFAULT_TEXTURE_SIZE if has_layout else 0
    elif texture_size and not has_layout:
        raise Problem(
            422,
            "texture_size: expected 0, colours of vertices, as this pack's model has no texture "
            f"coordinates, got {texture_size}",
        )
    lease = lease_of(request)

    def build(number: int, scene: Scene) -> list[Named]:
        return encode_mesh(
            f"{number}.{format}",
            scene.image,
            _chosen(scene, face, number),
            space=space,
            texture_size=texture_size or None,
            before_face=lease.check,
        )

    def answer(files: Sequence[Named]) -> Response:
        return zip_answer(files, "mesh") if format == "obj" else file_answer(files, kind, "mesh")

    kind = MESHES[format]
    return await _files(request, options, build, answer)


@router.post(
    "/crops",
    tags=["pictures"],
    responses=_answers("A zip of the pictures PICTURE_FACE.png (or .jpeg, .webp).", ZIP),
    **_BYTES,
)
async def crops(
    request: Request,
    options: OptionsQuery,
    size: Annotated[int, Query(ge=1, le=_LARGEST_CROP, description="Side, pixels.")] = 112,
    format: _FormatQuery = "png",
) -> Response:
    """Aligned crops, as recognition networks want them."""
    _landmark_sets(request, options, "five")

    def cut(number: int, scene: Scene) -> Iterator[Named]:
        for i, face in enumerate(scene.faces):
            yield encode_picture(f"{number}_{i}", face.aligned_crop(scene.image, size), format)

    return await _files(request, options, cut, lambda files: zip_answer(files, "crops"))


@router.api_route(
    "/packs",
    methods=_READ,
    tags=["server"],
    dependencies=_admitted,
    responses={200: {"description": "The packs, default first."}},
)
async def packs(request: Request) -> Response:
    """The packs that this server has, and what they can do."""
    service = service_of(request)
    return json_answer(
        [
            {
                "name": pack.name,
                "licence": pack.licence,
                "model_sha256": next(f.sha256 for f in pack.files if f.name == pack.model.file),
                "vertices": len(service.analyzer(name).model.mean),
                "landmark_sets": list(service.analyzer(name).model.landmark_sets),
                "expression_names": list(pack.model.expression_names),
                "texture": service.analyzer(name).model.uv is not None,
            }
            for name, pack in service.packs.items()
        ]
    )


@router.api_route(
    "/metrics",
    methods=_READ,
    tags=["server"],
    dependencies=_admitted,
    response_class=Response,
    responses={200: {"description": "Metrics for Prometheus.", "content": {"text/plain": {}}}},
)
async def metrics(request: Request) -> Response:
    """Requests, latencies by stage, queue, faces and errors, of all workers."""
    exposition = service_of(request).metrics.exposition()
    return Response(exposition, headers={"Content-Type": CONTENT_TYPE})


@health.api_route("/healthz", methods=_READ, responses={200: {"description": "The server runs."}})
async def healthz() -> Response:
    """Whether the process answers at all."""
    return json_answer({"status": "ok", "version": __version__})


@health.api_route(
    "/readyz", methods=_READ, responses={200: {"description": "It works."}, 503: PROBLEMS[503]}
)
async def readyz(request: Request) -> Response:
    """Whether pictures can be sent: the packs are loaded and the networks run."""
    if not service_of(request).batcher.running:
        raise Problem.retry(503, "the networks do not run")
    return json_answer({"status": "ready"})


async def _files(
    request: Request,
    options: Options,
    make: Callable[[int, Scene], Iterable[Named]],
    answer: Callable[[Sequence[Named]], Response],
) -> Response:
    """Analyze the pictures and answer with the files that are made of each of them."""
    service = service_of(request)
    return await service.analyze(request, await service.uploads(request), options, make, answer)


def _landmark_sets(request: Request, options: Options, name: str | None) -> list[str]:
    """A set that a client asks for, which the pack must have, before any picture is read.

    Raises:
        PackError: if it has not.
        Problem: if there is no such set.
    """
    if name is None:
        return []
    try:
        table_named(service_of(request).analyzer(options.pack).model.landmark_sets, name)
    except ValueError as error:
        raise Problem(422, str(error)) from error
    return [name]


def _chosen(scene: Scene, face: int | None, number: int) -> Sequence[Any]:
    """One face of a picture or, for None, all; at least one.

    Raises:
        Problem: if the picture does not have it.
    """
    if len(scene.faces) <= (face or 0):
        wanted = "at least one face" if face is None else f"a face with the number {face}"
        raise Problem(
            422, f"picture {number}: expected {wanted}, found {len(scene.faces)} in the picture"
        )
    return scene.faces if face is None else [scene.faces[face]]
