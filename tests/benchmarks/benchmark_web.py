"""How the web API bears load: throughput, latency, memory and refusals, with checked answers.

    python tests/benchmarks/benchmark_web.py [--pack NAME] [--clients 64] [--seconds 60] PICTURE...

Starts a server of its own. First as many clients as the queue has places, which keeps the server
busy without refusals: throughput against ``FaceAnalyzer.analyze_batch`` on the same pictures, of
processes that have the machine for themselves one after the other. Then twice as many clients as
places: nobody may get anything but 200 and 503. Each answer of 200 is compared with the analyzer's
results. Exit status 1 if one differs or anything else fails.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from threedfa import Face, FaceAnalyzer
from threedfa.cli import SAMPLE
from threedfa.tables import faces_from_dict

TOLERANCE = 0.05  # pixels between a batch and single pictures
MEGABYTE = 1 << 20


@dataclass
class Load:
    """What the clients of one run saw."""

    seconds: float
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    worst: float = 0.0
    cpu: float = 0.0

    def report(self, title: str) -> None:
        done = np.sort(self.latencies)
        median, p99 = np.quantile(done, [0.5, 0.99])
        early, late = self.memory[len(self.memory) // 5], self.memory[-1]
        print(f"{title}: {dict(self.statuses)}")
        print(f"  {len(done) / self.seconds:.1f} pictures/s, {self.cpu / len(done):.3f} CPU s each")
        print(f"  latency: median {median:.3f} s, p99 {p99:.3f} s, ratio {p99 / median:.2f}")
        print(f"  memory: {early / MEGABYTE:.0f} MB early, {late / MEGABYTE:.0f} MB at the end")
        print(f"  largest difference from analyze: {self.worst:.4f} pixels")

    @property
    def good(self) -> bool:
        return set(self.statuses) <= {200, 503} and self.worst <= TOLERANCE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="*", type=Path, default=[SAMPLE])
    parser.add_argument("--pack", default="default")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    pictures = [path.read_bytes() for path in options.pictures]
    analyzer = FaceAnalyzer(options.pack)
    expected = [analyzer.analyze(picture) for picture in pictures]
    rate, cpu = batch_rate(analyzer, pictures, options.seconds)
    print(f"analyze_batch: {rate:.1f} pictures/s, {cpu:.3f} CPU s each")

    places = options.clients // 2
    process, url = start(options.pack, places, options.clients)
    try:
        saturated = asyncio.run(load(process, url, places, options.seconds, pictures, expected))
        saturated.report(f"{places} clients, {places} places")
        share = len(saturated.latencies) / saturated.seconds / rate
        print(f"  {100 * share:.0f} % of analyze_batch")
        crowded = asyncio.run(
            load(process, url, options.clients, options.seconds, pictures, expected)
        )
        crowded.report(f"{options.clients} clients, {places} places")
    finally:
        process.terminate()
        process.wait()
    return 0 if saturated.good and crowded.good else 1


def batch_rate(
    analyzer: FaceAnalyzer, pictures: list[bytes], seconds: float
) -> tuple[float, float]:
    """Pictures a second and CPU seconds a picture, read from their files as the server does it."""
    batch = (pictures * 64)[:64]
    analyzer.analyze_batch(batch)
    start, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        analyzer.analyze_batch(batch)
        count += len(batch)
    return count / (time.perf_counter() - start), (time.process_time() - cpu) / count


def start(pack: str, places: int, clients: int) -> tuple[subprocess.Popen[bytes], str]:
    """A server, and its address, once it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "threedfa.cli", "serve", "--pack", pack, "--port", str(port)]
    command += [f"--max-queue={places}", f"--max-client-requests={clients}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    while process.poll() is None:
        try:
            if httpx.get(f"{url}/v1/readyz").is_success:
                return process, url
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError("the server does not start")


async def load(
    process: subprocess.Popen[bytes],
    url: str,
    clients: int,
    seconds: float,
    pictures: list[bytes],
    expected: list[list[Face]],
) -> Load:
    """Clients that ask again as soon as they have an answer, or may after a refusal."""
    result = Load(seconds)
    cpu = cpu_seconds(process.pid)
    end = time.perf_counter() + seconds

    async def ask(number: int, http: httpx.AsyncClient) -> None:
        while time.perf_counter() < end:
            which = number % len(pictures)
            number += 1
            start = time.perf_counter()
            answer = await http.post("/v1/align", files={"image": pictures[which]})
            result.statuses[answer.status_code] += 1
            if answer.status_code == 200:
                result.latencies.append(time.perf_counter() - start)
                result.worst = max(result.worst, difference(answer, expected[which]))
            else:
                await asyncio.sleep(float(answer.headers.get("retry-after", 0)))

    async def watch() -> None:
        while time.perf_counter() < end:
            result.memory.append(resident(process.pid))
            await asyncio.sleep(seconds / 50)

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:
        await asyncio.gather(watch(), *(ask(number, http) for number in range(clients)))
    result.cpu = cpu_seconds(process.pid) - cpu
    return result


def difference(answer: httpx.Response, expected: list[Face]) -> float:
    """Pixels between landmarks, the largest; infinite for another number of faces."""
    if not expected:
        return float("inf") if answer.json()[0]["faces"] else 0.0
    found = faces_from_dict(answer.json()[0], expected[0].model)
    if len(found) != len(expected):
        return float("inf")
    pairs = zip(found, expected, strict=True)
    return max(float(np.abs(a.landmarks - b.landmarks).max()) for a, b in pairs)


def cpu_seconds(pid: int) -> float:
    """That a process has used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Bytes of memory of a process (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
