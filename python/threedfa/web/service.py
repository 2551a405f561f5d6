"""From a request to faces: reads, decodes, waits for the networks, encodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import anyio
from fastapi import Depends, Query
from pydantic import Field
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response

from ..analyzer import FaceAnalyzer
from ..cpus import available_cpus
from ..detections import Detections, RefusedFace
from ..detector import SMALLEST_DETECTION, Orientations
from ..face import Analysis, Face
from ..pack import Pack
from .batching import Batcher, Engine, Image, Source
from .capacity import Capacity, Lease
from .metrics import Metrics
from .pictures import (
    JSON,
    MULTIPART,
    Upload,
    decode,
    files_in,
    images_in,
    media_type,
    read_form,
)
from .problems import Problem
from .settings import Settings, SettingsError

T = TypeVar("T")

Named: TypeAlias = tuple[str, bytes]
"""A file: its name, which no client has chosen, and its contents."""


LARGEST_DETECTION: Final = 4096
"""Pixels of the longer side; larger ones take longer than a server should work for one picture."""


@dataclass(frozen=True)
class Options:
    """How faces are looked for; None: as the server has it."""

    pack: str | None = None
    score_threshold: float | None = None
    iou_threshold: float | None = None
    max_faces: int | None = None
    confidence_threshold: float | None = None
    detection_size: int | Literal["auto", "full"] | None = None
    orientations: Orientations | None = None


# FastAPI calls what is not async in a thread, which takes longer than these themselves.
async def _options(
    pack: Annotated[
        str | None, Query(description="One of /v1/packs; the first if not given.")
    ] = None,
    score_threshold: Annotated[
        float | None, Query(ge=0, le=1, description="Faces with lower scores are left out.")
    ] = None,
    iou_threshold: Annotated[
        float | None, Query(ge=0, le=1, description="Of non-maximum suppression.")
    ] = None,
    max_faces: Annotated[
        int | None, Query(ge=1, description="Keep at most so many of a picture, the best.")
    ] = None,
    confidence_threshold: Annotated[
        float | None,
        Query(ge=0, le=1, description="What is less surely a face is refused; not for detect."),
    ] = None,
    detection_size: Annotated[
        Annotated[int, Field(ge=SMALLEST_DETECTION, le=LARGEST_DETECTION)]
        | Literal["auto", "full"]
        | None,
        Query(
            description="How large a picture is to the detector: auto, full (its own size), or its "
            "longer side in pixels. Time grows with the pixels."
        ),
    ] = None,
    orientations: Annotated[
        Orientations | None,
        Query(description="any: where nothing is found, look for turned faces, too."),
    ] = None,
) -> Options:
    return Options(
        pack,
        score_threshold,
        iou_threshold,
        max_faces,
        confidence_threshold,
        detection_size,
        orientations,
    )


OptionsQuery = Annotated[Options, Depends(_options)]


@dataclass(frozen=True)
class Scene:
    """One picture, the name that the client has for it, its faces, and what was refused."""

    name: str | None
    image: Image
    faces: Sequence[Face]
    refused: Sequence[RefusedFace] = ()


def open_analyzers(settings: Settings) -> tuple[dict[str, Pack], dict[str, FaceAnalyzer]]:
    """The packs of a server and what finds faces with them, by the packs' names.

    Raises:
        SettingsError: for two packs of one name.
        PackError, BackendError, ValueError: as :class:`threedfa.FaceAnalyzer`.
    """
    packs = [Pack.load(pack) for pack in settings.packs]
    by_name = {pack.name: pack for pack in packs}
    if len(by_name) < len(packs):
        names = ", ".join(pack.name for pack in packs)
        raise SettingsError(f"packs: expected packs of different names, got {names}")
    return by_name, {
        name: FaceAnalyzer(
            pack,
            backend=settings.backend,
            providers=settings.providers,
            num_threads=settings.num_threads,
            max_faces=settings.limits.faces,
        )
        for name, pack in by_name.items()
    }


class Service:
    """The packs of a server, and what runs them.

    Raises:
        SettingsError, PackError, BackendError, ValueError: as :func:`open_analyzers`.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.packs, self._analyzers = open_analyzers(settings)
        self.metrics = Metrics()
        self.capacity = Capacity(settings.limits, self.metrics.queue.set)
        self._engines = {name: Engine.of(each) for name, each in self._analyzers.items()}
        self._engine = lru_cache(maxsize=64)(self._adjusted_engine)
        # PyTorch has threads of its own for the whole process.
        threads = 1 if settings.backend == "torch" else settings.num_threads or available_cpus()
        self.batcher = Batcher(threads, self.metrics)
        # Threads that read base64: more than CPUs would only take memory.
        self._threads = anyio.CapacityLimiter(max(2, available_cpus()))

    def analyzer(self, pack: str | None) -> FaceAnalyzer:
        """Of a pack; None: of the first.

        Raises:
            Problem: if the server does not have it.
        """
        return self._analyzers[self._pack_name(pack)]

    def _pack_name(self, pack: str | None) -> str:
        if pack is None:
            return next(iter(self.packs))
        if pack not in self.packs:
            raise Problem(422, f"pack: expected one of {', '.join(self.packs)}, got {pack!r}")
        return pack

    def _adjusted_engine(self, options: Options) -> Engine:
        try:
            return self._engines[self._pack_name(options.pack)].adjusted(
                score_threshold=options.score_threshold,
                confidence_threshold=options.confidence_threshold,
                iou_threshold=options.iou_threshold,
                max_faces=min(options.max_faces or self.limits.faces, self.limits.faces),
                detection_size=options.detection_size,
                orientations=options.orientations,
            )
        except ValueError as error:  # a threshold that the pack has no use for
            raise Problem(422, str(error)) from error

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do what takes the processor some time without stopping others."""
        return await anyio.to_thread.run_sync(work, limiter=self._threads)

    async def uploads(self, request: Request) -> list[Upload]:
        """The pictures of a request, multipart field ``image`` or JSON.

        Raises:
            Problem: if there are none.
        """
        kind = media_type(request)
        with self.metrics.stage("upload"):
            if kind == MULTIPART:
                return await files_in(await read_form(request, self.limits), "image")
            if kind == JSON:
                body = await request.body()
                return await self.in_thread(lambda: images_in(body, self.limits))
        raise Problem(415, f"expected a body of {MULTIPART} or {JSON}, got {kind or 'none'}")

    async def detect(
        self,
        request: Request,
        uploads: Sequence[Upload],
        options: Options,
        answer: Callable[[Sequence[tuple[Upload, Image, Detections]]], Response],
    ) -> Response:
        """What ``answer`` makes, in a thread, of the pictures and the boxes in each."""
        lease = lease_of(request)

        def finish(images: Sequence[Image], found: Sequence[Detections]) -> Response:
            response = answer(list(zip(uploads, images, found, strict=True)))
            lease.take_memory(len(response.body))
            return response

        return await self._run(request, uploads, options, self.batcher.detect, finish)

    async def analyze(
        self,
        request: Request,
        uploads: Sequence[Upload],
        options: Options,
        make: Callable[[int, Scene], Iterable[Named]],
        answer: Callable[[Sequence[Named]], Response],
    ) -> Response:
        """What ``answer`` makes, in a thread, of the files that ``make`` makes of each picture, its
        number and the faces in it.

        Each file's memory is asked for, so no more are made when the request is over.
        """
        lease = lease_of(request)

        def finish(images: Sequence[Image], found: Sequence[Analysis]) -> Response:
            files: list[Named] = []
            for number, (upload, image, each) in enumerate(
                zip(uploads, images, found, strict=True)
            ):
                for file in make(number, Scene(upload.name, image, each.faces, each.refused)):
                    lease.take_memory(len(file[1]))
                    files.append(file)
            if len(files) > 1:  # the answer is a copy of them
                lease.take_memory(sum(len(content) for _, content in files))
            return answer(files)

        return await self._run(request, uploads, options, self.batcher.analyze, finish)

    async def _run(
        self,
        request: Request,
        uploads: Sequence[Upload],
        options: Options,
        ask: Callable[[Engine, Sequence[Source], Any], Future[Response]],
        finish: Callable[[Sequence[Image], Any], Response],
    ) -> Response:
        engine = self._engine(options)
        lease = lease_of(request)
        lease.take_place()
        sources = [
            partial(decode, upload, number, self.limits, lease)
            for number, upload in enumerate(uploads)
        ]
        answer = await _unless_gone(request, asyncio.wrap_future(ask(engine, sources, finish)))
        # It takes memory until it is sent, but no place in the queue.
        lease.give_place()
        return answer


async def _unless_gone(request: Request, answer: asyncio.Future[T]) -> T:
    """Wait for something as long as the client does.

    Raises:
        ClientDisconnect: if it does not.
    """
    # After the body there is only one more message, that the client is gone.
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        gone.cancel()
        answer.cancel()


def lease_of(request: HTTPConnection) -> Lease:
    """What a request holds, which the gate gives back at its end."""
    lease: Lease = request.state.lease
    return lease


def service_of(request: HTTPConnection) -> Service:
    """The service that answers a request."""
    service: Service = request.app.state.service
    return service
