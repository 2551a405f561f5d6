"""A part of one portrait's face in the place of another's.

Portraits are few, and a network learns by heart what the face of each does at rest. Two of them
together make many people: a donor gives brows and eyes, nose and mouth or all of these, its colours
brought to the mean and the spread that the other face has there. Shapes do not change, textures
lie on the mesh.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from face import Array
from numpy.typing import NDArray

if TYPE_CHECKING:
    from renders import Head

Image = NDArray[np.uint8]

EYES = (*range(17, 27), *range(36, 48))  # of the 68 landmarks: brows and eyes
MOUTH = (*range(27, 36), *range(48, 68))  # nose and mouth
WHOLE_CM, GONE_CM = 0.6, 2.0  # from these landmarks: all of the donor, nothing of it
MOST_GAIN = 1.6  # of contrast; more would show noise


def looked_up(texture: Image, places: Array) -> Array:
    """Colours (H, W, 3), float32, of a texture at places (H, W, 2)."""
    found = cv2.remap(texture, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return found.astype(np.float32)


@dataclass(frozen=True)
class Donor:
    """Whose face is shown, where, and how its colours change.

    Attributes:
        head: whose face it is.
        weight: (V,) of the donor at each vertex, 0 to 1.
        gain, offset: (3,) for its colours.
    """

    head: Head
    weight: Array
    gain: Array
    offset: Array

    @staticmethod
    def draw(receiver: Head, donor: Head, covered: bool, rng: np.random.Generator) -> Donor:
        """Choose a part; not the eyes where those of one of both are covered."""
        parts = [MOUTH] if covered else [EYES, MOUTH, (*EYES, *MOUTH)]
        part = parts[rng.integers(len(parts))]
        model = donor.model
        marks = model.points68.of(model.mean)[list(part)]
        distance = np.linalg.norm(model.mean[:, None] - marks, axis=2).min(1)
        weight = np.clip((GONE_CM - distance) / (GONE_CM - WHOLE_CM), 0, 1).astype(np.float32)
        weight = weight * weight * (3 - 2 * weight)
        shown = np.flatnonzero(weight > 0.5)
        here, there = (
            looked_up(head.texture, head.places[None, shown])[0] for head in (receiver, donor)
        )
        gain = np.clip(here.std(0) / np.maximum(there.std(0), 1), 1 / MOST_GAIN, MOST_GAIN)
        return Donor(donor, weight, gain, here.mean(0) - gain * there.mean(0))

    def attributes(self, coefficients: Array) -> Array:
        """(V, 3) places in the donor's texture and its weight, for a face to draw."""
        return np.column_stack([self.head.places_for(coefficients), self.weight])

    def shown(self, image: Array, drawn: Array) -> Array:
        """An image (H, W, 3) with the donor in it, from its attributes (H, W, 3) as drawn."""
        colors = looked_up(self.head.texture, np.ascontiguousarray(drawn[..., :2]))
        colors = np.clip(self.gain * colors + self.offset, 0, 255)
        result: Array = image + drawn[..., 2:] * (colors - image)
        return result
