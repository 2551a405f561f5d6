"""``threedfa bench``: that every answer is checked, and what is reported."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from threedfa import Detections, FaceAnalyzer, Pack, bench, ops
from threedfa.bench import BenchError, Row, Sizes
from threedfa.bench_report import Table, as_markdown, as_text, describe_machine
from threedfa.cli import main
from toy_pack import build_toy_pack

LARGE = {"max_height": 720, "max_width": 1080}
TINY = Sizes(
    seconds=0.01,
    grid=20,
    modes=5,
    face=30,
    picture=(90, 160),
    boxes=50,
    batch=4,
    analyses=20,
    growth_faces=(1, 2),
    growth_grids=(5, 10),
    growth_boxes=(10, 20),
    growth_megapixels=(0.01, 0.02),
)


@pytest.fixture(scope="module", autouse=True)
def red_sample() -> Iterator[None]:
    """What the toy pack takes for a face, in place of the sample picture."""
    image = np.zeros((128, 128, 3), np.uint8)
    image[32:64, 32:64] = (255, 40, 90)
    patch = pytest.MonkeyPatch()
    patch.setattr(bench, "load_image", lambda path: image)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """The toy pack, with an input as large as the pictures."""
    return Pack.load(build_toy_pack(tmp_path_factory.mktemp("bench") / "toy", working_size=LARGE))


@pytest.fixture(scope="module")
def rows(pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return list(bench.kernel_rows(pack, TINY, tmp_path_factory.mktemp("bench")))


def spoiled(answer: Any) -> Any:
    """A wrong answer of the same kind, wrong in one place or all over."""
    if isinstance(answer, Detections):
        return dataclasses.replace(answer, xyxy=answer.xyxy + 1)
    if isinstance(answer, Path):
        wrong = answer.with_name("wrong")
        wrong.write_bytes(answer.read_bytes()[:-2] + b"7\n")
        return wrong
    if isinstance(answer, ops.Raster):
        return dataclasses.replace(answer, barycentric=answer.barycentric[..., ::-1])
    if isinstance(answer, list) and isinstance(answer[0], int):
        return answer[:-1]
    return np.asarray(answer) * np.float32(1.5) + 1


def test_every_answer_is_checked(rows: list[Row]) -> None:
    assert len(rows) >= 10
    for row in rows:
        bench.check(row)
        wrong = spoiled(row.ours())
        with pytest.raises(BenchError, match=re.escape(row.work)):
            bench.check(dataclasses.replace(row, ours=lambda wrong=wrong: wrong))


def test_faces_are_compared(pack: Pack) -> None:
    analyzer = FaceAnalyzer(pack, num_threads=1)
    faces = analyzer.analyze(bench.scene(analyzer, 2))
    assert len(faces) == 2
    assert bench.same_faces(faces, faces)
    assert not bench.same_faces(faces, faces[:1])
    moved = dataclasses.replace(faces[0], landmarks=faces[0].landmarks + np.float32(0.1))
    assert not bench.same_faces(faces, [moved, faces[1]])


def test_a_pack_without_a_face(tmp_path: Path) -> None:
    blind = build_toy_pack(tmp_path / "pack", score_threshold=1)
    with pytest.raises(BenchError, match="no face in the sample"):
        list(bench.measure(Pack.load(blind), TINY, tmp_path))


def test_all_tables(pack: Pack, tmp_path: Path) -> None:
    tables = list(bench.measure(pack, TINY, tmp_path))
    for table in tables:
        assert table.rows
        assert all(len(row) == len(table.columns) for row in table.rows)
    machine = describe_machine()
    text, page = as_text(machine, tables), as_markdown(machine, tables)
    for table in tables:
        assert table.title in text
        assert f"## {table.title}\n" in page
        for row in table.rows:
            assert f"| {' | '.join(row)} |" in page
    assert {name for name, _ in re.findall(r"^- (.*?): (.+)$", page, re.M)} == set(machine)


def test_resident_memory() -> None:
    if not bench.resident_bytes():
        pytest.skip("no /proc on this system")
    before = bench.resident_bytes()
    kept = np.ones(2**23)
    assert 60e6 < bench.resident_bytes() - before < 80e6
    del kept


def test_the_command(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a process where NumPy has one thread, with the options that were given."""
    page = tmp_path / "page.md"
    seen: list[tuple[list[str], dict[str, str]]] = []

    def run(command: list[str], *, env: dict[str, str], check: bool) -> Any:
        seen.append((command, env))
        return subprocess.CompletedProcess(command, 5)

    monkeypatch.setattr(subprocess, "run", run)
    options = ["--pack", str(pack.folder), "--json", "--seconds", "0.5", "--analyses", "7"]
    assert main(["bench", *options, "--markdown", str(page)]) == 5
    ((command, environment),) = seen
    assert command[1:3] == ["-m", "threedfa.bench"]
    assert environment["OPENBLAS_NUM_THREADS"] == "1"
    assert environment["PATH"] == os.environ["PATH"]
    monkeypatch.undo()

    table = Table("Title", "Note.", ("a", "b"), (("1", "2"),))

    def measure(pack: Pack, sizes: Sizes, folder: Path) -> Iterator[Table]:
        assert (sizes.seconds, sizes.analyses) == (0.5, 7)
        yield table

    monkeypatch.setattr(bench, "measure", measure)
    assert bench.main(command[3:]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["tables"] == [json.loads(json.dumps(dataclasses.asdict(table)))]
    assert report["machine"].keys() == describe_machine().keys()
    assert "## Title\n\nNote.\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n" in page.read_text()
    assert bench.main(["--pack", str(tmp_path / "none")]) == 1


@pytest.mark.parametrize(
    ("option", "wrong"),
    [("--seconds", ("0", "-1", "nan", "inf", "x")), ("--analyses", ("0", "-5", "1.5", "x"))],
)
def test_options_that_will_not_do(
    option: str, wrong: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for value in wrong:
        with pytest.raises(SystemExit) as stop:
            main(["bench", option, value])
        assert stop.value.code == 2
        assert f"{option}: expected " in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_found_before_the_run(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "measure", lambda *arguments: pytest.fail("measured"))
    page = tmp_path / "missing" / "page.md"
    assert bench.main(["--pack", str(pack.folder), "--markdown", str(page)]) == 1
    assert f"cannot write {page}: No such file" in capsys.readouterr().err


def test_each_turn_begins_with_a_call_that_does_not_count() -> None:
    calls = [0, 0]

    def quick() -> None:
        calls[0] += 1

    def slow() -> None:
        calls[1] += 1
        time.sleep(1.2 * bench._TURN_MS / 1000)

    times = bench.timed([quick, slow], 0)
    assert len(times[1]) == calls[1] == 3  # a turn each, which is all there is to count
    assert len(times[0]) == calls[0] - 3
    assert min(times[1]) > bench._TURN_MS
