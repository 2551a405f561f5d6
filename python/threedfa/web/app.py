"""The application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from .. import __version__
from . import legacy, routes
from .gate import Gate
from .problems import handle_problems
from .service import Service
from .settings import Settings

PAGE: Final = Path(__file__).parent / "page"
"""The files of the page, where they are installed."""


def create_app(settings: Settings) -> FastAPI:
    """The application for any ASGI server.

    Raises:
        PackError, BackendError, ValueError: as :class:`threedfa.FaceAnalyzer`.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        try:
            yield
        finally:
            service.batcher.stop()

    app = FastAPI(
        title="threedfa",
        version=__version__,
        summary="Every face in a photograph as a 3D mesh.",
        lifespan=lifespan,
        # These pages of FastAPI's load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # to an address that the client's Host header chooses
    )
    app.state.service = service
    app.add_middleware(
        Gate, limits=settings.limits, capacity=service.capacity, metrics=service.metrics
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["X-Threedfa-Shape", "X-Threedfa-Faces", "Retry-After"],
        )
    handle_problems(app)
    app.include_router(routes.health)
    app.include_router(routes.router)
    app.include_router(legacy.router)
    _add_page(app)
    return app


def _add_page(app: FastAPI) -> None:
    """A route for each file: what a client asks for is compared with their names, not opened."""
    files = StaticFiles(directory=PAGE)
    for file in sorted(PAGE.rglob("*")):
        if file.is_file():
            url = "/" + file.relative_to(PAGE).as_posix()
            for path in (url, "/") if url == "/index.html" else (url,):
                app.add_route(path, _serve(files, file), methods=["GET"], include_in_schema=False)


def _serve(files: StaticFiles, file: Path) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        # 304 for browsers that have it: they ask each time whether it has changed.
        response = files.file_response(file, file.stat(), request.scope)
        response.headers["Cache-Control"] = "no-cache"
        return response

    return answer
