"""Networks on ONNX Runtime: the only module that imports it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Read when the library is loaded. From 1.29 on it would report sessions, their files' names among
# them, to its makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

from .cpus import available_cpus
from .errors import BackendError, PackError
from .networks import check_providers

_CPU = ["CPUExecutionProvider"]


def available_providers() -> list[str]:
    """Execution providers that this build of ONNX Runtime has."""
    return list(onnxruntime.get_available_providers())


class OnnxRuntimeNetwork:
    """An ONNX file in an ONNX Runtime session; see :func:`threedfa.networks.open_network`."""

    def __init__(
        self, path: Path, *, providers: Sequence[str] | None, num_threads: int | None
    ) -> None:
        wanted = list(_CPU if providers is None else providers)
        check_providers(
            wanted,
            available_providers(),
            expected="some",
            remedy="the packages onnxruntime-gpu, onnxruntime-directml and onnxruntime-openvino "
            "bring others",
        )
        self._path, self._providers = path, wanted
        self._num_threads = num_threads or available_cpus()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.inter_op_num_threads = 1
        options.intra_op_num_threads = self._num_threads
        # Threads that wait for work keep their cores busy, which makes a run faster, but not after
        # it: the next network needs them.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), sess_options=options, providers=wanted
            )
        except Exception as error:  # onnxruntime raises classes that it does not export
            raise PackError(f"{path}: expected a network for ONNX Runtime: {error}") from error
        # A provider whose libraries do not load is dropped by ONNX Runtime with only a log line.
        if self._session.get_providers()[: len(wanted)] != wanted:
            raise BackendError(
                f"providers: asked for {', '.join(wanted)}, ONNX Runtime could only "
                f"start {', '.join(self._session.get_providers())}; check the provider's "
                "libraries and device, or ask for those that start"
            )
        self._input = self._session.get_inputs()[0].name

    def run(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """(N, C, H, W) to the network's outputs, in the order of its file."""
        outputs: list[NDArray[np.float32]] = self._session.run(None, {self._input: batch})
        return outputs

    def single_threaded(self) -> OnnxRuntimeNetwork:
        """The same network, a run of which keeps to the calling thread; this one on accelerators,
        which take runs from many threads."""
        if self._num_threads == 1 or self._providers != _CPU:
            return self
        return OnnxRuntimeNetwork(self._path, providers=_CPU, num_threads=1)
