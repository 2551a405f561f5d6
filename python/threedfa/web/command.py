"""``threedfa serve``."""

from __future__ import annotations

import argparse
import contextlib
import functools
import socket
from typing import Final

import uvicorn
from uvicorn.supervisors import Multiprocess

from .app import create_app
from .metrics import counted_together
from .service import open_analyzers
from .settings import settings_of

_CONNECTIONS: Final = 1000  # about as many files as a process may have open
# Longer than clients and proxies keep an idle connection (httpx 5 s, nginx 60 s): the end that
# closes one just when the other sends a request on it breaks that request off.
_IDLE_SECONDS: Final = 75
_START_SECONDS: Final = 60  # until a worker answers its parent, which else starts another


def serve(options: argparse.Namespace) -> int:
    """Answer requests until the process is told to stop; then finish those that run.

    With several workers, each process has packs and a queue of its own.

    Args:
        options: those of :func:`threedfa.web.settings.add_serve_options`.

    Returns:
        The exit status.

    Raises:
        SettingsError: for settings that cannot be.
        PackError, BackendError, ValueError: as :class:`threedfa.FaceAnalyzer`.
    """
    settings = settings_of(options)
    create = functools.partial(create_app, settings)
    workers = options.workers
    if workers > 1:
        open_analyzers(settings)  # what fails would fail again and again in each worker
    config = uvicorn.Config(
        create if workers > 1 else create(),
        factory=workers > 1,
        host=options.host,
        port=options.port,
        workers=workers,
        ws="none",
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_worker_healthcheck=_START_SECONDS,
        server_header=False,
        proxy_headers=bool(options.trusted_proxies),
        forwarded_allow_ips=options.trusted_proxies,
        timeout_graceful_shutdown=int(settings.limits.seconds) + 1,
    )
    listening = config.bind_socket()
    _drop_who_does_not_read(listening, settings.limits.seconds)
    if workers > 1:
        with counted_together():
            Multiprocess(config, [listening]).run()
        return 0
    server = uvicorn.Server(config)
    with contextlib.suppress(KeyboardInterrupt):  # which comes after everything has stopped
        server.run([listening])
    return 0 if server.started else 1


def _drop_who_does_not_read(listening: socket.socket, seconds: float) -> None:
    """Answers that the system has taken but a client does not read keep connection and memory;
    closing waits for it. Linux ends such connections, if told to."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * seconds))
