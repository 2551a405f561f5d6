"""What ``threedfa bench`` reports, as text and as a page."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from . import __version__
from .cpus import available_cpus


@dataclass(frozen=True)
class Table:
    """A part of the report; all cells are texts."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def describe_machine() -> dict[str, str]:
    """What the figures depend on."""
    packages = ("numpy", "onnxruntime")
    return {
        "processor": _processor(),
        "CPUs": f"{available_cpus()} of {os.cpu_count()} may be used",
        "load before": " ".join(f"{x:.2f}" for x in getattr(os, "getloadavg", lambda: ())()),
        "system": " ".join([platform.system(), platform.machine(), *platform.libc_ver()]),
        "versions": ", ".join(
            [f"threedfa {__version__}", f"Python {platform.python_version()}"]
            + [f"{name} {metadata.version(name)}" for name in packages]
        ),
        "THREEDFA_SIMD": os.environ.get("THREEDFA_SIMD", "not set: the best there is"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def as_text(machine: dict[str, str], tables: Sequence[Table]) -> str:
    """The report for a terminal."""
    lines = [f"{key:<14} {value}" for key, value in machine.items()]
    for table in tables:
        cells = [table.columns, *table.rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines += ["", table.title]
        for row in cells:
            padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            lines.append(("  " + "  ".join(padded)).rstrip())
    return "\n".join(lines)


def as_markdown(machine: dict[str, str], tables: Sequence[Table]) -> str:
    """The report as a page of the documentation."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `threedfa bench --markdown FILE`. Every row's answer was checked against the",
        "alternative's before both were timed, in turn, in one run. What matters are the ratios:",
        "times are those of this machine.",
        "",
    ]
    lines += [f"- {key}: {value}" for key, value in machine.items()]
    for table in tables:
        lines += ["", f"## {table.title}", ""]
        if table.note:
            lines += [table.note, ""]
        lines.append("| " + " | ".join(table.columns) + " |")
        lines.append("|" + " --- |" * len(table.columns))
        lines += ["| " + " | ".join(row) + " |" for row in table.rows]
    return "\n".join(lines) + "\n"
