"""A server process and a pack for it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import safetensors.numpy

import threedfa
from test_landmark_sets import five_tensors
from toy_pack import build_toy_pack, head_model

NAMES = ["jawOpen", "browInnerUp", "wrinkle"]


def build_web_pack(
    folder: Path, *, uv: bool = True, presence: dict[str, Any] | None = None
) -> Path:
    """The toy pack with names, a unit and five points; with texture coordinates or without."""
    tensors = {**head_model(), **five_tensors()}
    if not uv:
        del tensors["uv"]
    return build_toy_pack(
        folder,
        networks={"model.safetensors": safetensors.numpy.save(tensors)},
        model={"expression_names": NAMES, "unit": "centimetre"},
        presence=presence,
    )


@dataclass
class Server:
    """A running ``threedfa serve``; ``log`` is what it prints."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **options)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)


@contextmanager
def serving(pack: Path, folder: Path, *flags: str) -> Iterator[Server]:
    """Start a server on a free port of this machine, wait until it is ready, and stop it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / f"server{port}.log"
    root = Path(threedfa.__file__).parents[1]
    command = [sys.executable, "-m", "threedfa.cli", "serve", "--port", str(port)]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, "--pack", str(pack), *flags],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
    server = Server(process, port, log)
    try:
        _wait_until_ready(server)
        yield server
    finally:
        process.terminate()
        process.wait(60)


def _wait_until_ready(server: Server) -> None:
    while server.process.poll() is None:
        try:
            if httpx.get(f"{server.url}/v1/readyz", timeout=60).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise RuntimeError(server.log.read_text())
