"""The configuration of a detector's prior boxes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PriorSize:
    """Square priors of one side length in each cell of a grid.

    Attributes:
        size: side in pixels, > 0.
        density: ``density × density`` priors a cell.
        offset: the first centre in a cell, in cells; the next follow at ``1 / density``.
    """

    size: float
    density: int = 1
    offset: float = 0.5


@dataclass(frozen=True)
class PriorLevel:
    """One output map of a detector: a grid of cells, ``step`` pixels wide."""

    step: int
    sizes: tuple[PriorSize, ...]


@dataclass(frozen=True)
class PriorConfig:
    """The priors of an SSD-style detector, map by map."""

    levels: tuple[PriorLevel, ...]

    @classmethod
    def faceboxes(cls) -> PriorConfig:
        """The priors of FaceBoxes (Zhang et al. 2017), as its published weights expect them."""
        return cls(
            (
                PriorLevel(32, (PriorSize(32, 4, 0.0), PriorSize(64, 2, 0.0), PriorSize(128))),
                PriorLevel(64, (PriorSize(256),)),
                PriorLevel(128, (PriorSize(512),)),
            )
        )

    def as_tuples(self) -> tuple[tuple[int, tuple[tuple[float, int, float], ...]], ...]:
        """``((step, ((size, density, offset), …)), …)``, as the kernels take it."""
        return tuple(
            (level.step, tuple((s.size, s.density, s.offset) for s in level.sizes))
            for level in self.levels
        )
