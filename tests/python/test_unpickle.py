"""Reading pickles and torch files: what is valid comes back, what is hostile does nothing."""

from __future__ import annotations

import contextlib
import io
import lzma
import os
import pickle
import stat
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from threedfa.errors import PackError
from threedfa.upstream.unpickle import load_pickle, load_torch

Array = npt.NDArray[Any]
DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">f4", ">i8"]


# --- a small pickler that writes names without having what they name --------------------------


class Name(NamedTuple):
    """A global, as ``module.attribute``."""

    name: str


class Call(NamedTuple):
    """A call of a global."""

    name: str
    arguments: tuple[Any, ...]


class Persistent(NamedTuple):
    """A persistent id."""

    identity: Any


def opcodes(value: Any) -> bytes:
    """The value in pickle's protocol 2, without header and STOP."""
    if isinstance(value, Name):
        module, _, attribute = value.name.rpartition(".")
        return f"c{module}\n{attribute}\n".encode()
    if isinstance(value, Call):
        return opcodes(Name(value.name)) + opcodes(value.arguments) + b"R"
    if isinstance(value, Persistent):
        return opcodes(value.identity) + b"Q"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(opcodes, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(opcodes, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(opcodes(part) for item in value.items() for part in item) + b"u"
    return pickle.dumps(value, 2)[2:-1]


def pickled(value: Any) -> bytes:
    return b"\x80\x02" + opcodes(value) + b"."


# --- torch files without torch ----------------------------------------------------------------

STORAGES = {"f2": "Half", "f4": "Float", "f8": "Double", "i8": "Long", "u1": "Byte"}


def storage(key: str, array: Array, size: int | None = None) -> Persistent:
    kind = f"torch.{STORAGES[array.dtype.str[1:]]}Storage"
    return Persistent(("storage", Name(kind), key, "cpu", array.size if size is None else size))


def tensor(where: Persistent, offset: Any, shape: Any, stride: Any) -> Call:
    hooks = Call("collections.OrderedDict", ())
    return Call("torch._utils._rebuild_tensor_v2", (where, offset, shape, stride, False, hooks))


def whole_tensor(key: str, array: Array) -> Call:
    stride = tuple(step // array.itemsize for step in array.strides)
    return tensor(storage(key, array), 0, array.shape, stride)


def zip_file(root: Any, contents: Mapping[str, bytes], **more: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model/data.pkl", pickled(root))
        for name, value in ({"byteorder": b"little", "version": b"3\n"} | more).items():
            archive.writestr(f"model/{name}", value)
        for key, content in contents.items():
            archive.writestr(f"model/data/{key}", content)
    return stream.getvalue()


def legacy_file(root: Any, contents: Mapping[str, bytes], itemsize: int = 4) -> bytes:
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    parts = [0x1950A86A20F9469CFC6C, 1001, machine, root, list(contents)]
    blocks = [struct.pack("<q", len(data) // itemsize) + data for data in contents.values()]
    return b"".join(map(pickled, parts)) + b"".join(blocks)


WRITERS: dict[str, Callable[..., bytes]] = {"zip": zip_file, "legacy": legacy_file}
WEIGHT = np.arange(24, dtype="<f4").reshape(2, 3, 4)
both_formats = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[bytes], Path]:
    def store(data: bytes) -> Path:
        path = tmp_path / "file"
        path.write_bytes(data)
        return path

    return store


Store = Callable[[bytes], Path]


def assert_same(actual: Any, expected: Any) -> None:
    """Equal in value and type, arrays also in shape and dtype (but for the byte order)."""
    if isinstance(expected, np.ndarray):
        assert isinstance(actual, np.ndarray)
        assert actual.dtype == expected.dtype.newbyteorder("=")
        assert actual.flags.c_contiguous and actual.flags.writeable
        np.testing.assert_array_equal(actual, expected)
    elif isinstance(expected, list | tuple):
        assert type(actual) is type(expected) and len(actual) == len(expected)
        for pair in zip(actual, expected, strict=True):
            assert_same(*pair)
    elif isinstance(expected, dict):
        assert type(actual) is dict and list(actual) == list(expected)
        for key in expected:
            assert_same(actual[key], expected[key])
    else:
        assert type(actual) is type(expected) and actual == expected


# --- valid pickles ----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
def test_reads_every_protocol(stored: Store, protocol: int) -> None:
    generator = np.random.default_rng(protocol)
    value = {
        "arrays": [generator.integers(0, 100, (2, 3)).astype(dtype) for dtype in DTYPES],
        "fortran": np.asfortranarray(generator.normal(size=(4, 5)).astype(np.float32)),
        "scalar": np.array(3, np.int32),
        "empty": np.empty((0, 3), np.float32),
        "plain": [None, True, False, 0, -7, 2**80, 1.5, "text \u00e9 \u20ac", b"\x00\xff", ()],
        "tuples": ((1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        5: OrderedDict(b=1, a={}),
    }
    value["again"] = value["fortran"]
    assert_same(load_pickle(stored(pickle.dumps(value, protocol))), value)


def test_numpy_scalars_become_numbers(stored: Store) -> None:
    assert_same(load_pickle(stored(pickle.dumps([np.float64(1.5), np.int32(-3)]))), [1.5, -3])


def test_reads_the_module_names_of_both_generations_of_numpy(stored: Store) -> None:
    data = pickle.dumps({"a": WEIGHT}, 2)
    renamed = data.replace(b"numpy._core", b"numpy.core")
    for version in (renamed, renamed.replace(b"numpy.core", b"numpy._core")):
        assert_same(load_pickle(stored(version)), {"a": WEIGHT})


def test_reads_an_array_written_by_python_2(stored: Store) -> None:
    # Python 2 wrote both text and bytes as 8-bit strings (opcode U).
    content = np.array([1, -2, 3], "<i4").tobytes()
    data = (
        b"\x80\x02}U\x03keycnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x03\x85cnumpy\ndtype\nU\x02i4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U" + bytes([len(content)]) + content + b"tbs."
    )
    assert_same(load_pickle(stored(data)), {"key": np.array([1, -2, 3], np.int32)})


def test_a_memo_index_reserves_no_memory(stored: Store) -> None:
    data = b"\x80\x02](K\x07r\xff\xff\xff\xffj\xff\xff\xff\xffe."
    assert load_pickle(stored(data)) == [7, 7]


TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | hnp.arrays(
        st.sampled_from(DTYPES).map(np.dtype),
        hnp.array_shapes(min_dims=0, min_side=0, max_side=3),
        elements=st.integers(0, 100),
    ),
    lambda children: (
        st.lists(children, max_size=4)
        | st.lists(children, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(), children, max_size=4)
    ),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "file"


@given(value=TREES, protocol=st.integers(0, 5))
def test_what_the_stock_pickler_writes_comes_back(scratch: Path, value: Any, protocol: int) -> None:
    scratch.write_bytes(pickle.dumps(value, protocol))
    assert_same(load_pickle(scratch), value)


# --- hostile pickles --------------------------------------------------------------------------


class Evil:
    """Runs a call when the stock unpickler reads it."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


READERS: list[Callable[[Path], object]] = [load_pickle, load_torch]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("read", READERS)
def test_nothing_is_executed(tmp_path: Path, read: Callable[[Path], object], protocol: int) -> None:
    sentinel = tmp_path / "sentinel"
    touch = f"open({str(sentinel)!r}, 'w').close()"
    attacks = {
        "system": Evil(os.system, f"echo > {sentinel}"),
        "eval": Evil(eval, touch),
        "exec": Evil(exec, touch),
        "import": Evil(__import__, "antigravity"),
        "getattr": Evil(getattr, "", "format"),
        "load": Evil(np.load, str(sentinel)),
        "open": Evil(open, str(sentinel), "w"),
        "nested": Evil(getattr, Evil(__import__, "os"), "system"),
        "list": [1, {"a": (Evil(eval, touch),)}],
        "frombuffer": Evil(np.frombuffer, b"1234"),
        "objects": np.array([Evil(eval, touch)], object),
    }
    path = tmp_path / "file"
    for name, attack in attacks.items():
        data = pickle.dumps(attack, protocol)
        for content in (data, zip_with_root(data), legacy_with_root(data)):
            path.write_bytes(content)
            with pytest.raises(PackError, match=r"file: refused"):
                read(path)
            assert not sentinel.exists(), name
    # The same attacks do work on the stock unpickler, so they are real.
    pickle.loads(pickle.dumps(attacks["eval"], protocol))
    assert sentinel.exists()


def zip_with_root(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model/data.pkl", data)
    return stream.getvalue()


def legacy_with_root(data: bytes) -> bytes:
    return legacy_file(0, {}).replace(pickled(0), data)


@pytest.mark.parametrize(
    "name",
    [
        *("builtins.eval", "builtins.getattr", "os.system", "posix.system", "subprocess.Popen"),
        *("numpy.load", "numpy.core.multiarray.fromstring", "numpy.f2py.os.system"),
        *("torch.load", "torch.storage._load_from_bytes", "copyreg._reconstructor"),
    ],
)
def test_a_refused_name_is_named(stored: Store, name: str) -> None:
    with pytest.raises(PackError, match=f"names '{name}'"):
        load_pickle(stored(pickled(Name(name))))


def numpy_array(
    shape: Any, content: Any, dtype: Any = "f4", state: Any = (3, "<", None, None, None, -1, -1, 0)
) -> bytes:
    """An array pickle with any parts."""
    kind = opcodes(Call("numpy.dtype", (dtype, False, True))) + opcodes(state) + b"b"
    array = Call("numpy.core.multiarray._reconstruct", (Name("numpy.ndarray"), (0,), b"b"))
    head = b"(" + opcodes(1) + opcodes(shape)
    return b"\x80\x03" + opcodes(array) + head + kind + b"\x89" + content + b"tb."


BYTES_16 = b"C\x10" + bytes(16)


def test_the_parts_make_a_valid_array(stored: Store) -> None:
    assert_same(load_pickle(stored(numpy_array((2, 2), BYTES_16))), np.zeros((2, 2), np.float32))


BAD_ARRAYS = {
    "shape of 10**12": numpy_array((10**12,), BYTES_16),
    "product of 10**12": numpy_array((10**6, 10**6), BYTES_16),
    "overflowing product": numpy_array((2**32, 2**32, 4), BYTES_16),
    "huge integer": numpy_array((1 << 20000,), BYTES_16),
    "negative": numpy_array((-2, -2), BYTES_16),
    "too short": numpy_array((5,), BYTES_16),
    "too long": numpy_array((3,), BYTES_16),
    "float size": numpy_array((4.0,), BYTES_16),
    "bool size": numpy_array((True, 4), BYTES_16),
    "list shape": numpy_array([4], BYTES_16),
    "40 dimensions": numpy_array((1,) * 40 + (4,), BYTES_16),
    "objects": numpy_array((2,), BYTES_16, "O8"),
    "objects by name": numpy_array((2,), BYTES_16, "object"),
    "strings": numpy_array((4,), BYTES_16, "S4"),
    "record dtype": numpy_array((4,), BYTES_16, "f4,f4"),
    "list of fields": numpy_array((4,), BYTES_16, [("a", "f4")]),
    "fields": numpy_array((4,), BYTES_16, state=(3, "<", None, ("a",), {}, -1, -1, 0)),
    "subarray": numpy_array((4,), BYTES_16, state=(3, "<", (1, 2), None, None, -1, -1, 0)),
    "byte order": numpy_array((4,), BYTES_16, state=(3, "f8,", None, None, None, -1, -1, 0)),
    "short state": numpy_array((4,), BYTES_16, state=(3, "<")),
    "list content": numpy_array((4,), opcodes([0, 0, 0, 0])),
    "no content": numpy_array((4,), b"N"),
    "number as content": numpy_array((4,), b"K\x10"),
    "wide text as content": numpy_array((1,), opcodes("\u20ac" * 4)),
}


@pytest.mark.parametrize("data", BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_arrays_are_checked(stored: Store, data: bytes) -> None:
    with pytest.raises(PackError):
        load_pickle(stored(data))


BAD_PICKLES = {
    "empty file": b"",
    "no end": b"\x80\x02K\x01",
    "nothing to return": b"\x80\x02.",
    "two values": b"\x80\x02K\x01K\x02.",
    "open mark": b"\x80\x02(K\x01.",
    "no mark": b"\x80\x02K\x01t.",
    "stack below the mark": b"\x80\x02K\x01(\x85t.",
    "empty stack": b"\x80\x02\x85.",
    "unknown opcode": b"\x80\x02\xee.",
    "bytes after the end": pickled(1) + b"x",
    "memo never written": b"\x80\x02h\x05.",
    "tuple as key": pickled({(1, 2): 3}),
    "None as key": pickled({None: 3}),
    "key without a value": b"\x80\x02}(K\x01u.",
    "items of a number": b"\x80\x02K\x01(K\x01K\x02u.",
    "append to a tuple": b"\x80\x02)K\x01a.",
    "call of a number": b"\x80\x02K\x01)R.",
    "call of a class without a call": pickled(Call("numpy.ndarray", ())),
    "call without a tuple": opcodes(Name("numpy.dtype")) + b"K\x01R.",
    "call with too much": pickled(Call("numpy.dtype", ("f4", 0, 1, 2))),
    "a name as a result": pickled(Name("numpy.ndarray")),
    "a dtype as a result": pickled(Call("numpy.dtype", ("f4", False, True))),
    "an array without content": pickled(
        Call("numpy.core.multiarray._reconstruct", (Name("numpy.ndarray"), (0,), b"b"))
    ),
    "reconstruct of a dtype": pickled(
        Call("numpy.core.multiarray._reconstruct", (Name("numpy.dtype"), (0,), b"b"))
    ),
    "state of a number": b"\x80\x02K\x01}b.",
    "state of a name": b"\x80\x02" + opcodes(Name("numpy.dtype")) + b"}b.",
    "state with attributes of a name": (
        b"\x80\x02" + opcodes(Name("numpy.dtype")) + opcodes((None, {"call": 1})) + b"b."
    ),
    "another codec": pickled(Call("_codecs.encode", ("abc", "zip"))),
    "ordered dict of something": pickled(Call("collections.OrderedDict", ("abc",))),
    "persistent id": pickled(Persistent(("storage",))),
    "new object": b"\x80\x02" + opcodes(Name("numpy.ndarray")) + b")\x81.",
    "instance": b"(inumpy\nndarray\n.",
    "extension registry": b"\x80\x02\x82\x01.",
    "out-of-band buffer": b"\x80\x05\x97.",
    "set": pickle.dumps({1, 2}, 4),
    "complex": pickle.dumps(1j),
    "path": pickle.dumps(Path("x")),
    "bytes of 2**62": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
    "bytes of 2**64-1": b"\x80\x04\x8e" + struct.pack("<Q", 2**64 - 1) + b"x.",
    "bytearray of 2**62": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"x.",
    "text of 2**31": b"\x80\x02X" + struct.pack("<I", 2**31) + b"x.",
    "negative length": b"\x80\x02T" + struct.pack("<i", -1) + b"x.",
    "decimal of 10000 digits": b"I" + b"1" * 10000 + b"\n.",
    "list within itself": b"\x80\x02]q\x00h\x00a.",
    "nested 100000 times": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "tuples nested 100000 times as key": b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s.",
    "2**60 references": b"\x80\x02]q\x00" + b"q\x00(h\x00h\x00lq\x00" * 60 + b".",
    "two million opcodes": b"\x80\x02" + b"N0" * 1_000_000 + b"N.",
}


@pytest.mark.parametrize("data", BAD_PICKLES.values(), ids=BAD_PICKLES)
@pytest.mark.parametrize("read", READERS)
def test_malformed_pickles_are_refused(
    stored: Store, read: Callable[[Path], object], data: bytes
) -> None:
    with pytest.raises(PackError, match=r"file: refused"):
        read(stored(data))


def test_the_same_bytes_cannot_be_copied_without_limit(stored: Store) -> None:
    content = b"B" + struct.pack("<I", 4000) + bytes(4000)
    first = numpy_array((1000,), content + b"q\xc8")[2:-1]
    again = numpy_array((1000,), b"h\xc8")[2:-1]
    path = stored(b"\x80\x03](" + first + again * 99 + b"e.")
    assert path.stat().st_size < 100_000
    values = load_pickle(path, max_bytes=410_000)
    assert isinstance(values, list) and len(values) == 100
    with pytest.raises(PackError, match="more bytes than the limit"):
        load_pickle(path, max_bytes=390_000)
    call = opcodes(Name("_codecs.encode")) + b"h\xc8" + opcodes("latin1") + b"\x86R"
    path = stored(b"\x80\x02](" + opcodes("x" * 4000) + b"q\xc8" + call * 100 + b"e.")
    assert load_pickle(path, max_bytes=400_000) == ["x" * 4000] + [b"x" * 4000] * 100
    with pytest.raises(PackError, match="more bytes than the limit"):
        load_pickle(path, max_bytes=399_999)


@pytest.mark.parametrize("read", READERS)
def test_truncated_files_are_refused(stored: Store, read: Callable[[Path], object]) -> None:
    whole = pickle.dumps({"a": WEIGHT, "b": [1.5, "text"]}, 4)
    root, contents = {"a": whole_tensor("0", WEIGHT)}, {"0": WEIGHT.tobytes()}
    files = (
        [whole] if read is load_pickle else [write(root, contents) for write in WRITERS.values()]
    )
    for data in files:
        read(stored(data))
        for length in range(0, len(data), 7):
            with pytest.raises(PackError):
                read(stored(data[:length]))


@pytest.mark.parametrize("read", READERS)
def test_only_regular_files_within_the_limit_are_read(
    tmp_path: Path, read: Callable[..., object]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(PackError, match="1000 bytes, more than the limit of 999"):
        read(path, max_bytes=999)
    for other in (tmp_path / "absent", tmp_path, pipe, "a\0b"):
        with pytest.raises(PackError):
            read(other)


# --- valid torch files ------------------------------------------------------------------------


@both_formats
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_reads_state_dicts(
    stored: Store, write: Callable[..., bytes], prefix: str, wrapped: bool
) -> None:
    root: Any = {
        f"{prefix}whole": whole_tensor("0", WEIGHT),
        f"{prefix}transposed": tensor(storage("0", WEIGHT), 0, (4, 2), (1, 12)),
        f"{prefix}part": tensor(storage("0", WEIGHT), 5, (3,), (4,)),
        f"{prefix}number": tensor(storage("0", WEIGHT), 7, (), ()),
        f"{prefix}empty": tensor(storage("0", WEIGHT), 0, (0, 3), (3, 1)),
    }
    root = {"epoch": 3, "state_dict": root, "lr": 0.1} if wrapped else root
    expected = {
        "whole": WEIGHT,
        "transposed": WEIGHT[:, 0, :].T,
        "part": WEIGHT.ravel()[5:16:4],
        "number": np.array(7, np.float32),
        "empty": np.empty((0, 3), np.float32),
    }
    assert_same(load_torch(stored(write(root, {"0": WEIGHT.tobytes()}))), expected)


@pytest.mark.parametrize("dtype", STORAGES)
def test_reads_tensor_types(stored: Store, dtype: str) -> None:
    array = np.arange(6).astype(dtype)
    root, contents = {"a": whole_tensor("x", array)}, {"x": array.tobytes()}
    assert_same(load_torch(stored(zip_file(root, contents))), {"a": array})
    assert_same(load_torch(stored(legacy_file(root, contents, array.itemsize))), {"a": array})


def test_attributes_of_an_ordered_dict_are_dropped(stored: Store) -> None:
    # torch pickles an OrderedDict with the attribute _metadata.
    root = opcodes(Call("collections.OrderedDict", ())) + b"(" + opcodes("a")
    root += opcodes(whole_tensor("0", WEIGHT)) + b"u" + opcodes({"_metadata": {"": {}}}) + b"b"
    data = zip_with_root(b"\x80\x02" + root + b".")
    stream = io.BytesIO(data)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("model/data/0", WEIGHT.tobytes())
    assert_same(load_torch(stored(stream.getvalue())), {"a": WEIGHT})


# --- hostile torch files ----------------------------------------------------------------------

WHERE = storage("0", WEIGHT)
BAD_ROOTS: dict[str, Any] = {
    "stride 0 of 10**12": {"a": tensor(WHERE, 0, (10**6, 10**6), (0, 0))},
    "stride 0": {"a": tensor(WHERE, 0, (25,), (0,))},
    "one past the end": {"a": tensor(WHERE, 1, (24,), (1,))},
    "offset past the end": {"a": tensor(WHERE, 24, (1,), (1,))},
    "huge offset": {"a": tensor(WHERE, 2**63, (1,), (1,))},
    "huge stride": {"a": tensor(WHERE, 0, (2,), (2**39,))},
    "negative stride": {"a": tensor(WHERE, 23, (24,), (-1,))},
    "negative offset": {"a": tensor(WHERE, -1, (1,), (1,))},
    "negative shape": {"a": tensor(WHERE, 0, (-1, -24), (1, 1))},
    "shape and stride differ": {"a": tensor(WHERE, 0, (2, 2), (1,))},
    "text as shape": {"a": tensor(WHERE, 0, "ab", (1, 1))},
    "no storage": {"a": tensor(Persistent(0), 0, (1,), (1,))},
    "storage of 10**12": {"a": tensor(storage("0", WEIGHT, 10**12), 0, (1,), (1,))},
    "storage too small": {"a": tensor(storage("0", WEIGHT, 23), 0, (1,), (1,))},
    "missing storage": {"a": tensor(storage("1", WEIGHT), 0, (1,), (1,))},
    "storage outside": {"a": tensor(storage("../../version", WEIGHT), 0, (1,), (1,))},
    "storage described twice": {
        "a": whole_tensor("0", WEIGHT),
        "b": tensor(storage("0", WEIGHT.view(np.int64)), 0, (1,), (1,)),
    },
    "unknown storage type": {
        "a": tensor(Persistent(("storage", Name("torch.BoolStorage"), "0", "cpu", 24)), 0, (), ())
    },
    "storage type is a function": {
        "a": tensor(
            Persistent(("storage", Name("torch._utils._rebuild_tensor_v2"), "0", "cpu", 24)),
            0,
            (),
            (),
        )
    },
    "view of a storage": {
        "a": tensor(
            Persistent(("storage", Name("torch.FloatStorage"), "0", "cpu", 24, ("1", 0, 2))),
            0,
            (1,),
            (1,),
        )
    },
    "another name": {"a": whole_tensor("0", WEIGHT), "b": Call("os.system", ("true",))},
    "numpy in torch": {"a": Name("numpy.ndarray")},
    "number in the state dict": {"a": whole_tensor("0", WEIGHT), "b": 1},
    "number as key": {1: whole_tensor("0", WEIGHT)},
    "same name twice": {
        "a": whole_tensor("0", WEIGHT),
        "module.a": whole_tensor("0", WEIGHT),
    },
    "empty": {},
    "a list": [whole_tensor("0", WEIGHT)],
}


@both_formats
@pytest.mark.parametrize("root", BAD_ROOTS.values(), ids=BAD_ROOTS)
def test_state_dicts_are_checked(stored: Store, write: Callable[..., bytes], root: Any) -> None:
    with pytest.raises(PackError, match=r"file: refused"):
        load_torch(stored(write(root, {"0": WEIGHT.tobytes()})))


@both_formats
def test_tensors_cannot_be_copied_without_limit(stored: Store, write: Callable[..., bytes]) -> None:
    root = {f"a{i}": whole_tensor("0", WEIGHT) for i in range(100)}
    path = stored(write(root, {"0": WEIGHT.tobytes()}))
    size = path.stat().st_size
    assert len(load_torch(path, max_bytes=size)) == 100
    root = {f"a{i}": whole_tensor("0", np.zeros(10_000, np.float32)) for i in range(100)}
    path = stored(write(root, {"0": bytes(40_000)}))
    with pytest.raises(PackError, match="more bytes than the limit"):
        load_torch(path, max_bytes=100_000)


ROOT = {"a": whole_tensor("0", WEIGHT)}
CONTENTS = {"0": WEIGHT.tobytes()}


def test_legacy_files_are_checked(stored: Store) -> None:
    good = legacy_file(ROOT, CONTENTS)
    load_torch(stored(good))
    for bad in (
        good + b"x",
        good.replace(pickled(1001), pickled(1002)),
        good.replace(pickled(0x1950A86A20F9469CFC6C), pickled(7)),
        good.replace(opcodes("little_endian") + b"\x88", opcodes("little_endian") + b"\x89"),
        good.replace(struct.pack("<q", 24), struct.pack("<q", 23)),
        good.replace(struct.pack("<q", 24), struct.pack("<q", -24)),
        good.replace(struct.pack("<q", 24), struct.pack("<q", 2**62)),
        legacy_file(ROOT, CONTENTS | {"1": bytes(4)}),
        good.replace(pickled(["0"]), pickled(["0", "0"])),
        good.replace(pickled(["0"]), pickled("0")),
        good.replace(pickled(["0"]), pickled([0])),
    ):
        assert bad != good
        with pytest.raises(PackError, match=r"file: refused"):
            load_torch(stored(bad))


def zip_members(members: list[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    """The valid file with further members."""
    stream = io.BytesIO(zip_file(ROOT, CONTENTS))
    with zipfile.ZipFile(stream, "a") as archive:
        for info, content in members:
            archive.writestr(info, content)
    return stream.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        *("../evil", "/etc/evil", "model/../../evil", "model/./x", "model//x", "model/"),
        *("model\\..\\x", "evil", "other/x"),
    ],
)
def test_zip_members_stay_in_their_folder(stored: Store, name: str) -> None:
    info = zipfile.ZipInfo("x")
    info.filename = name
    with pytest.raises(PackError, match="zip member"):
        load_torch(stored(zip_members([(info, b"x")])))


def test_zip_members_are_plain_files(stored: Store) -> None:
    link = zipfile.ZipInfo("model/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(PackError, match="symbolic link"):
        load_torch(stored(zip_members([(link, b"/etc/passwd")])))


def test_zip_bombs_are_refused_unopened(stored: Store) -> None:
    bomb = zipfile.ZipInfo("model/bomb")
    bomb.compress_type = zipfile.ZIP_DEFLATED
    with pytest.raises(PackError, match="compressed"):
        load_torch(stored(zip_members([(bomb, bytes(10**7))])))


def test_zip_members_cannot_share_bytes(stored: Store) -> None:
    # The central directory lists the largest member many times, under new names.
    big = np.zeros(5000, np.float32)
    data = zip_file({"a": whole_tensor("0", big)}, {"0": big.tobytes()})
    start = data.rindex(b"PK\x01\x02")
    end = data.rindex(b"PK\x05\x06")
    entry, tail = data[start:end], bytearray(data[end:])
    entries = b"".join(entry.replace(b"data/0", f"data/{i}".encode()) for i in range(1, 10))
    count, size = struct.unpack_from("<H", tail, 10)[0], struct.unpack_from("<I", tail, 12)[0]
    struct.pack_into("<HHI", tail, 8, count + 9, count + 9, size + len(entries))
    with pytest.raises(PackError, match="refused"):
        load_torch(stored(data[:end] + entries + bytes(tail)))


def test_zip_members_are_counted(stored: Store) -> None:
    members = [(zipfile.ZipInfo(f"model/{i}"), b"") for i in range(10_001)]
    with pytest.raises(PackError, match="more than 10000 members"):
        load_torch(stored(zip_members(members)))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_members_are_unique(stored: Store) -> None:
    with pytest.raises(PackError, match="twice"):
        load_torch(stored(zip_members([(zipfile.ZipInfo("model/data/0"), bytes(96))])))


def test_other_zip_faults_are_refused(stored: Store) -> None:
    good = zip_file(ROOT, CONTENTS)
    load_torch(stored(good))
    encrypted = bytearray(good)
    encrypted[good.index(b"PK\x01\x02") + 8] |= 1
    wrong_sum = bytearray(good)
    wrong_sum[good.index(WEIGHT.tobytes())] ^= 1
    no_root = zip_file(ROOT, CONTENTS).replace(b"data.pkl", b"data.pkx")
    big_endian = zip_file(ROOT, CONTENTS, byteorder=b"big")
    for bad in (bytes(encrypted), bytes(wrong_sum), no_root, big_endian):
        with pytest.raises(PackError, match=r"file: refused"):
            load_torch(stored(bad))


# --- fuzzing ----------------------------------------------------------------------------------

SEEDS: list[tuple[Callable[..., object], bytes]] = [
    *((load_pickle, pickle.dumps({"a": WEIGHT, "b": [1, 2.5, "x", (1,)]}, i)) for i in range(6)),
    (load_pickle, numpy_array((2, 2), BYTES_16)),
    *((load_torch, write(ROOT, CONTENTS)) for write in WRITERS.values()),
]


def mutated(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """The bytes with pieces overwritten: (position as a fraction, bytes to drop, new bytes)."""
    for where, drop, new in edits:
        position = int(where * len(data))
        data = data[:position] + new + data[position + drop :]
    return data


EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=4)), min_size=1, max_size=4
)


def assert_plain(value: object) -> None:
    if isinstance(value, np.ndarray):
        assert value.dtype.kind in "fiu"
    elif isinstance(value, list | tuple):
        for item in value:
            assert_plain(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            assert type(key) in (str, int)
            assert_plain(item)
    else:
        assert type(value) in (type(None), bool, int, float, str, bytes)


@given(seed=st.sampled_from(SEEDS), edits=EDITS)
@settings(max_examples=500)
def test_mutations_give_a_plain_value_or_an_error(
    scratch: Path, seed: tuple[Callable[..., object], bytes], edits: list[tuple[float, int, bytes]]
) -> None:
    read, data = seed
    scratch.write_bytes(mutated(data, edits))
    try:
        value = read(scratch, max_bytes=2**20)
    except PackError:
        return
    assert_plain(value)


@given(data=st.binary(max_size=64))
def test_any_bytes_give_a_plain_value_or_an_error(scratch: Path, data: bytes) -> None:
    scratch.write_bytes(data)
    for read in READERS:
        with contextlib.suppress(PackError):
            assert_plain(read(scratch))


# --- upstream's files -------------------------------------------------------------------------


def test_reads_the_pickles_of_upstream(reference: Path, tmp_path: Path) -> None:
    weights = reference / "weights"
    basis = tmp_path / "bfm_noneck_v3.pkl"
    basis.write_bytes(lzma.decompress((weights / "bfm_fit9.pkl.xz").read_bytes()))
    for path in (weights / "tri.pkl", weights / "param_mean_std_62d_120x120.pkl", basis):
        with path.open("rb") as stream:
            assert_same(load_pickle(path), pickle.load(stream))


def test_reads_the_state_dicts_of_upstream(reference: Path) -> None:
    detector = load_torch(reference / "weights" / "FaceBoxesProd.pth")
    assert detector["conv1.conv.weight"].shape == (24, 3, 7, 7)
    assert detector["conf.2.bias"].shape == (2,)
    regressor = load_torch(reference / "weights" / "mb05_120x120.pth")
    assert regressor["conv1.weight"].shape == (16, 3, 3, 3)
    for state in (detector, regressor):
        assert all(np.isfinite(array).all() for array in state.values())
