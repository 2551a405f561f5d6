"""A client of ``threedfa serve``, with the methods and results of :class:`threedfa.FaceAnalyzer`.

>>> from threedfa.client import Client
>>> with Client("http://127.0.0.1:8000") as client:
...     for face in client.analyze("photo.jpg"):
...         print(face.pose.yaw, face.vertices.shape)

The server sends parameters; the face model is that of the pack installed here, which must be the
server's. Needs the extra ``[web]``: ``pip install 'threedfa[web]'``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar, overload

import httpx
import numpy as np

from .detections import Detections
from .detector import DetectionSize, Orientations
from .errors import ImageError, PackError, ServerError
from .face import Analysis, Face
from .image import ColorOrder, encode_image, load_image, require_several
from .model import MorphableModel
from .pack import Pack
from .tables import faces_from_dict, refused_from_dict

Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)

_PACKS, _DETECT, _ALIGN = "/v1/packs", "/v1/detect", "/v1/align"


class _Connection(Generic[Http]):
    """What both clients are made of: what they send, and what they make of the answers."""

    _http_type: ClassVar[type[Any]]

    def __init__(
        self,
        base_url: str,
        pack: Pack | str | os.PathLike[str] = "default",
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        score_threshold: float | None = None,
        confidence_threshold: float | None = None,
        iou_threshold: float | None = None,
        max_faces: int | None = None,
        detection_size: DetectionSize = "auto",
        orientations: Orientations = "upright",
    ) -> None:
        self._pack = pack if isinstance(pack, Pack) else Pack.load(pack)
        self.model = MorphableModel.from_pack(self._pack)
        options = {
            "pack": self._pack.name,
            "score_threshold": score_threshold,
            "iou_threshold": iou_threshold,
            "max_faces": max_faces,
            "confidence_threshold": confidence_threshold,
            "detection_size": detection_size,
            "orientations": orientations,
        }
        self._query = {name: value for name, value in options.items() if value is not None}
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise ValueError("api_key: expected ASCII characters, as keys of a server are")
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        try:
            self._http: Http = self._http_type(base_url=base_url, headers=headers, timeout=timeout)
        except httpx.InvalidURL as error:
            raise ValueError(f"base_url: expected a URL, got {base_url!r}: {error}") from error
        self._same_model = False

    def _body(
        self, images: Iterable[Any], color: ColorOrder, refused: bool = False
    ) -> dict[str, Any]:
        require_several(images)
        files = [
            ("image", (str(number), _encoded(image, color))) for number, image in enumerate(images)
        ]
        return {
            "params": self._query | ({"refused": "true"} if refused else {}),
            "files": files,
        }

    def _check_model(self, answer: httpx.Response) -> None:
        """Compare the server's face model with the one here."""
        wanted = next(f.sha256 for f in self._pack.files if f.name == self._pack.model.file)
        with _understanding(answer):
            found = {pack["name"]: pack["model_sha256"] for pack in _content(answer)}
        if found.get(self._pack.name) != wanted:
            raise PackError(
                f"{self._http.base_url}: expected a server with the pack {self._pack.name} and the "
                f"same face model in it as here, got {', '.join(found)}; name another pack, or "
                "install the server's"
            )
        self._same_model = True

    def _detections(self, answer: httpx.Response) -> Detections:
        with _understanding(answer):
            faces = _content(answer)[0]["faces"]
            return Detections(
                np.array([face["bbox"] for face in faces], np.float32).reshape(-1, 4),
                np.array([face["score"] for face in faces], np.float32),
                np.array([face.get("quarter_turns", 0) for face in faces], np.int64),
            )

    def _analyses(self, answer: httpx.Response) -> list[Analysis]:
        with _understanding(answer):
            return [
                Analysis(faces_from_dict(entry, self.model), refused_from_dict(entry))
                for entry in _content(answer)
            ]

    def _unreachable(self, error: httpx.HTTPError) -> ServerError:
        return ServerError(f"no answer from {self._http.base_url}: {error or type(error).__name__}")


class Client(_Connection[httpx.Client]):
    """A server's analyzer; close it after use, or use it in a ``with`` block.

    Args:
        base_url: of the server.
        pack: that is installed here and that the server has: a pack, its name, or its folder.
        api_key: where the server asks for one.
        timeout: seconds without a sign of the server.
        score_threshold, confidence_threshold, iou_threshold, max_faces, detection_size,
        orientations: as of :class:`threedfa.FaceAnalyzer`; servers take a ``detection_size`` of at
            most 4096.

    Attributes:
        model: the pack's morphable model.

    Raises:
        PackError: if the pack is missing here, incomplete or altered.
        ValueError: for a base URL or an API key that is none.
    """

    _http_type = httpx.Client

    def detect(self, image: Any, *, color: ColorOrder = "rgb") -> Detections:
        """Boxes and scores of one picture: see :meth:`threedfa.FaceDetector.detect`.

        Raises:
            ImageError: if the picture cannot be read.
            ServerError: if the server cannot be reached or refuses.
        """
        return self._detections(self._call("POST", _DETECT, **self._body([image], color)))

    @overload
    def analyze(
        self, image: Any, *, color: ColorOrder = "rgb", return_refused: Literal[False] = False
    ) -> list[Face]: ...
    @overload
    def analyze(
        self, image: Any, *, color: ColorOrder = "rgb", return_refused: Literal[True]
    ) -> Analysis: ...
    def analyze(
        self, image: Any, *, color: ColorOrder = "rgb", return_refused: bool = False
    ) -> list[Face] | Analysis:
        """The faces of one picture: see :meth:`threedfa.FaceAnalyzer.analyze`.

        Raises:
            ImageError, ServerError: as :meth:`detect`.
            PackError: if the server has another face model than the one here.
        """
        found = self._analyze([image], color, return_refused)
        return found[0] if return_refused else found[0].faces

    @overload
    def analyze_batch(
        self,
        images: Iterable[Any],
        *,
        color: ColorOrder = "rgb",
        return_refused: Literal[False] = False,
    ) -> list[list[Face]]: ...
    @overload
    def analyze_batch(
        self, images: Iterable[Any], *, color: ColorOrder = "rgb", return_refused: Literal[True]
    ) -> list[Analysis]: ...
    def analyze_batch(
        self, images: Iterable[Any], *, color: ColorOrder = "rgb", return_refused: bool = False
    ) -> list[list[Face]] | list[Analysis]:
        """:meth:`analyze` for several pictures in one request, whose number the server limits."""
        found = self._analyze(images, color, return_refused)
        return found if return_refused else [each.faces for each in found]

    def _analyze(self, images: Iterable[Any], color: ColorOrder, refused: bool) -> list[Analysis]:
        body = self._body(images, color, refused)
        if not body["files"]:
            return []
        if not self._same_model:
            self._check_model(self._call("GET", _PACKS))
        return self._analyses(self._call("POST", _ALIGN, **body))

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _call(self, method: str, route: str, **request: Any) -> httpx.Response:
        try:
            return self._http.request(method, route, **request)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error


class AsyncClient(_Connection[httpx.AsyncClient]):
    """:class:`Client` for asyncio: the same arguments, and the same methods to be awaited."""

    _http_type = httpx.AsyncClient

    async def detect(self, image: Any, *, color: ColorOrder = "rgb") -> Detections:
        """See :meth:`Client.detect`."""
        return self._detections(await self._call("POST", _DETECT, **self._body([image], color)))

    @overload
    async def analyze(
        self, image: Any, *, color: ColorOrder = "rgb", return_refused: Literal[False] = False
    ) -> list[Face]: ...
    @overload
    async def analyze(
        self, image: Any, *, color: ColorOrder = "rgb", return_refused: Literal[True]
    ) -> Analysis: ...
    async def analyze(
        self, image: Any, *, color: ColorOrder = "rgb", return_refused: bool = False
    ) -> list[Face] | Analysis:
        """See :meth:`Client.analyze`."""
        found = await self._analyze([image], color, return_refused)
        return found[0] if return_refused else found[0].faces

    @overload
    async def analyze_batch(
        self,
        images: Iterable[Any],
        *,
        color: ColorOrder = "rgb",
        return_refused: Literal[False] = False,
    ) -> list[list[Face]]: ...
    @overload
    async def analyze_batch(
        self, images: Iterable[Any], *, color: ColorOrder = "rgb", return_refused: Literal[True]
    ) -> list[Analysis]: ...
    async def analyze_batch(
        self, images: Iterable[Any], *, color: ColorOrder = "rgb", return_refused: bool = False
    ) -> list[list[Face]] | list[Analysis]:
        """See :meth:`Client.analyze_batch`."""
        found = await self._analyze(images, color, return_refused)
        return found if return_refused else [each.faces for each in found]

    async def _analyze(
        self, images: Iterable[Any], color: ColorOrder, refused: bool
    ) -> list[Analysis]:
        body = self._body(images, color, refused)
        if not body["files"]:
            return []
        if not self._same_model:
            self._check_model(await self._call("GET", _PACKS))
        return self._analyses(await self._call("POST", _ALIGN, **body))

    async def close(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def _call(self, method: str, route: str, **request: Any) -> httpx.Response:
        try:
            return await self._http.request(method, route, **request)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error


def _encoded(image: Any, color: ColorOrder) -> bytes:
    """A file as it is; anything else as PNG."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, (str, os.PathLike)):
        try:
            return Path(image).read_bytes()
        except (OSError, ValueError) as error:
            raise ImageError(f"cannot read {os.fspath(image)!r}: {error}") from error
    return encode_image(load_image(image, color=color), ".png")


@contextlib.contextmanager
def _understanding(answer: httpx.Response) -> Iterator[None]:
    """Raise a ServerError for JSON of another form than expected."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ServerError(
            f"{answer.url}: expected the answer of a threedfa server of this version, got other "
            f"JSON ({type(error).__name__}: {error})",
            answer.status_code,
        ) from error


def _content(answer: httpx.Response) -> Any:
    """The JSON of an answer.

    Raises:
        ServerError: if the answer is a problem, or no JSON.
    """
    try:
        content = answer.json()
    except ValueError as error:
        raise ServerError(
            f"{answer.url}: expected JSON, got {answer.status_code} {answer.reason_phrase} with "
            f"{answer.headers.get('content-type', 'no content')}; is this a threedfa server?",
            answer.status_code,
        ) from error
    if answer.is_success:
        return content
    detail = content.get("detail") if isinstance(content, dict) else content
    raise ServerError(f"{answer.url}: {answer.status_code}: {detail}", answer.status_code)
