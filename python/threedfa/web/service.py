"""From a request to faces: reads, decodes, waits for the networks, encodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import anyio
import numpy as np
from fastapi import Depends, Query
from numpy.typing import NDArray
from starlette.requests import Request

from ..analyzer import FaceAnalyzer
from ..cpus import available_cpus
from ..detections import Detections
from ..detector import FaceDetector
from ..face import Face
from ..pack import Pack
from .batching import Batcher
from .capacity import Capacity, Lease
from .pictures import (
    JSON,
    MULTIPART,
    Upload,
    check_pictures,
    files_in,
    images_in,
    media_type,
    read_form,
)
from .problems import Problem
from .settings import BYTES_PER_PIXEL, Settings

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """How faces are looked for; None: as the server has it."""

    pack: Annotated[str | None, Query(description="One of /v1/packs; the first if not given.")] = (
        None
    )
    score_threshold: Annotated[
        float | None, Query(ge=0, le=1, description="Faces with lower scores are left out.")
    ] = None
    iou_threshold: Annotated[
        float | None, Query(ge=0, le=1, description="Of non-maximum suppression.")
    ] = None
    max_faces: Annotated[
        int | None, Query(ge=1, description="Keep at most so many of a picture, the best.")
    ] = None


OptionsQuery = Annotated[Options, Depends()]


@dataclass(frozen=True)
class Scene:
    """One picture, the name that the client has for it, and its faces."""

    name: str | None
    image: NDArray[np.uint8]
    faces: Sequence[Face]


class Service:
    """The packs of a server, and what runs them.

    Raises:
        PackError, BackendError, ValueError: as :class:`threedfa.FaceAnalyzer`.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.packs = {pack.name: pack for pack in map(Pack.load, settings.packs)}
        self._analyzers: Mapping[str, FaceAnalyzer] = {
            name: FaceAnalyzer(
                pack,
                backend=settings.backend,
                providers=settings.providers,
                num_threads=settings.num_threads,
                max_faces=settings.limits.faces,
            )
            for name, pack in self.packs.items()
        }
        self.capacity = Capacity(settings.limits)
        self.batcher = Batcher()
        self.metrics = self.batcher.metrics
        # Threads that decode and encode: more than CPUs would only take memory.
        self._threads = anyio.CapacityLimiter(max(2, available_cpus()))

    def analyzer(self, name: str | None) -> FaceAnalyzer:
        """Of a pack; None: of the first.

        Raises:
            Problem: if the server does not have it.
        """
        if name is None:
            return next(iter(self._analyzers.values()))
        if name not in self._analyzers:
            raise Problem(422, f"pack: expected one of {', '.join(self._analyzers)}, got {name!r}")
        return self._analyzers[name]

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do what takes the processor some time without stopping others."""
        return await anyio.to_thread.run_sync(work, limiter=self._threads)

    async def encode(self, work: Callable[[], T]) -> T:
        """Make the body of an answer."""
        with self.metrics.stage("encode"):
            return await self.in_thread(work)

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
        self, request: Request, uploads: Sequence[Upload], options: Options
    ) -> list[tuple[Upload, tuple[int, int], Detections]]:
        """Boxes of each picture, with the picture's height and width."""
        images, found = await self._run(request, uploads, options, self.batcher.detect)
        return [
            (upload, image.shape[:2], detections)
            for upload, image, detections in zip(uploads, images, found, strict=True)
        ]

    async def analyze(
        self, request: Request, uploads: Sequence[Upload], options: Options
    ) -> list[Scene]:
        """Faces of each picture."""
        images, found = await self._run(request, uploads, options, self.batcher.analyze)
        return [
            Scene(upload.name, image, faces)
            for upload, image, faces in zip(uploads, images, found, strict=True)
        ]

    async def _run(
        self,
        request: Request,
        uploads: Sequence[Upload],
        options: Options,
        ask: Callable[[FaceAnalyzer, FaceDetector, Sequence[NDArray[np.uint8]]], Future[list[Any]]],
    ) -> tuple[list[NDArray[np.uint8]], list[Any]]:
        analyzer = self.analyzer(options.pack)
        detector = analyzer.detector.adjusted(
            score_threshold=options.score_threshold,
            iou_threshold=options.iou_threshold,
            max_faces=min(options.max_faces or self.limits.faces, self.limits.faces),
        )
        lease: Lease = request.state.lease
        lease.take_place()
        with self.metrics.stage("decode"):
            pixels = await self.in_thread(lambda: check_pictures(uploads, self.limits))
            lease.take_memory(BYTES_PER_PIXEL * pixels)
            images = await self.in_thread(
                lambda: [upload.decode(self.limits) for upload in uploads]
            )
        return images, await asyncio.wrap_future(ask(analyzer, detector, images))


def service_of(request: Request) -> Service:
    """The service that answers a request."""
    service: Service = request.app.state.service
    return service


ServiceState = Annotated[Service, Depends(service_of)]
