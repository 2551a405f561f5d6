"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from threedfa import files, gltf, image, mesh_files, tables
from threedfa.errors import ExportError

VERTICES = np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
TRIANGLES = np.int32([[0, 1, 2]])
PART = mesh_files.MeshPart("part", VERTICES, TRIANGLES)

WRITERS: dict[str, Callable[[Path], None]] = {
    "picture.png": lambda path: image.save_image(path, np.zeros((2, 3, 3), np.uint8)),
    "picture.jpg": lambda path: image.save_image(path, np.zeros((2, 3, 3), np.uint8)),
    "mesh.obj": lambda path: mesh_files.write_obj(path, VERTICES, TRIANGLES),
    "mesh.ply": lambda path: mesh_files.write_ply(path, VERTICES, TRIANGLES),
    "mesh.stl": lambda path: mesh_files.write_stl(path, VERTICES, TRIANGLES),
    "mesh.glb": lambda path: gltf.write_glb(path, [gltf.GltfNode(PART)]),
    "result.json": lambda path: tables.write_json(path, []),
    "result.csv": lambda path: tables.write_csv(path, []),
    "result.npz": lambda path: tables.write_npz(path, []),
}


@pytest.fixture(params=WRITERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def names_in(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


@contextlib.contextmanager
def no_room_beyond(size: int) -> Iterator[None]:
    """Lets the operating system refuse to make any file longer than so many bytes: what is written
    arrives in part, then fails, as on a full disk."""
    resource = pytest.importorskip("resource", reason="limits of processes are POSIX's")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_file_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with files.atomic_write(path) as stream:
        stream.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert names_in(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_nothing_changes_when_the_block_fails(
    tmp_path: Path, old: bytes | None, error: BaseException
) -> None:
    path = tmp_path / "a.bin"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(type(error)), files.atomic_write(path) as stream:
        stream.write(b"half of it")
        raise error
    assert (path.read_bytes() if path.exists() else None) == old
    assert names_in(tmp_path) == ([] if old is None else ["a.bin"])


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    with files.atomic_write(tmp_path / "atomic") as stream:
        stream.write(b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_permissions_of_an_older_file_stay(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(mode)
    with files.atomic_write(path) as stream:
        stream.write(b"new")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", mode)


@pytest.mark.skipif(os.name != "posix", reason="links need no privilege on POSIX")
@pytest.mark.parametrize("old", [None, b"old"])
def test_links_stay_and_what_they_lead_to_is_written(tmp_path: Path, old: bytes | None) -> None:
    (tmp_path / "folder").mkdir()
    real, link = tmp_path / "folder" / "real", tmp_path / "link"
    if old is not None:
        real.write_bytes(old)
    link.symlink_to(Path("folder", "real"))
    with pytest.raises(ExportError, match="No such file"):
        files.atomic_write_all([(link, b"new"), (tmp_path / "no" / "b", b"new")])
    assert (real.read_bytes() if real.exists() else None) == old
    files.atomic_write_all([(link, b"new")])
    assert link.is_symlink() and real.read_bytes() == b"new"
    assert sorted(names_in(tmp_path)) == ["folder", "link"] and names_in(real.parent) == ["real"]


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices as files are POSIX's")
def test_what_is_no_plain_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "null").symlink_to(os.devnull)
    for name, kind in (("pipe", "it is a pipe; "), ("null", "it is a device; "), ("loop", "links")):
        with pytest.raises(ExportError, match=rf"cannot write .*{name}: .*{kind}"):
            files.atomic_write_all([(tmp_path / "a", b"x"), (tmp_path / name, b"x")])
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "null").is_symlink()
    assert sorted(names_in(tmp_path)) == ["loop", "null", "pipe"]


def test_a_name_of_the_greatest_length(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    with files.atomic_write(path) as stream:
        stream.write(b"x")
    assert path.read_bytes() == b"x"


def test_every_writer_replaces_an_older_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"older")
    WRITERS[name](path)
    assert path.read_bytes() not in (b"older", b"")
    assert names_in(tmp_path) == [name]


def test_missing_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError, match=r"No such file or directory.*existing, writable folder"):
        WRITERS[name](tmp_path / "missing" / name)
    assert not any(tmp_path.iterdir())


def test_a_file_where_the_folder_should_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").write_bytes(b"a file")
    with pytest.raises(ExportError, match="Not a directory"):
        WRITERS[name](tmp_path / "folder" / name)
    assert names_in(tmp_path) == ["folder"]
    assert (tmp_path / "folder").read_bytes() == b"a file"


def test_a_folder_where_the_file_should_be(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ExportError, match="cannot write"):
        WRITERS[name](tmp_path / name)
    assert names_in(tmp_path) == [name]
    assert not any((tmp_path / name).iterdir())


@pytest.mark.skipif(os.name != "posix", reason="folder permissions are POSIX's")
def test_read_only_folder(tmp_path: Path, name: str) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(ExportError, match="Permission denied"):
            WRITERS[name](tmp_path / name)
    finally:
        tmp_path.chmod(0o755)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("room", [0, 2])
@pytest.mark.parametrize("old", [None, b"old"])
def test_full_disk(tmp_path: Path, name: str, old: bytes | None, room: int) -> None:
    path = tmp_path / name
    if old is not None:
        path.write_bytes(old)
    with no_room_beyond(room), pytest.raises(ExportError, match=r"File too large.*free space"):
        WRITERS[name](path)
    assert (path.read_bytes() if path.exists() else None) == old
    assert names_in(tmp_path) == ([] if old is None else [name])


def test_files_that_belong_together_appear_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    replace = Path.replace

    def noting(self: Path, target: Path) -> Path:
        order.append(Path(target).name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", noting)
    names = ["a.png", "a.mtl", "a.obj"]
    files.atomic_write_all([(tmp_path / name, name.encode()) for name in names])
    assert order == names
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {n: n for n in names}


def test_files_that_belong_together_come_all_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()  # a folder, over which no file can be moved
    (tmp_path / "b").write_bytes(b"old")
    names = ["a", "b", "c"]
    with pytest.raises(ExportError, match=r"cannot write .*c: .*it is a folder"):
        files.atomic_write_all([(tmp_path / name, b"new") for name in names])
    assert (tmp_path / "b").read_bytes() == b"old"
    assert sorted(names_in(tmp_path)) == ["b", "c"]
    with pytest.raises(ExportError, match="No such file"):
        files.atomic_write_all([(tmp_path / "a", b"new"), (tmp_path / "no" / "b", b"new")])
    assert sorted(names_in(tmp_path)) == ["b", "c"]


@pytest.mark.parametrize("name", ["n" * 300 + ".obj", "a\0b.obj"])
def test_names_that_cannot_be_are_export_errors(tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError):
        files.atomic_write_all([(tmp_path / "a.png", b"x"), (tmp_path / name, b"x")])
    with pytest.raises(ExportError):
        files.atomic_write_all([(tmp_path / "f" / name, b"x")])
    assert not names_in(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="folder permissions are POSIX's")
def test_a_folder_that_may_not_be_looked_into(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may look everywhere")
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o000)
    try:
        with pytest.raises(ExportError, match="Permission denied"):
            files.atomic_write_all([(folder / "a", b"x")])
    finally:
        folder.chmod(0o755)
    assert not names_in(folder)
