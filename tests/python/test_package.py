"""The package as a whole: what importing it does, what it exports, what its sources look like."""

from __future__ import annotations

import ast
import inspect
import json
import os
import pkgutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module, resources
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import threedfa

PACKAGE = Path(threedfa.__file__).parent

EXPORTED = {
    "Analysis",
    "BackendError",
    "Detections",
    "ExportError",
    "Face",
    "FaceAligner",
    "FaceAnalyzer",
    "FaceDetector",
    "ImageError",
    "ImageSizeError",
    "MorphableModel",
    "Pack",
    "PackError",
    "Pose",
    "PriorConfig",
    "RefusedFace",
    "ServerError",
    "ThreedfaError",
    "compat",
    "import_upstream_pack",
    "list_packs",
    "load_image",
    "ops",
    "pack_path",
    "render",
    "save_image",
    "save_mesh",
    "uv_texture",
    "verify_pack",
}
OPS = {"Raster", "decode_boxes", "nms", "prior_boxes", "rasterize", "vertex_normals"}
COMPAT = {"FaceBoxes_ONNX", "Instance", "TDDFA_ONNX"}
# What only an extra installs, and the modules that need it.
OPTIONAL = {
    "torch": ("threedfa.backend_torch",),
    "httpx": ("threedfa.client",),
    "fastapi": tuple(
        f"threedfa.web.{name}"
        for name in (
            *("access", "answers", "app", "batching", "capacity", "command", "gate", "legacy"),
            *("metrics", "pictures", "problems", "routes", "service"),
        )
    ),
}
WEB = ("multipart", "prometheus_client", "starlette", "uvicorn")

WATCHED_IMPORT = """
import json, os, sys, threading
import numpy  # opens its own files and starts threads of its linear algebra

seen = []
def watch(event, arguments):
    if event == "open":
        seen.append([event, os.path.abspath(os.fsdecode(arguments[0])), arguments[1] or "r"]
                    if isinstance(arguments[0], (str, bytes)) else [event, None, None])
    elif event.startswith(("socket.", "subprocess.", "os.mkdir", "os.rename", "os.remove",
                           "os.rmdir", "os.putenv", "os.unsetenv", "shutil.", "tempfile.",
                           "urllib.", "_thread.start")):
        seen.append([event, None, None])

def threads():
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()

before = dict(os.environ), threads(), set(sys.modules)
sys.addaudithook(watch)
import threedfa
after = dict(os.environ), threads(), set(sys.modules)
print(json.dumps({
    "seen": list(seen),
    "environment": before[0] == after[0],
    "threads": after[1] - before[1],
    "modules": sorted(after[2] - before[2]),
}))
"""


def run_python(program: str, *flags: str) -> str:
    """What a fresh Python prints that finds this package."""
    return subprocess.run(
        [sys.executable, *flags, "-c", program],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


@pytest.fixture(scope="module")
def imported() -> dict[str, Any]:
    """What happens in a fresh process at ``import threedfa``."""
    result: dict[str, Any] = json.loads(run_python(WATCHED_IMPORT))
    return result


# --- import ---------------------------------------------------------------------------------------


def test_import_opens_only_sources(imported: dict[str, Any]) -> None:
    code = (".py", ".pyc", ".so", ".pyd")
    library = Path(os.__file__).parent  # parts of the standard library that were not needed before
    assert any("errors" in str(path) for _, path, _ in imported["seen"])  # the watch works
    for event, path, mode in imported["seen"]:
        assert event == "open", event  # no socket, no process, no folder, no variable, no thread
        assert mode in ("r", "rb"), (path, mode)
        where = Path(path)
        assert where.suffix in code, path
        assert where.is_relative_to(PACKAGE) or where.is_relative_to(library), path


def test_import_starts_no_thread_and_sets_no_variable(imported: dict[str, Any]) -> None:
    assert imported["threads"] == 0
    assert imported["environment"]


def test_import_loads_nothing_heavy(imported: dict[str, Any]) -> None:
    roots = {name.partition(".")[0] for name in imported["modules"]}
    assert not roots & {
        "PIL",
        "cv2",
        "fastapi",
        "onnx",
        "onnxruntime",
        "platformdirs",
        "safetensors",
        "starlette",
        "torch",
        "tqdm",
    }
    assert sorted(name for name in imported["modules"] if name.startswith("threedfa")) == [
        "threedfa",
        "threedfa._core",
        "threedfa.errors",
    ]


def test_no_module_needs_what_only_an_extra_installs() -> None:
    """Each module imports where the optional packages are absent."""
    blocked = dict.fromkeys((*OPTIONAL, *WEB, "supervision", "scipy", "matplotlib"))
    optional = {name for modules in OPTIONAL.values() for name in modules}
    modules = [name for name in module_names() if name not in optional]
    program = f"import sys; sys.modules.update({blocked!r})\n"
    program += "\n".join(f"import {name}" for name in modules)
    run_python(program, "-W", "error")


# --- names ----------------------------------------------------------------------------------------


def test_exported_names() -> None:
    assert set(threedfa.__all__) == EXPORTED
    assert threedfa.__all__ == sorted(threedfa.__all__)
    for name in threedfa.__all__:
        assert getattr(threedfa, name) is not None
    assert set(dir(threedfa)) >= EXPORTED
    assert set(threedfa.ops.__all__) == OPS
    assert all(callable(getattr(threedfa.ops, name)) for name in OPS)
    assert all(callable(getattr(threedfa.compat, name)) for name in COMPAT)


def test_names_stay_what_they_are_when_modules_are_imported() -> None:
    """`threedfa.NAME` is never a module of that name, whatever was imported before it."""
    imports = "".join(f"import {name}\n" for name in module_names() if "backend_" not in name)
    program = "print([n for n in threedfa.__all__ if type(getattr(threedfa, n)) is type(threedfa)])"
    assert run_python(imports + program).strip() == "['compat', 'ops']"


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="module 'threedfa' has no attribute 'detect_cats'"):
        _ = threedfa.detect_cats  # type: ignore[attr-defined]


def test_errors() -> None:
    for error in (
        threedfa.PackError,
        threedfa.BackendError,
        threedfa.ExportError,
        threedfa.ServerError,
    ):
        assert issubclass(error, threedfa.ThreedfaError)
        assert not issubclass(error, (ValueError, OSError))
    assert issubclass(threedfa.ImageError, threedfa.ThreedfaError)
    assert issubclass(threedfa.ImageError, ValueError)


def test_version() -> None:
    assert threedfa.__version__.count(".") == 2
    assert all(part.isdigit() for part in threedfa.__version__.split("."))


# --- sources --------------------------------------------------------------------------------------


PROPERTIES = (property, cached_property)


def module_names() -> list[str]:
    found = pkgutil.walk_packages([str(PACKAGE)], "threedfa.")
    return ["threedfa", *(module.name for module in found)]


def modules() -> Iterator[ModuleType]:
    for name in module_names():
        if any(name in optional and not find_spec(extra) for extra, optional in OPTIONAL.items()):
            continue
        if name != "threedfa._core":
            yield import_module(name)


def undocumented() -> Iterator[str]:
    """Public modules, functions, classes, and the public members of the exported classes."""
    exported = [getattr(threedfa, name) for name in EXPORTED] + [threedfa.ops.Raster]
    for module in modules():
        if not module.__doc__:
            yield module.__name__
        for name, item in vars(module).items():
            code = inspect.isfunction(item) or inspect.isclass(item)
            if name.startswith("_") or not code or item.__module__ != module.__name__:
                continue
            if not item.__doc__:
                yield f"{module.__name__}.{name}"
            for member, value in vars(item).items() if item in exported else ():
                documents = inspect.isroutine(value) or isinstance(
                    value, (property, cached_property)
                )
                if not member.startswith("_") and documents and not inspect.getdoc(value):
                    yield f"{module.__name__}.{name}.{member}"


def test_public_names_have_docstrings() -> None:
    assert list(undocumented()) == []


def imports_of(path: Path) -> set[str]:
    """Roots of the absolute imports anywhere in a file."""
    roots = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            roots.add(node.module.partition(".")[0])
    return roots


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        ("onnxruntime", {"backend_onnxruntime.py"}),
        ("torch", {"backend_torch.py"}),
        ("supervision", {"detections.py"}),
        ("scipy", set()),
        ("matplotlib", set()),
    ],
)
def test_packages_that_one_module_deals_with(package: str, homes: set[str]) -> None:
    found = {path.name for path in PACKAGE.rglob("*.py") if package in imports_of(path)}
    assert found == homes


def test_nothing_is_unpickled_by_the_stock_unpickler() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                call = ast.unparse(node.func)
                assert call not in ("pickle.load", "pickle.loads", "torch.load"), path
                if call == "np.load":
                    assert "allow_pickle=False" in ast.unparse(node), path


# --- types ----------------------------------------------------------------------------------------


def test_typing_marker_stubs_and_data_are_installed() -> None:
    files = resources.files("threedfa")
    for name in ("py.typed", "_core.pyi", "data/sample.jpg", "schemas/result.schema.json"):
        assert files.joinpath(name).is_file(), name


def test_stubs_name_what_the_module_has() -> None:
    tree = ast.parse((PACKAGE / "_core.pyi").read_text("utf-8"))
    stubs = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert stubs == {name for name in vars(threedfa._core) if not name.startswith("_")}


def test_stubs_match_the_module(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="needs mypy, of the extra [lint]")
    allowed = tmp_path / "allowed"  # pybind11's metaclass, a missing constructor
    allowed.write_text(
        "threedfa._core.MorphableModel\nthreedfa._core.MorphableModel.__init__\n"
        "threedfa._core.Subdivision\nthreedfa._core.VertexRings\n"
    )
    # mypy refuses to be told of the folder of installed packages, where it looks anyway.
    installed = PACKAGE.parent == Path(sysconfig.get_path("platlib"))
    stubs_folder = {} if installed else {"MYPYPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "threedfa._core", "--allowlist", str(allowed)]
        + ["--ignore-unused-allowlist"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), **stubs_folder},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
