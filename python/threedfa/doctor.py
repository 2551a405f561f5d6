"""``threedfa doctor``: what is installed here, and whether it works."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np

from . import __version__, _core, ops
from .analyzer import FaceAnalyzer
from .backend_onnxruntime import available_providers
from .cpus import available_cpus
from .errors import ThreedfaError
from .pack import list_packs, verify_pack
from .priors import PriorConfig

_PACKAGES = (
    "numpy",
    "onnx",
    "onnxruntime",
    "opencv-python",
    "opencv-python-headless",
    "pillow",
    "safetensors",
    "torch",
)


def run_doctor() -> int:
    """Print versions, providers, CPU features, packs and a timed self-test.

    Returns:
        0, or 1 if a pack is damaged or a part of the self-test fails.
    """
    print(f"threedfa      {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name in _PACKAGES:
        print(f"{name:<24} {_version(name)}")
    print(f"providers     {', '.join(available_providers())}")
    features = ", ".join(_cpu_features()) or "no features known"
    print(f"CPUs          {available_cpus()} usable; {features}")
    healthy = _check_packs()
    return 0 if _self_test() and healthy else 1


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu_features() -> list[str]:
    """SIMD extensions that NumPy finds on this machine."""
    config = np.show_config(mode="dicts")
    simd = config.get("SIMD Extensions", {}) if isinstance(config, dict) else {}
    return [*simd.get("baseline", ()), *simd.get("found", ())]


def _check_packs() -> bool:
    healthy = True
    packs = list_packs()
    print(f"packs         {len(packs) or 'none: see `threedfa pack --help`'}")
    for pack in packs:
        problem = pack.problem
        if not problem:
            try:
                verify_pack(pack.path)
            except ThreedfaError as error:
                problem = str(error)
        healthy &= not problem
        print(f"  {pack.name:<22} {problem or 'SHA-256 as it should be'} ({pack.path})")
    return healthy


def _self_test() -> bool:
    """Kernels on made-up input with known answers, then each pack on an empty picture."""
    passed = True
    print("self-test")
    for name, check in _CHECKS.items():
        passed &= _timed(name, check)
    for pack in list_packs():
        if not pack.problem:
            passed &= _timed(f"pack {pack.name}", partial(_check_pack, pack.path))
    return passed


def _timed(name: str, check: Callable[[], bool]) -> bool:
    start = time.perf_counter()
    try:
        outcome = "passed" if check() else "FAILED: wrong result"
    except Exception as error:  # whatever goes wrong is the finding
        outcome = f"FAILED: {error}"
    print(f"  {name:<22} {outcome} ({1000 * (time.perf_counter() - start):.1f} ms)")
    return outcome == "passed"


def _check_nms() -> bool:
    boxes = [[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]]
    return np.array_equal(ops.nms(boxes, [0.9, 0.8, 0.7], 0.5), [0, 2])


def _check_priors() -> bool:
    priors = ops.prior_boxes(720, 1080, PriorConfig.faceboxes())
    return priors.shape == (16680, 4) and bool(np.isfinite(priors).all())


def _check_rasterizer() -> bool:
    raster = ops.rasterize([[0, 0, 1], [4, 0, 1], [0, 4, 1]], [[0, 1, 2]], 5, 5)
    return int((raster.triangle == 0).sum()) == 10 and bool(raster.depth.max() == 1)


def _check_pose() -> bool:
    rotation = _core.rotation_from_angles(30, -20, 10)
    camera = np.column_stack([rotation, [0, 0, 0]]).ravel()
    return bool(np.allclose(_core.decompose(camera)[:3], (30, -20, 10), atol=1e-3))


def _check_pack(path: Path) -> bool:
    analyzer = FaceAnalyzer(path)
    empty = np.zeros((240, 320, 3), np.uint8)
    box = np.array([[60, 40, 180, 160]], np.float32)
    face = analyzer.aligner.align(empty, box)[0]
    return analyzer.analyze(empty) == [] and bool(np.isfinite(face.vertices).all())


_CHECKS: dict[str, Callable[[], bool]] = {
    "nms": _check_nms,
    "prior boxes": _check_priors,
    "rasterizer": _check_rasterizer,
    "pose": _check_pose,
}
