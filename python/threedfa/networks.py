"""Opening a pack's networks on one of the backends."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from .errors import BackendError

Backend = Literal["onnxruntime", "torch"]


class Network(Protocol):
    """A network with one input; safe to run from many threads at once."""

    def run(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """(N, 3, H, W) to the network's outputs, in the order of its file."""


def open_network(
    path: Path,
    *,
    backend: Backend = "onnxruntime",
    providers: Sequence[str] | None = None,
    num_threads: int | None = None,
) -> Network:
    """Open an ONNX file.

    Args:
        path: the file.
        backend: what runs it: ``"onnxruntime"``, or ``"torch"`` (extra ``[torch]``).
        providers: ONNX Runtime execution providers by name, best first (``None``: the CPU), or
            torch devices (``"cpu"``, ``"cuda"``, ``"cuda:1"``), of which the first is used.
        num_threads: of one run; ``None``: as many as this process has CPUs. PyTorch
            has one thread count for the whole process, which is left alone: only ``None`` is taken.

    Raises:
        BackendError: if the backend is unknown or not installed, or a provider is not
            present; never falls back to another one.
        ValueError: if ``num_threads`` is below 1.
        PackError: if the file is not a network that the backend can run.
    """
    if num_threads is not None and num_threads < 1:
        raise ValueError(f"num_threads: expected None or at least 1, got {num_threads}")
    if backend == "onnxruntime":
        from .backend_onnxruntime import OnnxRuntimeNetwork

        return OnnxRuntimeNetwork(path, providers=providers, num_threads=num_threads)
    if backend == "torch":
        from .backend_torch import TorchNetwork

        return TorchNetwork(path, devices=providers, num_threads=num_threads)
    raise BackendError(f"backend: expected one of {', '.join(get_args(Backend))}, got {backend!r}")


def available_cpus() -> int:
    """CPUs that this process may use (its affinity mask where the system has one)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
