"""Expressions as ARKit's blend shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .errors import PackError

# Source: ARFaceAnchor.BlendShapeLocation in Apple's ARKit documentation. Left and right are the
# subject's.
ARKIT_NAMES: Final[tuple[str, ...]] = (
    *("eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft"),
    *("eyeSquintLeft", "eyeWideLeft"),
    *("eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight", "eyeLookOutRight", "eyeLookUpRight"),
    *("eyeSquintRight", "eyeWideRight"),
    *("jawForward", "jawRight", "jawLeft", "jawOpen"),
    *("mouthClose", "mouthFunnel", "mouthPucker", "mouthRight", "mouthLeft"),
    *("mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight"),
    *("mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight"),
    *("mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
    *("mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft", "mouthLowerDownRight"),
    *("mouthUpperUpLeft", "mouthUpperUpRight"),
    *("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    *("cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight"),
    "tongueOut",
)
"""The 52 names, in the order of Live Link Face."""


@dataclass(frozen=True, eq=False)  # equal as mappings are
class Blendshapes(Mapping[str, float]):
    """Weights 0..1 by ARKit's names, in the order of ``ARKIT_NAMES``.

    Attributes:
        unsupported: the names that the pack's model has no expression for, and so are not among
            the keys.
    """

    _weights: dict[str, float]
    unsupported: tuple[str, ...]

    @staticmethod
    def known_to(names: tuple[str, ...]) -> bool:
        """Whether any of a model's expression names is ARKit's."""
        return not set(ARKIT_NAMES).isdisjoint(names)

    @classmethod
    def of(cls, names: tuple[str, ...], coefficients: NDArray[np.float32]) -> Blendshapes:
        """From expression coefficients (E,) and their names; others than ARKit's are left out.

        Coefficients outside 0..1, which no blend shape may have, are moved to the nearer end.

        Raises:
            PackError: if none of the names is ARKit's.
        """
        found = {
            name: float(weight)
            for name, weight in zip(names, coefficients.clip(0, 1), strict=bool(names))
        }
        weights = {name: found[name] for name in ARKIT_NAMES if name in found}
        if not weights:
            raise PackError(
                "blend shapes need a pack whose pack.json names its expressions as ARKit does "
                "(morphable_model.expression_names), such as the default one; this pack's "
                + (f"expressions are {', '.join(names[:5])}, ..." if names else "have no names")
            )
        return cls(weights, tuple(name for name in ARKIT_NAMES if name not in weights))

    def __getitem__(self, name: str) -> float:
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)
