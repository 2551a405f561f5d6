"""Step 6: put the default pack together.

    python weights/training/make_pack.py --detector CACHE/detector \
        --regressor CACHE/regressor.onnx --out weights/default

``--detector`` holds ``detector.onnx`` and ``detector.json``; beside the regressor lies its
``.json``; the face model, ``model.safetensors``, is in ``--out`` already. The pack is opened and
tried on an empty picture before the program ends.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
from face import Morphable

from threedfa import FaceAnalyzer
from threedfa.files import atomic_write

LICENCE = "MIT; NOTICE lists the works that the face model and the training pictures derive from"
SOURCE = (
    "made by weights/training from ICT-FaceKit and from generated portraits of people who do not "
    "exist; see MODEL_CARD.md"
)
MOST_BYTES = 14_000_000


def write_pack(detector: Path, regressor: Path, out: Path) -> int:
    """Write networks and settings beside the model; the pack's size in bytes."""
    contents = {
        "detector.onnx": (detector / "detector.onnx").read_bytes(),
        "regressor.onnx": regressor.read_bytes(),
        "model.safetensors": (out / "model.safetensors").read_bytes(),
    }
    settings = {
        "schema_version": 1,
        "name": "default",
        "licence": LICENCE,
        "source": SOURCE,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
        "detector": json.loads((detector / "detector.json").read_text()),
        "regressor": json.loads(regressor.with_suffix(".json").read_text())
        | {"file": "regressor.onnx"},
        "morphable_model": {
            "file": "model.safetensors",
            "unit": "centimetre",
            "expression_names": list(Morphable.load(out / "model.safetensors").expression_names),
        },
    }
    contents["pack.json"] = (json.dumps(settings, indent=1) + "\n").encode()
    size = sum(len(data) for data in contents.values())
    if size > MOST_BYTES:
        raise ValueError(f"expected a pack of at most {MOST_BYTES} bytes, got {size}")
    for name, data in contents.items():
        with atomic_write(out / name) as stream:
            stream.write(data)
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--detector", type=Path, required=True, help="folder of the detector")
    parser.add_argument("--regressor", type=Path, required=True, help="ONNX file")
    parser.add_argument("--out", type=Path, default=Path("weights/default"))
    options = parser.parse_args()
    size = write_pack(options.detector, options.regressor, options.out)
    faces = FaceAnalyzer(options.out).analyze(np.full((240, 320, 3), 127, np.uint8))
    print(f"{options.out}: {size / 1e6:.2f} MB; {len(faces)} faces in an empty picture")


if __name__ == "__main__":
    main()
