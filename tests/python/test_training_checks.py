"""What the steps of the training refuse, instead of going on with it."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import pytest

from training_steps import tool

torch = pytest.importorskip("torch", reason="needs the extra [train]")
pytest.importorskip("onnx", reason="needs the extra [train]")


def break_last(layer: Any) -> None:
    """One weight of the last output is no number."""
    with torch.no_grad():
        layer.weight[-1].view(-1)[0] = math.nan


def test_a_regressor_that_is_broken_is_not_exported(tmp_path: Path) -> None:
    export = tool("export")
    file, network = tmp_path / "regressor.onnx", tool("network").Regressor(20, 0.125).eval()
    file.write_bytes(export.to_onnx(network).SerializeToString())
    assert export.difference(file, network) < export.TOLERANCE
    break_last(network.head)  # of the confidence
    file.write_bytes(export.to_onnx(network).SerializeToString())
    assert math.isnan(export.difference(file, network))


def test_a_detector_that_is_broken_is_not_exported(tmp_path: Path) -> None:
    export_detector = tool("export_detector")
    file, network = tmp_path / "detector.onnx", tool("detector_network").Detector().eval()
    file.write_bytes(export_detector.to_onnx(network).SerializeToString())
    assert export_detector.difference(file, network) < export_detector.TOLERANCE
    break_last([m for m in network.modules() if isinstance(m, torch.nn.Conv2d)][-1])
    file.write_bytes(export_detector.to_onnx(network).SerializeToString())
    assert math.isnan(export_detector.difference(file, network))


def test_parts_of_a_batch_are_equal(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--labels=l", "--renders=r", "--out=o", "--batch=64", "--threads=6"]
    with pytest.raises(SystemExit):
        tool("train_regressor").main(arguments)
    assert "divides the batch of 64 pictures, got 6" in capsys.readouterr().err


def test_renders_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    renders = tool("renders")
    labels, model = tmp_path / "labels.npz", tmp_path / "model.safetensors"
    labels.write_bytes(b"labels")
    model.write_bytes(b"model")
    options = argparse.Namespace(out=tmp_path, labels=labels, model=model, seed=1, shard_size=10)
    renders.keep_settings(options)
    renders.keep_settings(options)
    labels.write_bytes(b"fitted again")
    options.seed = 2
    with pytest.raises(SystemExit, match="with another seed, labels; remove them"):
        renders.keep_settings(options)
    options.out = tmp_path / "new"
    options.out.mkdir()
    renders.keep_settings(options)


def test_a_portrait_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.jpg; unpack the portraits"):
        tool("renders").read_portrait(tmp_path / "a.jpg")
