"""Expressions by ARKit's names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from head import head_face, head_params, load_head
from threedfa import Face, FaceAnalyzer, PackError
from threedfa.blendshapes import ARKIT_NAMES, Blendshapes
from toy_pack import build_toy_pack

NAMES = ("jawOpen", "mouthSmileLeft", "wrinkle")


def named_face(folder: Path, coefficients: Any, names: tuple[str, ...] = NAMES) -> Face:
    model = load_head(folder / "m.safetensors")
    model.expression_names = names
    return head_face(model, head_params(coefficients=[0, 0, 0, 0, *coefficients]))


def test_names() -> None:
    assert len(ARKIT_NAMES) == 52 == len(set(ARKIT_NAMES))
    for name in ARKIT_NAMES:  # each side has its other
        for one, other in (("Left", "Right"), ("Right", "Left")):
            if name.endswith(one) and name != f"jaw{one}" and name != f"mouth{one}":
                assert name.removesuffix(one) + other in ARKIT_NAMES


def test_weights_by_name(tmp_path: Path) -> None:
    shapes = named_face(tmp_path, (0.25, 0.75, 0.5)).blendshapes
    assert dict(shapes) == {"jawOpen": 0.25, "mouthSmileLeft": 0.75}
    assert shapes == dict(shapes) and dict(shapes) == shapes
    assert shapes != {**shapes, "jawOpen": 0.5}
    assert len(shapes) == 2 and "wrinkle" not in shapes
    assert "tongueOut" in shapes.unsupported and len(shapes.unsupported) == 50
    assert {*shapes, *shapes.unsupported} == set(ARKIT_NAMES)
    with pytest.raises(KeyError):
        shapes["tongueOut"]


def test_weights_stay_in_range_and_in_order(tmp_path: Path) -> None:
    names = ("mouthSmileLeft", "jawOpen", "eyeBlinkLeft")
    shapes = named_face(tmp_path, (-0.5, 1.5, 1), names).blendshapes
    assert list(shapes.items()) == [
        ("eyeBlinkLeft", 1.0),
        ("jawOpen", 1.0),
        ("mouthSmileLeft", 0.0),
    ]


def test_all_52() -> None:
    shapes = Blendshapes.of(ARKIT_NAMES, np.linspace(0, 1, 52, dtype=np.float32))
    assert list(shapes) == list(ARKIT_NAMES) and shapes.unsupported == ()


@pytest.mark.parametrize(("names", "said"), [((), "no names"), (("a", "b", "c"), "a, b, c")])
def test_packs_without_the_names(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    face = named_face(tmp_path, (0, 0, 0), names)
    with pytest.raises(PackError, match=rf"morphable_model\.expression_names.*{said}"):
        _ = face.blendshapes


def test_names_and_unit_come_from_the_pack(tmp_path: Path) -> None:
    plain = FaceAnalyzer(build_toy_pack(tmp_path / "plain")).model
    assert plain.expression_names == () and plain.centimetres_per_unit is None
    pack = build_toy_pack(tmp_path / "named", model={"expression_names": NAMES, "unit": "metre"})
    model = FaceAnalyzer(pack).model
    assert model.expression_names == NAMES and model.centimetres_per_unit == 100
