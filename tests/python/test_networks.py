"""Opening networks, and what is said about those that cannot be used."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from threedfa import backend_onnxruntime
from threedfa.errors import BackendError, PackError
from threedfa.networks import check_network, open_network
from toy_pack import INPUT_SIZE, detector_network, regressor_network

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "network.onnx"
    file.write_bytes(regressor_network())
    return file


@pytest.mark.parametrize("num_threads", [None, 1, 2, np.int64(1)])
@pytest.mark.parametrize("providers", [None, [CPU], (CPU,)])
def test_a_network_runs(path: Path, providers: Any, num_threads: Any) -> None:
    network = open_network(path, providers=providers, num_threads=num_threads)
    for count in (1, 3):
        (output,) = network.run(np.ones((count, 3, INPUT_SIZE, INPUT_SIZE), np.float32))
        assert output.shape == (count, 19)
        np.testing.assert_allclose(output[:, 12:15], 1, atol=1e-5)


@pytest.mark.parametrize(("wish", "kept"), [(None, "1"), ("0", "0")])
def test_onnx_runtime_reports_nothing(wish: str | None, kept: str) -> None:
    name = "ORT_DISABLE_TELEMETRY"
    environment = {key: value for key, value in os.environ.items() if key != name}
    if wish is not None:
        environment[name] = wish
    code = (
        "import os, sys, threedfa.networks\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "import threedfa.backend_onnxruntime\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == kept


def test_the_same_network_on_one_thread(path: Path) -> None:
    batch = np.random.default_rng(0).random((2, 3, INPUT_SIZE, INPUT_SIZE), np.float32)
    network = open_network(path, num_threads=2)
    alone = network.single_threaded()
    assert alone is not network
    assert alone.single_threaded() is alone
    np.testing.assert_allclose(alone.run(batch)[0], network.run(batch)[0], atol=1e-5)
    only = open_network(path, num_threads=1)
    assert only.single_threaded() is only


@pytest.mark.parametrize("providers", [[CUDA], [CUDA, CPU], [CPU, CUDA]])
def test_an_absent_provider_is_an_error_that_lists_those_present(
    path: Path, providers: list[str]
) -> None:
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this build of ONNX Runtime has CUDA")
    with pytest.raises(BackendError, match=f"{CPU}.*got {CUDA}"):
        open_network(path, providers=providers)


def test_no_provider_and_a_text_for_a_list(path: Path) -> None:
    with pytest.raises(BackendError, match="got none"):
        open_network(path, providers=[])
    with pytest.raises(TypeError, match="expected a list of names, got 'CPU"):
        open_network(path, providers=CPU)


def test_a_provider_that_does_not_start_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime itself would go on with the CPU."""

    class Session:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            pass

        def get_providers(self) -> list[str]:
            return [CPU]

    monkeypatch.setattr(backend_onnxruntime, "available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    with pytest.raises(BackendError, match=f"asked for {CUDA}.*could only start {CPU}"):
        open_network(path, providers=[CUDA])


@pytest.mark.parametrize("backend", ["tensorflow", "", None, "ONNXRUNTIME"])
def test_unknown_backend(path: Path, backend: Any) -> None:
    with pytest.raises(BackendError, match="expected one of onnxruntime, torch, got"):
        open_network(path, backend=backend)


def test_torch_backend_without_torch(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "threedfa.backend_torch", raising=False)
    with pytest.raises(BackendError, match=r"pip install .*threedfa\[torch\]"):
        open_network(path, backend="torch")


@pytest.mark.parametrize("num_threads", [0, -1, 1.5, "2", True, 1025, 10**30])
def test_bad_number_of_threads(path: Path, num_threads: Any) -> None:
    with pytest.raises(
        ValueError, match=r"num_threads: expected None or a whole number in 1\.\.1024"
    ):
        open_network(path, num_threads=num_threads)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"not a network",
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"Gemm", b"Gimm"),
    ],
    ids=["empty", "text", "half", "unknown operator"],
)
def test_a_file_that_is_no_network(path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(PackError, match=r"network\.onnx: expected a network"):
        open_network(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"none\.onnx"):
        open_network(tmp_path / "none.onnx")


def test_check_network(path: Path) -> None:
    network = open_network(path)
    shape = (2, 3, INPUT_SIZE, INPUT_SIZE)
    check_network(network, path, shape, {"parameters": (2, 19)})
    expected = r"network\.onnx: for an input of shape \(2, 3, 24, 24\), expected the outputs "
    with pytest.raises(PackError, match=expected + r"parameters \(2, 62\).*got float32 \(2, 19\)"):
        check_network(network, path, shape, {"parameters": (2, 62)})
    with pytest.raises(PackError, match=expected + r"loc \(2, 19\), conf \(2, 2\)"):
        check_network(network, path, shape, {"loc": (2, 19), "conf": (2, 2)})
    with pytest.raises(PackError, match=r"shape \(1, 3, 64, 96\).*got an error"):
        check_network(network, path, (1, 3, 64, 96), {"parameters": (1, 19)})


def test_outputs_keep_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "detector.onnx"
    path.write_bytes(detector_network(loc=(1, 2, 3, 4)))
    loc, conf = open_network(path).run(np.zeros((1, 3, 1, 33), np.float32))
    np.testing.assert_array_equal(loc, np.tile(np.float32([1, 2, 3, 4]), (1, 3, 1)))
    np.testing.assert_array_equal(conf, np.full((1, 3, 2), 0.5, np.float32))
