"""A server process, as users start it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

_START_SECONDS = 120


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """Run ``threedfa serve`` with these options on a free port; its address, without a slash."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "threedfa.cli", "serve", "--port", str(port), *options]
    with subprocess.Popen(command) as process:
        try:
            _wait_until_ready(f"{address}/v1/readyz", process)
            yield address
        finally:
            process.terminate()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        try:
            with urllib.request.urlopen(url):
                return
        except urllib.error.URLError:
            time.sleep(0.1)
    raise RuntimeError(f"the server is not ready after {_START_SECONDS} s")
