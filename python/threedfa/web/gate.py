"""What every request passes first and every answer last: limits, deadlines, headers, counters."""

from __future__ import annotations

import logging
import time
from typing import Final

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .capacity import Capacity, Lease
from .metrics import Metrics
from .problems import Problem
from .settings import Limits

_LOG = logging.getLogger("threedfa.web")

_CONTENT_POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' blob: data:",
        "style-src 'self'",
        "script-src 'self'",
        "connect-src 'self' blob:",  # three.js loads textures by blob:
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final = {
    "Content-Security-Policy": _CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_DRAIN_BYTES: Final = 256 << 20  # of a body that is not wanted, which a client sends all the same
_DRAIN_SECONDS: Final = 10
_SILENCE_SECONDS: Final = 1  # after which a client is taken to wait for its answer
_SEND_BYTES: Final = 1 << 18  # at once


class Gate:
    """ASGI middleware around the application."""

    def __init__(
        self, app: ASGIApp, *, limits: Limits, capacity: Capacity, metrics: Metrics
    ) -> None:
        self._app = app
        self._limits = limits
        self._capacity = capacity
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        lease = self._capacity.lease()
        scope.setdefault("state", {})["lease"] = lease
        exchange = _Exchange(scope, receive, send, self._limits, lease)
        start = time.perf_counter()
        with self._metrics.in_progress.track_inprogress():
            try:
                await self._answer(scope, exchange)
            finally:
                lease.release()
                self._count(scope, exchange.status, time.perf_counter() - start)

    async def _answer(self, scope: Scope, exchange: _Exchange) -> None:
        problem = None
        with anyio.move_on_after(self._limits.seconds) as deadline:
            try:
                await self._app(scope, exchange.receive, exchange.send)
            except ClientDisconnect:
                return
            except Exception:
                _LOG.exception("error while answering %s %r", scope["method"], scope["path"])
                problem = Problem(500, "the server made a mistake, which its log describes")
        if deadline.cancelled_caught:
            problem = exchange.too_late()
        if problem is not None and exchange.status is None:
            await problem.response()(scope, exchange.receive, exchange.send)

    def _count(self, scope: Scope, status: int | None, seconds: float) -> None:
        # Only paths of the API's own, or anybody could fill the memory with names.
        route = getattr(scope.get("route"), "path", "other")
        answer = "none" if status is None else str(status)
        self._metrics.requests.labels(route, answer).inc()
        if status is None or status >= 400:
            self._metrics.errors.labels(answer).inc()
        self._metrics.observe("request", seconds)


class _Exchange:
    """One request and its answer."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, limits: Limits, lease: Lease
    ) -> None:
        headers = Headers(scope=scope)
        self.status: int | None = None
        self._receive = receive
        self._send = send
        self._limits = limits
        self._lease = lease
        self._received = 0
        self._more = "content-length" in headers or "transfer-encoding" in headers
        self._invited = headers.get("expect", "").lower() != "100-continue"
        self._announced = headers.get("content-length", "")

    async def receive(self) -> Message:
        """The next part of the body, counted."""
        if self._announced.isdecimal() and int(self._announced) > self._limits.upload_bytes:
            raise self._too_large()
        message = await self._next()
        body = message.get("body", b"")
        if self._received > self._limits.upload_bytes:
            raise self._too_large()
        if body:
            self._lease.take_memory(len(body))
        return message

    async def send(self, message: Message) -> None:
        """A part of the answer; its head gets the headers that all have."""
        if message["type"] == "http.response.start":
            await self._drain()
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
            if self._more:  # of a body that nobody will read
                headers["Connection"] = "close"
        # The server's buffers take what they are given: a client that does not read its answer
        # may fill them with one part only.
        body = message.get("body", b"")
        sent = 0
        while len(body) - sent > _SEND_BYTES:
            part = body[sent : sent + _SEND_BYTES]
            await self._send({**message, "body": part, "more_body": True})
            sent += _SEND_BYTES
        await self._send({**message, "body": body[sent:]} if sent else message)

    def too_late(self) -> Problem:
        """What to say when the time is over."""
        seconds = f"{self._limits.seconds:g} s"
        if self._more:
            return Problem(408, f"expected the whole request within {seconds}")
        return Problem.retry(503, f"no answer was ready within {seconds}")

    async def _next(self) -> Message:
        self._invited = True
        message = await self._receive()
        self._more = message["type"] == "http.request" and message.get("more_body", False)
        self._received += len(message.get("body", b""))
        return message

    async def _drain(self) -> None:
        """Read what is left of the body: a client that still sends might miss the answer."""
        if not self._invited:
            return
        end = anyio.current_time() + _DRAIN_SECONDS
        while self._more and self._received < _DRAIN_BYTES and anyio.current_time() < end:
            with anyio.move_on_after(_SILENCE_SECONDS) as silence:
                await self._next()
            if silence.cancelled_caught:
                return

    def _too_large(self) -> Problem:
        return Problem(413, f"expected at most {self._limits.upload_bytes} bytes in one request")
