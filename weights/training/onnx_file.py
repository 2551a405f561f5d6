"""Writing a network as an ONNX file that does what PyTorch does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx

from threedfa.files import atomic_write


def write_compared(
    path: Path, model: onnx.ModelProto, difference: Callable[[Path], float], tolerance: float
) -> float:
    """Write a network, unless it differs from the checkpoint.

    Args:
        path: the file, which appears only if all is well.
        model: what to write.
        difference: how far a file's outputs are from PyTorch's; NaN where one of them is.
        tolerance: what is less than this is none.

    Returns:
        The difference.

    Raises:
        ValueError: if it is too large.
    """
    with atomic_write(path) as stream:
        stream.write(model.SerializeToString())
        stream.flush()
        largest = difference(Path(stream.name))
        if not largest < tolerance:  # also of NaN
            raise ValueError(
                f"the ONNX network differs from the checkpoint by {largest:.2e}, expected less "
                f"than {tolerance}; do not use it"
            )
    return largest
