"""Opening a pack's networks on one of the backends."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal, Protocol, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray

from . import _core
from .errors import BackendError, PackError
from .image import is_reversed
from .pack import GREY, DetectorSpec, PresenceSpec, RegressorSpec

Backend = Literal["onnxruntime", "torch"]


MAX_THREADS: Final = 1024
"""Each thread takes memory of its own, and no machine has the CPUs for more."""


class Network(Protocol):
    """A network with one input; safe to run from many threads at once."""

    def run(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """(N, C, H, W) to the network's outputs, in the order of its file."""

    def single_threaded(self) -> Network:
        """The same network, a run of which keeps to the calling thread where the backend can do
        that: for as many runs at a time as there are CPUs."""


class Normalization(TypedDict):
    """How coloured pixels become a network's input, as the kernels take it."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    reverse_channels: bool


def normalization(spec: DetectorSpec | RegressorSpec | PresenceSpec) -> Normalization:
    """What a pack says of it, for RGB images; as float32, to which every call would convert it.

    Raises:
        ValueError: if the network sees grey.
    """
    return {
        "mean": np.array(spec.mean, np.float32),
        "scale": np.array(spec.scale, np.float32),
        "reverse_channels": is_reversed(spec.color),
    }


def resizing(spec: DetectorSpec) -> Callable[[NDArray[np.uint8], int, int], NDArray[np.float32]]:
    """The kernel that makes a detector's input, (1, C, H, W), of an RGB image, H and W."""
    if spec.color == GREY:
        return partial(_core.resize_normalize_grey, mean=spec.mean[0], scale=spec.scale[0])
    return partial(_core.resize_normalize, **normalization(spec))


def cropping(
    spec: RegressorSpec | PresenceSpec,
) -> Callable[[NDArray[np.uint8], NDArray[np.float64]], NDArray[np.float32]]:
    """The function that makes a network's input, (N, C, S, S), of an RGB image and N regions."""
    size = spec.input_size
    if spec.color != GREY:
        known = normalization(spec)
        return lambda image, rois: _core.crop_normalize(image, rois, size, **known)
    none, one = np.zeros(3, np.float32), np.ones(3, np.float32)
    luma = np.array([38, 75, 15], np.float32) / 128  # as resize_normalize_grey has it
    mean, scale = np.float32(spec.mean[0]), np.float32(spec.scale[0])

    def crop(image: NDArray[np.uint8], rois: NDArray[np.float64]) -> NDArray[np.float32]:
        colored = _core.crop_normalize(
            image, rois, size, mean=none, scale=one, reverse_channels=False
        )
        grey = np.einsum("nchw,c->nhw", colored, luma)[:, None]
        return np.ascontiguousarray((grey - mean) * scale, np.float32)

    return crop


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
        num_threads: of one run; ``None``: as many as :func:`threedfa.cpus.available_cpus`. PyTorch
            has one thread count for the whole process, which is left alone: only ``None`` is taken.

    Raises:
        BackendError: if the backend is unknown or not installed, or a provider is not
            present; never falls back to another one.
        TypeError: if ``providers`` is a text instead of a list.
        ValueError: if ``num_threads`` is not in 1..1024.
        PackError: if the file is not a network that the backend can run.
    """
    check_count("num_threads", num_threads, MAX_THREADS)
    if isinstance(providers, str):
        raise TypeError(f"providers: expected a list of names, got {providers!r}; write [name]")
    if backend == "onnxruntime":
        from .backend_onnxruntime import OnnxRuntimeNetwork

        return OnnxRuntimeNetwork(path, providers=providers, num_threads=num_threads)
    if backend == "torch":
        from .backend_torch import TorchNetwork

        return TorchNetwork(path, devices=providers, num_threads=num_threads)
    raise BackendError(f"backend: expected one of {', '.join(get_args(Backend))}, got {backend!r}")


def check_network(
    network: Network,
    path: Path,
    input_shape: tuple[int, ...],
    output_shapes: dict[str, tuple[int, ...]],
) -> None:
    """Run a network once and see whether it is what its pack says.

    Args:
        network: the opened network.
        path: its file, for messages.
        input_shape: of a batch that it must take.
        output_shapes: what it must give for that, by name (of ours: order counts, not the name).

    Raises:
        PackError: naming the file, what was expected and what came.
    """
    expected = ", ".join(f"{name} {shape}" for name, shape in output_shapes.items())
    expected = f"{path}: for an input of shape {input_shape}, expected the outputs {expected}"
    remedy = "correct the pack's settings or import the pack again"
    try:
        outputs = network.run(np.zeros(input_shape, np.float32))
    except Exception as error:  # each backend has its own exceptions
        raise PackError(f"{expected}, got an error: {error}; {remedy}") from error
    if [np.shape(output) for output in outputs] != list(output_shapes.values()) or any(
        np.asarray(output).dtype != np.float32 for output in outputs
    ):
        got = ", ".join(f"{np.asarray(o).dtype} {np.shape(o)}" for o in outputs)
        raise PackError(f"{expected} (float32), got {got}; {remedy}")


def check_providers(
    wanted: Sequence[str], present: Sequence[str], *, expected: str, remedy: str
) -> None:
    """Raise a BackendError unless ``wanted`` names something, and nothing but what is present."""
    missing = [name for name in wanted if name not in present]
    if missing or not wanted:
        raise BackendError(
            f"providers: expected {expected} of {', '.join(present)}, "
            f"got {', '.join(missing) or 'none'}; {remedy}"
        )


def check_count(name: str, value: int | None, most: float = math.inf) -> None:
    """Raise a ValueError unless ``value`` is None or a whole number from 1 to ``most``."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not 1 <= value <= most:
        span = "of at least 1" if math.isinf(most) else f"in 1..{most}"
        raise ValueError(f"{name}: expected None or a whole number {span}, got {value!r}")


def check_fraction(name: str, value: float) -> float:
    """The value as a float; a ValueError unless it is in 0..1."""
    value = float(value)
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected None or 0..1, got {value}")
    return value
