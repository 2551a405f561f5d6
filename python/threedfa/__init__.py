"""3D faces from photographs.

>>> import threedfa
>>> analyzer = threedfa.FaceAnalyzer()
>>> faces = analyzer.analyze("photo.jpg")
>>> faces[0].landmarks, faces[0].vertices, faces[0].pose.yaw
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import _core
from .errors import (
    BackendError,
    ExportError,
    ImageError,
    ImageSizeError,
    PackError,
    ServerError,
    ThreedfaError,
)

if TYPE_CHECKING:
    from . import compat as compat
    from . import ops as ops
    from .aligner import FaceAligner as FaceAligner
    from .analyzer import FaceAnalyzer as FaceAnalyzer
    from .detections import Detections as Detections
    from .detections import RefusedFace as RefusedFace
    from .detector import FaceDetector as FaceDetector
    from .export import save_mesh as save_mesh
    from .face import Analysis as Analysis
    from .face import Face as Face
    from .face import Pose as Pose
    from .image import load_image as load_image
    from .image import save_image as save_image
    from .model import MorphableModel as MorphableModel
    from .pack import Pack as Pack
    from .pack import list_packs as list_packs
    from .pack import pack_path as pack_path
    from .pack import verify_pack as verify_pack
    from .priors import PriorConfig as PriorConfig
    from .rendering import render as render
    from .textures import uv_texture as uv_texture
    from .upstream.convert import import_upstream_pack as import_upstream_pack

__version__ = _core.__version__

# Loaded when first asked for, so that `import threedfa` costs little more than `import numpy`.
_HOMES = {
    "Analysis": "face",
    "Detections": "detections",
    "Face": "face",
    "FaceAligner": "aligner",
    "FaceAnalyzer": "analyzer",
    "FaceDetector": "detector",
    "MorphableModel": "model",
    "Pack": "pack",
    "Pose": "face",
    "PriorConfig": "priors",
    "RefusedFace": "detections",
    "import_upstream_pack": "upstream.convert",
    "list_packs": "pack",
    "load_image": "image",
    "pack_path": "pack",
    "render": "rendering",
    "save_image": "image",
    "save_mesh": "export",
    "uv_texture": "textures",
    "verify_pack": "pack",
}
_MODULES = ("compat", "ops")

__all__ = [
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
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value  # a submodule of the same name must not take its place
        return value
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
