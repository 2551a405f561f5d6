"""Packages from npm, for tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def install(folder: Path, *packages: str) -> None:
    """Install packages, each ``name@version``; the test is skipped where that is impossible."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("needs npm and node")
    command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", *packages]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"npm cannot install {', '.join(packages)}: {error}")
