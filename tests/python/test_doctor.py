"""``threedfa doctor`` on healthy and on damaged installations."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import threedfa
from threedfa import doctor
from threedfa.cli import main
from toy_pack import build_toy_pack


@pytest.fixture(autouse=True)
def packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of packs, of this test alone."""
    monkeypatch.setenv("THREEDFA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "home" / "packs"


def line_of(text: str, start: str) -> str:
    lines = [line for line in text.splitlines() if line.strip().startswith(start)]
    assert len(lines) == 1, (start, text)
    return lines[0]


def test_a_healthy_installation(
    packs: Path, toy_pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(toy_pack, packs / "toy")
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert threedfa.__version__ in text and platform.python_version() in text
    assert np.__version__ in line_of(text, "numpy")
    assert onnxruntime.__version__ in line_of(text, "onnxruntime")
    assert "CPUExecutionProvider" in line_of(text, "providers")
    assert "usable" in line_of(text, "CPUs")
    toy = line_of(text, "toy ")
    assert "SHA-256 as it should be" in toy and str(packs / "toy") in toy
    for check in ("nms", "prior boxes", "rasterizer", "pose", "pack toy"):
        line = line_of(text, f"{check} ")
        assert " passed (" in line and line.endswith(" ms)")


def test_without_packs(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.run_doctor() == 0
    assert "self-test" in capsys.readouterr().out


def test_a_damaged_file(packs: Path, toy_pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(toy_pack, packs / "toy")
    with (packs / "toy" / "regressor.onnx").open("r+b") as stream:
        stream.write(b"x")
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "SHA-256 differs from pack.json for regressor.onnx" in line_of(text, "toy ")
    assert "FAILED" in line_of(text, "pack toy ")
    assert "passed" in line_of(text, "nms ")


def test_a_missing_file_and_unreadable_settings(
    packs: Path, toy_pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("good", "holey", "garbled"):
        shutil.copytree(toy_pack, packs / name)
    (packs / "holey" / "detector.onnx").unlink()
    (packs / "garbled" / "pack.json").write_text("{")
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "SHA-256 as it should be" in line_of(text, "good ")
    assert "missing detector.onnx" in line_of(text, "holey ")
    assert "expected a JSON object" in line_of(text, "garbled ")
    assert "passed" in line_of(text, "pack good ")


def test_a_pack_that_does_not_work(packs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its files are those of pack.json, but the network is none."""
    build_toy_pack(packs / "hollow", networks={"detector.onnx": b"nothing"})
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "SHA-256 as it should be" in line_of(text, "hollow ")
    assert "FAILED" in line_of(text, "pack hollow ")


def test_a_kernel_that_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(threedfa.ops, "nms", lambda *arguments, **named: np.array([0, 1, 2]))
    assert main(["doctor"]) == 1
    assert "FAILED: wrong result" in line_of(capsys.readouterr().out, "nms ")
