"""How many CPUs this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def available_cpus(root: Path = Path("/")) -> int:
    """CPUs that this process may use: those of its affinity mask, and no more than the CPU time
    that its control groups give it, as containers limit it.

    Args:
        root: where ``proc`` and ``sys`` are.

    Returns:
        At least 1. A quota of 2.5 CPUs counts as 2: a third thread would be held back half of the
        time, and the others would wait for it.
    """
    quota = min(_quotas(root), default=float("inf"))
    return max(1, int(min(_cpus_of_process(), quota)))


def _cpus_of_process() -> int:
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """CPUs worth of time that each control group around this process allows (Linux, cgroups(7));
    nothing where there is no limit."""
    for group in _lines(root / "proc/self/cgroup"):
        _, controllers, path = group.split(":", 2)
        mount = root / "sys/fs/cgroup"
        if controllers:  # version 1, one hierarchy for each set of controllers
            if "cpu" not in controllers.split(","):
                continue
            mount /= "cpu"
        # A container may see the path of its group on the host, which is then not there, with its
        # own group at the mount: hence the mount itself too, which is the last parent.
        folder = mount / path.strip("/")
        for place in (folder, *folder.parents):
            yield from _quota(place)
            if place == mount:
                break


def _quota(folder: Path) -> Iterator[float]:
    fields = " ".join(_lines(folder / "cpu.max")).split()  # version 2: "quota period", "max period"
    if not fields:
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        fields = [line for name in names for line in _lines(folder / name)]
    if len(fields) == 2 and fields[0].isdecimal() and fields[1].isdecimal():  # "max" and -1: none
        yield int(fields[0]) / max(1, int(fields[1]))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeError):
        return []
