"""CPUs of this process, its affinity and its control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from threedfa import cpus
from threedfa.cpus import available_cpus


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "_cpus_of_process", lambda: 8)


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def test_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert available_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_without_control_groups(tmp_path: Path) -> None:
    assert available_cpus(tmp_path) == 8


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 8),
        ("100000 100000", 1),
        ("250000 100000", 2),
        ("20000 100000", 1),
        ("6400000 100000", 8),
        ("", 8),
        ("garbage", 8),
        ("1 0", 1),
    ],
)
def test_version_2(tmp_path: Path, quota: str, expected: int) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{quota}\n"}
    assert available_cpus(tree(tmp_path, files)) == expected


def test_the_strictest_group_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/a.slice/b.scope\n",
        "sys/fs/cgroup/cpu.max": "max 100000\n",
        "sys/fs/cgroup/a.slice/cpu.max": "300000 100000\n",
        "sys/fs/cgroup/a.slice/b.scope/cpu.max": "500000 100000\n",
    }
    assert available_cpus(tree(tmp_path, files)) == 3


@pytest.mark.parametrize("path", ["/", "/docker/0123abcd"])
def test_version_1(tmp_path: Path, path: str) -> None:
    """In a container the path is that of the host, or none."""
    files = {
        "proc/self/cgroup": f"7:memory:/\n3:cpu,cpuacct:{path}\n1:name=systemd:/\n0::/\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    }
    assert available_cpus(tree(tmp_path, files)) == 4


def test_version_1_without_a_limit(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "3:cpu,cpuacct:/\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    }
    assert available_cpus(tree(tmp_path, files)) == 8
