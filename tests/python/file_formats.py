"""Files in the formats of NumPy, MATLAB and PyTorch, in memory."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def npy_file(array: Array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def mat_file(name: str, matrix: Array) -> bytes:
    """A MATLAB 5 file with one matrix of doubles, not compressed."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)

    content = element(6, struct.pack("<II", 6, 0))  # flags: class double
    content += element(5, struct.pack("<ii", *matrix.shape))
    content += element(1, name.encode())
    content += element(9, np.asarray(matrix, "<f8").tobytes(order="F"))
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    return header + element(14, content)


def torch_file(content: dict[str, Any]) -> bytes:
    """What torch.save writes for tensors of float32 in a dict or a dict of dicts."""
    storages: list[bytes] = []

    def text(value: str) -> bytes:
        data = value.encode()
        return b"X" + struct.pack("<I", len(data)) + data

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    def tensor(array: Array) -> bytes:
        key = str(len(storages))
        storages.append(array.astype("<f4").tobytes())
        strides = tuple(step // array.itemsize for step in array.strides)
        storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu")
        storage += number(array.size) + b"tQ"
        arguments = storage + number(0) + numbers(array.shape) + numbers(strides)
        hooks = b"ccollections\nOrderedDict\n)R"
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"\x89" + hooks + b"tR"

    def value(item: Any) -> bytes:
        if isinstance(item, dict):
            return b"}(" + b"".join(text(k) + value(v) for k, v in item.items()) + b"u"
        return tensor(np.ascontiguousarray(item))

    program = b"\x80\x02" + value(content) + b"."
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", b"3\n")
        for key, data in enumerate(storages):
            archive.writestr(f"archive/data/{key}", data)
    return stream.getvalue()
