"""What a server is started with."""

from __future__ import annotations

import argparse
import hashlib
import hmac
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..errors import ThreedfaError
from ..networks import Backend

BYTES_PER_PIXEL: Final = 6
"""What a decoded picture takes: itself, and a copy that is drawn on."""

_SHORTEST_KEY: Final = 16  # characters
_LAST_PORT: Final = 65535


class SettingsError(ThreedfaError):
    """Settings that no server can be started with."""


@dataclass(frozen=True)
class Limits:
    """What one request, one client and all together may ask for.

    Attributes:
        upload_bytes: of the body of one request.
        pixels: of one picture.
        files: pictures in one request.
        faces: found in one picture; the best are kept.
        seconds: from the first byte of a request to the last of its answer.
        client_requests: of one client (its API key or else its address) at the same time.
        queue: requests that wait or are worked on at the same time.
        memory_bytes: of uploads and decoded pictures of all requests together.
    """

    upload_bytes: int = 32 << 20
    pixels: int = 25_000_000
    files: int = 16
    faces: int = 64
    seconds: float = 60.0
    client_requests: int = 16
    queue: int = 32
    memory_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                raise SettingsError(f"{name}: expected a number above 0, got {value}")
        least = self.upload_bytes + BYTES_PER_PIXEL * self.pixels
        if self.memory_bytes < least:
            raise SettingsError(
                f"memory_bytes: expected at least {least}, which one upload and one picture of the "
                f"largest size need, got {self.memory_bytes}"
            )


@dataclass(frozen=True)
class Settings:
    """Packs (the first is the default), how they are run, limits and access.

    Attributes:
        packs: names or folders.
        backend, providers, num_threads: as of :class:`threedfa.FaceAnalyzer`.
        limits: see :class:`Limits`.
        api_keys: who may use the API; None: everybody.
        cors_origins: web sites whose pages may use the API; ``"*"``: all.
    """

    packs: Sequence[str] = ("default",)
    backend: Backend = "onnxruntime"
    providers: Sequence[str] | None = None
    num_threads: int | None = None
    limits: Limits = field(default_factory=Limits)
    api_keys: ApiKeys | None = None
    cors_origins: Sequence[str] = ()


class ApiKeys:
    """Secret texts that clients show. Only their hashes are kept."""

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise SettingsError("API keys: expected at least one, got none")
        for number, key in enumerate(keys, start=1):
            if len(key) < _SHORTEST_KEY or not (key.isascii() and key.isprintable()):
                raise SettingsError(
                    f"API key {number}: expected at least {_SHORTEST_KEY} ASCII characters, "
                    f"got {len(key)} characters"
                )
            if " #" in key:  # would be taken for a part of the key without a word
                raise SettingsError(
                    f"API key {number}: expected no remark behind it; put that on a line of its own"
                )
        self._hashes = [_hash(key) for key in keys]

    @classmethod
    def load(cls, path: Path) -> ApiKeys:
        """From a text file: a key a line; empty lines and those that start with ``#`` are not.

        Raises:
            SettingsError: if the file cannot be read, has no key, or one that is too short or has
                a remark behind it.
        """
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
            raise SettingsError(f"cannot read API keys from {path}: {reason}") from error
        stripped = (line.strip() for line in lines)
        return cls([line for line in stripped if line and not line.startswith("#")])

    def __contains__(self, key: str) -> bool:
        """Takes as long for a wrong key as for a right one."""
        shown = _hash(key)
        matches = [hmac.compare_digest(shown, known) for known in self._hashes]
        return any(matches)


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``threedfa serve`` that `settings_of` reads, and where it listens."""
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes")
    parser.add_argument(
        "--pack",
        action="append",
        dest="packs",
        metavar="NAME",
        help="name or folder; may be repeated, the first is the default",
    )
    parser.add_argument(
        "--api-keys", type=Path, metavar="FILE", help="only for those who show a key of this file"
    )
    parser.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        dest="cors_origins",
        metavar="ORIGIN",
        help="a web site whose pages may use the API; may be repeated",
    )
    parser.add_argument(
        "--trusted-proxy",
        action="append",
        default=[],
        dest="trusted_proxies",
        metavar="ADDRESS",
        help="whose X-Forwarded-For names the client; may be repeated",
    )
    for name, kind, text in _LIMIT_OPTIONS:
        parser.add_argument(
            f"--max-{name.replace('_', '-')}",
            type=kind,
            default=getattr(Limits, name),
            dest=name,
            metavar="N",
            help=f"{text} (default: %(default)s)",
        )


_LIMIT_OPTIONS: Final = (
    ("upload_bytes", int, "bytes of one request"),
    ("pixels", int, "pixels of one picture"),
    ("files", int, "pictures in one request"),
    ("faces", int, "faces of one picture"),
    ("seconds", float, "time for one request"),
    ("client_requests", int, "requests of one client at the same time"),
    ("queue", int, "requests that wait or are worked on at the same time"),
    ("memory_bytes", int, "bytes of uploads and decoded pictures together"),
)


def settings_of(options: argparse.Namespace) -> Settings:
    """What the options say.

    Raises:
        SettingsError: if no server can be started with it.
    """
    if not 0 <= options.port <= _LAST_PORT:
        raise SettingsError(f"port: expected 0..{_LAST_PORT}, got {options.port}")
    if options.workers < 1:
        raise SettingsError(f"workers: expected at least 1, got {options.workers}")
    return Settings(
        packs=options.packs or ("default",),
        backend=options.backend,
        providers=options.providers,
        num_threads=options.threads,
        limits=Limits(**{name: getattr(options, name) for name, _, _ in _LIMIT_OPTIONS}),
        api_keys=None if options.api_keys is None else ApiKeys.load(options.api_keys),
        cors_origins=options.cors_origins,
    )


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
