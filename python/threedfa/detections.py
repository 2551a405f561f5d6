"""What a detector returns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True, eq=False, init=False)
class Detections:
    """The faces found in one image, best first; empty where there is none.

    Attributes:
        xyxy: float32 (N, 4) boxes in pixels, not clipped to the image.
        confidence: float32 (N,) scores 0..1.
        quarter_turns: int64 (N,) by how many quarters, 0..3, each face is turned clockwise in the
            image; 0 where none are given: upright.

    Raises:
        ValueError: for other shapes, or turns outside 0..3.
    """

    xyxy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    quarter_turns: NDArray[np.int64]

    def __init__(
        self, xyxy: ArrayLike, confidence: ArrayLike, quarter_turns: ArrayLike | None = None
    ) -> None:
        boxes, scores = np.asarray(xyxy, np.float32), np.asarray(confidence, np.float32)
        if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != (len(boxes),):
            raise ValueError(
                f"detections: expected xyxy (N, 4) and confidence (N,), got {boxes.shape} and "
                f"{scores.shape}"
            )
        if quarter_turns is None:
            turns = np.zeros(len(boxes), np.int64)
        else:
            turns = np.asarray(quarter_turns, np.int64)
            if turns.shape != scores.shape or ((turns < 0) | (turns > 3)).any():
                raise ValueError(
                    f"detections: expected quarter_turns ({len(boxes)},) of 0..3, got shape "
                    f"{turns.shape}" + (f" and {turns.min()}..{turns.max()}" if turns.size else "")
                )
        object.__setattr__(self, "xyxy", boxes)
        object.__setattr__(self, "confidence", scores)
        object.__setattr__(self, "quarter_turns", turns)

    def __len__(self) -> int:
        return len(self.confidence)

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], float]]:
        """Yields (box (4,), score)."""
        for box, score in zip(self.xyxy, self.confidence, strict=True):
            yield box, float(score)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> tuple[NDArray[np.float32], float]: ...
    @overload
    def __getitem__(self, index: slice | list[int] | list[bool] | NDArray[Any]) -> Detections: ...
    def __getitem__(
        self, index: int | np.integer[Any] | slice | list[int] | list[bool] | NDArray[Any]
    ) -> tuple[NDArray[np.float32], float] | Detections:
        """One (box, score) for an integer; a selection for a slice, and a mask or indices in a list
        or an array."""
        if isinstance(index, (int, np.integer)):
            return self.xyxy[index], float(self.confidence[index])
        return Detections(self.xyxy[index], self.confidence[index], self.quarter_turns[index])

    def to_supervision(self) -> supervision.Detections:
        """The same as ``supervision.Detections``.

        Raises:
            ImportError: if the package ``supervision`` is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError(
                "to_supervision needs the package supervision: pip install supervision"
            ) from error
        return supervision.Detections(xyxy=self.xyxy.copy(), confidence=self.confidence.copy())


@dataclass(frozen=True, eq=False)
class RefusedFace:
    """What a detector found and the pack does not take for a face.

    Attributes:
        bbox: float32 (4,) x1 y1 x2 y2 in pixels, not clipped.
        score: of the detector, 0..1.
        confidence: that it is a face, 0..1; less than the ``confidence_threshold``.
    """

    bbox: NDArray[np.float32]
    score: float
    confidence: float
