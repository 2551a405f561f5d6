"""Pickles of numpy arrays and torch state dicts, read without ever running what they say.

A pickle is a program. The stock unpickler runs it and calls whatever it names; the machine here
knows only the opcodes that build plain containers, numbers, strings and arrays, and a short list
of names that it interprets itself. Nothing is imported and nothing but the functions of this
module is called, so there is nothing for a hostile file to call. Work and memory are bounded: by
the file's size, by the number of opcodes and by the bytes of the arrays they declare.
"""

from __future__ import annotations

import io
import math
import os
import pickletools
import stat
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .untrusted import Malformed, opened

Array = npt.NDArray[Any]

MAX_BYTES = 256 * 2**20
_MAX_OPCODES = 1_000_000
_MAX_DEPTH = 32
_MAX_NODES = 1_000_000
_MAX_ZIP_MEMBERS = 10_000
_MAX_DIMENSIONS = 8

_DTYPES = frozenset(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
_TORCH_DTYPES = {
    "HalfStorage": "<f2",
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "ShortStorage": "<i2",
    "IntStorage": "<i4",
    "LongStorage": "<i8",
}

_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_TORCH_PROTOCOL = 1001


def load_pickle(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> object:
    """Read a pickle of plain containers and numeric numpy arrays.

    Protocols 0 to 5, written by Python 2 or 3 with numpy 1 or 2. ``OrderedDict`` comes back as
    ``dict``, a numpy scalar as a Python number, an array C-contiguous in native byte order.

    Args:
        path: the file.
        max_bytes: limit on the file's size and, separately, on the bytes of all its arrays.

    Returns:
        None, bool, int, float, str, bytes, ndarray, or list, tuple and dict of such, the keys of
        a dict being str or int.

    Raises:
        PackError: if the file is unreadable, truncated or over a limit, or holds anything else.
    """
    with opened(path, max_bytes) as data:
        stream = io.BytesIO(data)
        value = _run(stream, _numpy_calls(_Budget(max_bytes)))
        if stream.read(1):
            raise Malformed("there are bytes after the end of the pickle")
        return _Plain().copy(value)


def load_torch(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> dict[str, Array]:
    """Read a torch state dict, from the zip format or the one of torch before 1.6.

    A checkpoint ``{"state_dict": ...}`` is unwrapped and the prefix ``module.`` that
    ``DataParallel`` adds is removed. Devices are ignored.

    Args:
        path: the ``.pth`` file.
        max_bytes: limit on the file's size and, separately, on the bytes of all its tensors.

    Returns:
        One C-contiguous array per tensor, in the order of the file.

    Raises:
        PackError: if the file is unreadable, truncated or over a limit, or holds anything else.
    """
    with opened(path, max_bytes) as data:
        read = _read_torch_zip if data[:4] == b"PK\x03\x04" else _read_torch_legacy
        root, contents = read(data)
        return _state_dict(root, contents, _Budget(max_bytes))


# --- values a pickle names ------------------------------------------------------------------


@dataclass(frozen=True)
class _Global:
    """A permitted name: something to call (or, without ``call``, only to mention)."""

    name: str
    call: Callable[[tuple[Any, ...]], object] | None


@dataclass
class _Dtype:
    """A numpy dtype; its byte order arrives later, with BUILD."""

    code: str
    order: str = "<"

    def set_state(self, state: object) -> None:
        if not (isinstance(state, tuple) and 5 <= len(state) <= 9):
            raise Malformed("a dtype has an unknown state")
        if state[1] not in ("<", ">", "|") or any(part is not None for part in state[2:5]):
            raise Malformed("a dtype is not a plain number")
        self.order = state[1]

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


@dataclass
class _ArrayBox:
    """An array whose content arrives later, with BUILD."""

    budget: _Budget
    value: Array | None = None

    def set_state(self, state: object) -> None:
        if not (isinstance(state, tuple) and len(state) == 5):
            raise Malformed("an array has an unknown state")
        _, shape, dtype, fortran, content = state
        self.value = _array(content, dtype, shape, "F" if fortran else "C", self.budget)


@dataclass(frozen=True)
class _Storage:
    """A block of numbers of a torch file, which holds its bytes elsewhere."""

    key: str
    dtype: np.dtype[Any]
    size: int

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize


@dataclass(frozen=True)
class _Tensor:
    """A strided view of a storage; offset and stride in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass
class _Budget:
    """Bytes that may still be made: a pickle can name the same bytes any number of times."""

    left: int

    def take(self, size: int) -> None:
        if size > self.left:
            raise Malformed(f"arrays of more bytes than the limit: {size} more, {self.left} left")
        self.left -= size


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**40


def _shape(value: object) -> tuple[int, ...]:
    if not (isinstance(value, tuple) and len(value) <= _MAX_DIMENSIONS):
        raise Malformed(f"a shape is not a tuple of at most {_MAX_DIMENSIONS} sizes")
    if not all(map(_is_count, value)):
        raise Malformed("a shape, stride or offset is negative, absurdly large or not an integer")
    return value


def _array(content: object, dtype: object, shape: object, order: Any, budget: _Budget) -> Array:
    if not isinstance(dtype, _Dtype):
        raise Malformed("an array has no dtype")
    if not isinstance(content, bytes | bytearray | str):
        raise Malformed(f"the content of an array is {type(content).__name__}, not bytes")
    kind, sizes = dtype.numpy(), _shape(shape)
    expected = math.prod(sizes) * kind.itemsize
    if len(content) != expected:
        raise Malformed(f"an array declares {expected} bytes and brings {len(content)}")
    budget.take(expected)
    if isinstance(content, str):
        # Python 2 wrote bytes as str, which the opcode reader decodes as latin-1.
        content = content.encode("latin-1")
    view: Array = np.ndarray(sizes, kind, buffer=content, order=order)
    return np.array(view, dtype=kind.newbyteorder("="), order="C")


def _arguments(value: object, minimum: int, maximum: int, what: str) -> tuple[Any, ...]:
    if not (isinstance(value, tuple) and minimum <= len(value) <= maximum):
        raise Malformed(f"{what} has the wrong number of arguments")
    return value


def _ordered_dict(arguments: tuple[Any, ...]) -> object:
    # Made empty and then filled with SETITEMS.
    _arguments(arguments, 0, 0, "OrderedDict")
    return {}


def _numpy_calls(budget: _Budget) -> dict[str, _Global]:
    """The names that pickles of numpy arrays use, for both generations of module names."""

    def reconstruct(arguments: tuple[Any, ...]) -> object:
        kind, _, _ = _arguments(arguments, 3, 3, "_reconstruct")
        if not (isinstance(kind, _Global) and kind.name == "numpy.ndarray"):
            raise Malformed("_reconstruct is asked for something other than numpy.ndarray")
        return _ArrayBox(budget)

    def frombuffer(arguments: tuple[Any, ...]) -> object:
        content, dtype, shape, order = _arguments(arguments, 4, 4, "_frombuffer")
        if order not in ("C", "F"):
            raise Malformed("_frombuffer has an unknown order")
        return _ArrayBox(budget, _array(content, dtype, shape, order, budget))

    def scalar(arguments: tuple[Any, ...]) -> object:
        dtype, content = _arguments(arguments, 2, 2, "scalar")
        return _array(content, dtype, (), "C", budget).item()

    def dtype(arguments: tuple[Any, ...]) -> object:
        code = _arguments(arguments, 1, 3, "dtype")[0]
        if not (isinstance(code, str) and code in _DTYPES):
            name = ascii(code[:40]) if isinstance(code, str) else type(code).__name__
            raise Malformed(f"dtype {name} is not a plain number")
        return _Dtype(code)

    def encode(arguments: tuple[Any, ...]) -> object:
        # How protocols 0 to 2 of Python 3 write bytes.
        text, encoding = _arguments(arguments, 2, 2, "_codecs.encode")
        if not (isinstance(text, str) and encoding == "latin1"):
            raise Malformed("_codecs.encode is asked for something other than latin1")
        budget.take(len(text))
        return text.encode("latin-1")

    def empty_bytes(arguments: tuple[Any, ...]) -> object:
        # How protocols 0 to 2 of Python 3 write b"".
        _arguments(arguments, 0, 0, "bytes")
        return b""

    calls: dict[str, Callable[[tuple[Any, ...]], object] | None] = {
        "numpy.ndarray": None,
        "numpy.dtype": dtype,
        "collections.OrderedDict": _ordered_dict,
        "_codecs.encode": encode,
        "__builtin__.bytes": empty_bytes,
    }
    for core in ("numpy.core", "numpy._core"):
        calls[f"{core}.multiarray._reconstruct"] = reconstruct
        calls[f"{core}.multiarray.scalar"] = scalar
        calls[f"{core}.numeric._frombuffer"] = frombuffer
    return {name: _Global(name, call) for name, call in calls.items()}


def _torch_calls() -> dict[str, _Global]:
    """The names that torch state dicts use."""

    def rebuild(arguments: tuple[Any, ...]) -> object:
        storage, offset, shape, stride = _arguments(arguments, 6, 7, "_rebuild_tensor_v2")[:4]
        if not isinstance(storage, _Storage):
            raise Malformed("a tensor has no storage")
        (offset,) = _shape((offset,))
        sizes, steps = _shape(shape), _shape(stride)
        if len(sizes) != len(steps):
            raise Malformed("a tensor's shape and stride differ in length")
        return _Tensor(storage, offset, sizes, steps)

    calls = {"collections.OrderedDict": _Global("collections.OrderedDict", _ordered_dict)}
    name = "torch._utils._rebuild_tensor_v2"
    calls[name] = _Global(name, rebuild)
    for storage in _TORCH_DTYPES:
        calls[f"torch.{storage}"] = _Global(f"torch.{storage}", None)
    return calls


def _torch_storage(identity: object) -> _Storage:
    """The storage that a persistent id of torch describes."""
    if not (isinstance(identity, tuple) and 5 <= len(identity) <= 6 and identity[0] == "storage"):
        raise Malformed("a persistent id is not torch's description of a storage")
    _, kind, key, _, size = identity[:5]
    if not (isinstance(kind, _Global) and kind.name.removeprefix("torch.") in _TORCH_DTYPES):
        raise Malformed("a storage has no known type")
    if len(identity) == 6 and identity[5] is not None:
        raise Malformed("a storage is a view of another one, which is not supported")
    if not isinstance(key, str):
        raise Malformed("a storage has no key")
    (size,) = _shape((size,))
    return _Storage(key, np.dtype(_TORCH_DTYPES[kind.name.removeprefix("torch.")]), size)


# --- the machine ----------------------------------------------------------------------------

# The opcodes that push their argument.
_LITERALS = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
        *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)


def _run(
    stream: io.BytesIO,
    names: Mapping[str, _Global],
    persistent: Callable[[object], object] | None = None,
) -> Any:
    """Run one pickle; afterwards the stream stands behind its STOP."""
    machine = _Machine(names, persistent)
    # pickletools splits the bytes into opcodes with arguments, checks that they are all there,
    # and runs nothing.
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count >= _MAX_OPCODES:
            raise Malformed(f"the pickle has more than {_MAX_OPCODES} opcodes")
        machine.step(opcode.name, argument)
    return machine.result()


class _Machine:
    """A stack machine for the harmless part of the pickle language."""

    def __init__(
        self, names: Mapping[str, _Global], persistent: Callable[[object], object] | None
    ) -> None:
        self._names = names
        self._persistent = persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        """Carry out one opcode, by the name that ``pickletools`` gives it."""
        push = self._stack.append
        if opcode in _LITERALS:
            push(argument)
            return
        match opcode:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "NONE":
                push(None)
            case "NEWTRUE":
                push(True)
            case "NEWFALSE":
                push(False)
            case "MARK":
                self._marks.append(len(self._stack))
            case "EMPTY_TUPLE":
                push(())
            case "TUPLE":
                push(tuple(self._pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple(reversed([self._pop() for _ in range(int(opcode[-1]))])))
            case "EMPTY_LIST":
                push([])
            case "LIST":
                push(self._pop_to_mark())
            case "APPEND":
                item = self._pop()
                _append(self._top(), [item])
            case "APPENDS":
                items = self._pop_to_mark()
                _append(self._top(), items)
            case "EMPTY_DICT":
                push({})
            case "DICT":
                items = self._pop_to_mark()
                push({})
                _set_items(self._top(), items)
            case "SETITEM":
                value = self._pop()
                key = self._pop()
                _set_items(self._top(), [key, value])
            case "SETITEMS":
                items = self._pop_to_mark()
                _set_items(self._top(), items)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = self._top()
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._top()
            case "GET" | "BINGET" | "LONG_BINGET":
                if argument not in self._memo:
                    raise Malformed("the pickle recalls what it has not stored")
                push(self._memo[argument])
            case "GLOBAL":
                push(self._named(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                attribute = self._pop()
                module = self._pop()
                if not (isinstance(module, str) and isinstance(attribute, str)):
                    raise Malformed("a name in the pickle is not text")
                push(self._named(f"{module}.{attribute}"))
            case "BINPERSID":
                if self._persistent is None:
                    raise Malformed("persistent ids have no place in this file")
                push(self._persistent(self._pop()))
            case "REDUCE":
                arguments = self._pop()
                function = self._pop()
                if not (isinstance(function, _Global) and function.call):
                    raise Malformed("the pickle calls something that is not a permitted function")
                if not isinstance(arguments, tuple):
                    raise Malformed("the pickle calls a function without a tuple of arguments")
                push(function.call(arguments))
            case "BUILD":
                state = self._pop()
                _build(self._top(), state)
            case _:
                raise Malformed(f"opcode {opcode} is not permitted")

    def result(self) -> Any:
        """The value left at the end."""
        if self._marks or len(self._stack) != 1:
            raise Malformed("the pickle does not end with exactly one value")
        return self._stack[0]

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise Malformed("the pickle takes more from its stack than there is")
        return self._stack.pop()

    def _top(self) -> Any:
        value = self._pop()
        self._stack.append(value)
        return value

    def _pop_to_mark(self) -> list[Any]:
        if not self._marks:
            raise Malformed("the pickle lacks a mark")
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _named(self, name: str) -> _Global:
        if name not in self._names:
            raise Malformed(f"it names {name[:80]!a}, which is not permitted")
        return self._names[name]


def _append(target: object, items: list[Any]) -> None:
    if not isinstance(target, list):
        raise Malformed(f"the pickle appends to {type(target).__name__}")
    target.extend(items)


def _set_items(target: object, items: list[Any]) -> None:
    if not isinstance(target, dict) or len(items) % 2:
        raise Malformed("the pickle sets items of something other than a dict, or half a pair")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Hashing an arbitrary key, say deeply nested tuples, could take forever or crash.
        if type(key) not in (str, int):
            raise Malformed(f"a key of a dict is {type(key).__name__}, not str or int")
        target[key] = value


def _build(target: object, state: object) -> None:
    if isinstance(target, _Dtype | _ArrayBox):
        target.set_state(state)
    elif not (isinstance(target, dict) and isinstance(state, dict)):
        raise Malformed(f"the pickle gives a state to {type(target).__name__}")
    # else: attributes of an OrderedDict (torch keeps version numbers there); not needed.


class _Plain:
    """Copies a machine's result into plain values and checks that it is a small tree."""

    def __init__(self) -> None:
        self._left = _MAX_NODES

    def copy(self, value: object, depth: int = 0) -> object:
        self._left -= 1
        if depth > _MAX_DEPTH or self._left < 0:
            raise Malformed("the values are nested too deeply or repeated too often")
        if isinstance(value, list):
            return [self.copy(item, depth + 1) for item in value]
        if isinstance(value, tuple):
            return tuple(self.copy(item, depth + 1) for item in value)
        if isinstance(value, dict):
            return {key: self.copy(item, depth + 1) for key, item in value.items()}
        if isinstance(value, bytearray):
            return bytes(value)
        if isinstance(value, _ArrayBox) and value.value is not None:
            return value.value
        if value is None or isinstance(value, bool | int | float | str | bytes):
            return value
        raise Malformed(f"{type(value).__name__.strip('_')} is not a permitted result")


# --- torch files ----------------------------------------------------------------------------


class _Storages:
    """The storages that a torch pickle mentions, by key."""

    def __init__(self) -> None:
        self.known: dict[str, _Storage] = {}

    def describe(self, identity: object) -> object:
        storage = _torch_storage(identity)
        if self.known.setdefault(storage.key, storage) != storage:
            raise Malformed(f"storage {storage.key[:40]!a} is described in two ways")
        return storage


def _read_torch_legacy(data: bytes) -> tuple[object, dict[str, memoryview]]:
    """The root object and the contents of the storages of a file of torch before 1.6.

    Five pickles (magic number, protocol, machine, root, storage keys), then each storage as its
    number of elements (int64) and the elements.
    """
    stream = io.BytesIO(data)
    if _run(stream, {}) != _TORCH_MAGIC or _run(stream, {}) != _TORCH_PROTOCOL:
        raise Malformed("it is not a torch file")
    machine = _run(stream, {})
    if not (isinstance(machine, dict) and machine.get("little_endian") is True):
        raise Malformed("it was not written on a little-endian machine")
    storages = _Storages()
    root = _run(stream, _torch_calls(), storages.describe)
    keys = _run(stream, {})
    if not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
        raise Malformed("the storage keys are not a list of text")
    position = stream.tell()
    contents: dict[str, memoryview] = {}
    for key in keys:
        if key not in storages.known or key in contents:
            raise Malformed(f"storage {key[:40]!a} is unknown or comes twice")
        storage = storages.known[key]
        (size,) = struct.unpack_from("<q", data, position)
        end = position + 8 + storage.nbytes
        if size != storage.size or end > len(data):
            raise Malformed(
                f"storage {key[:40]!a} should have {storage.size} elements and is declared "
                f"with {size}, in a file with {len(data) - position - 8} bytes left"
            )
        contents[key] = memoryview(data)[position + 8 : end]
        position = end
    if position != len(data):
        raise Malformed(f"there are {len(data) - position} bytes after the last storage")
    _check_all_present(storages, contents)
    return root, contents


def _read_torch_zip(data: bytes) -> tuple[object, dict[str, memoryview]]:
    """The root object and the contents of the storages of a file of torch 1.6 or later.

    ``<folder>/data.pkl`` is the root, ``<folder>/data/<key>`` a storage; nothing is compressed.
    """
    # Counted before zipfile makes an object of each.
    if data.count(b"PK\x01\x02") > _MAX_ZIP_MEMBERS:
        raise Malformed(f"the zip file has more than {_MAX_ZIP_MEMBERS} members")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = _checked_members(archive, len(data))
        folder = next((name.split("/")[0] for name in members), "")
        root_name = f"{folder}/data.pkl"
        if root_name not in members:
            raise Malformed("the zip file has no data.pkl; it is not a torch file")
        order = f"{folder}/byteorder"
        if order in members and archive.read(members[order]) != b"little":
            raise Malformed("it was not written on a little-endian machine")
        storages = _Storages()
        stream = io.BytesIO(archive.read(members[root_name]))
        root = _run(stream, _torch_calls(), storages.describe)
        contents: dict[str, memoryview] = {}
        for key, storage in storages.known.items():
            member = members.get(f"{folder}/data/{key}")
            if member is None:
                continue
            if member.file_size != storage.nbytes:
                raise Malformed(
                    f"storage {key[:40]!a} should have {storage.nbytes} bytes and has "
                    f"{member.file_size}"
                )
            contents[key] = memoryview(archive.read(member))
    _check_all_present(storages, contents)
    return root, contents


def _checked_members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The members by name, once it is sure that they are harmless files in one folder."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename
        parts = name.split("/")
        shown = ascii(name[:80])
        if len(parts) < 2 or not {"", ".", ".."}.isdisjoint(parts) or "\\" in name:
            raise Malformed(f"zip member {shown} has no plain path below one folder")
        if name in members or parts[0] != next(iter(members), name).split("/")[0]:
            raise Malformed(f"zip member {shown} comes twice or is in another folder")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise Malformed(f"zip member {shown} is a symbolic link")
        if member.flag_bits & 1 or member.compress_type != zipfile.ZIP_STORED:
            raise Malformed(f"zip member {shown} is compressed or encrypted")
        size -= member.file_size
        if member.file_size != member.compress_size or size < 0:
            raise Malformed(f"zip member {shown} declares more bytes than the file has")
        members[name] = member
    return members


def _check_all_present(storages: _Storages, contents: Mapping[str, memoryview]) -> None:
    missing = sorted(storages.known.keys() - contents.keys())
    if missing:
        raise Malformed(f"{len(missing)} storages are missing, first {missing[0][:40]!a}")


def _state_dict(
    root: object, contents: Mapping[str, memoryview], budget: _Budget
) -> dict[str, Array]:
    if isinstance(root, dict) and isinstance(root.get("state_dict"), dict):
        root = root["state_dict"]
    if not (isinstance(root, dict) and root):
        raise Malformed("it holds no state dict")
    arrays: dict[str, Array] = {}
    for key, tensor in root.items():
        shown = ascii(str(key)[:80])
        if not (isinstance(key, str) and isinstance(tensor, _Tensor)):
            raise Malformed(f"entry {shown} of the state dict is not a named tensor")
        name = key.removeprefix("module.")
        if name in arrays:
            raise Malformed(f"entry {shown} of the state dict comes twice")
        arrays[name] = _materialise(tensor, contents[tensor.storage.key], shown, budget)
    return arrays


def _materialise(tensor: _Tensor, content: memoryview, shown: str, budget: _Budget) -> Array:
    storage, itemsize = tensor.storage, tensor.storage.dtype.itemsize
    count = math.prod(tensor.shape)
    steps = zip(tensor.shape, tensor.stride, strict=True)
    last = tensor.offset + sum((length - 1) * step for length, step in steps)
    # A stride of 0 would make much of little.
    if count > storage.size or (count and last >= storage.size):
        raise Malformed(
            f"tensor {shown} of {count} elements reaches outside its storage of {storage.size}"
        )
    budget.take(count * itemsize)
    if not count:
        return np.empty(tensor.shape, storage.dtype.newbyteorder("="))
    view: Array = np.ndarray(
        tensor.shape,
        storage.dtype,
        buffer=content,
        offset=tensor.offset * itemsize,
        strides=[step * itemsize for step in tensor.stride],
    )
    return np.array(view, dtype=storage.dtype.newbyteorder("="), order="C")
