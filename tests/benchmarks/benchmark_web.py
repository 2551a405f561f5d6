"""How the web API bears load: throughput, latency, memory and refusals, with checked answers.

    python tests/benchmarks/benchmark_web.py [--pack NAME] [--clients 64] [--seconds 60]
        [--workers 1] PICTURE...

Starts a server of its own, whose queues have half as many places as there are clients; several
workers share the CPUs.

1. As many clients as places, which keep the server busy without refusals: throughput against
   ``FaceAnalyzer.analyze_batch``, which runs before and after, each time for half as long. Both
   decode the same files and may use all CPUs; a request has one picture. The clients take CPU time
   from the server, so it is printed, too; they send bytes made beforehand, and look at the answers
   when all is over.
2. All clients: twice the capacity.

Exit status 1 unless in 1 all answers of one worker are 200, and else only 200 and 503, no
connection breaks off, p99 of the accepted requests is within three times the median, and memory
stays flat; or if an answer differs from what the analyzer finds. Throughput is printed, not judged.
Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from threedfa import Face, FaceAnalyzer
from threedfa.cpus import available_cpus
from threedfa.image import SAMPLE
from threedfa.tables import faces_from_dict

TOLERANCE = 0.05  # pixels between a batch and single pictures
TAIL = 3.0  # p99 in medians
GROWTH = 1.05  # of memory, from the second fifth of a run to its last
MEGABYTE = 1 << 20


@dataclass
class Spent:
    """Pictures, and the seconds and CPU seconds that they took."""

    pictures: int = 0
    seconds: float = 0.0
    cpu: float = 0.0

    def __str__(self) -> str:
        each = 1000 * self.cpu / self.pictures
        return f"{self.pictures / self.seconds:.1f} pictures/s, {each:.2f} ms of CPU each"


@dataclass
class Load:
    """What the clients of one run saw."""

    title: str
    allowed: set[int]
    statuses: list[int] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    answers: set[tuple[int, bytes]] = field(default_factory=set)
    memory: list[int] = field(default_factory=list)
    server: Spent = field(default_factory=Spent)
    clients_cpu: float = 0.0

    def report(self, expected: list[list[Face]]) -> bool:
        """Print it; whether all is well."""
        fifth = len(self.memory) // 5
        early, late = max(self.memory[fifth : 2 * fifth]), max(self.memory[-fifth:])
        median, p99 = np.quantile(self.latencies, [0.5, 0.99])
        worst = max(difference(body, expected[which]) for which, body in self.answers)
        clients = 1000 * self.clients_cpu / self.server.pictures
        answers = dict(Counter(self.statuses))
        print(f"{self.title}: answers {answers}, {len(self.broken)} broken connections")
        print(f"  {self.server}, and {clients:.2f} ms of the clients")
        print(f"  latency: median {median:.3f} s, p99 {p99:.3f} s, ratio {p99 / median:.2f}")
        print(f"  memory: {early / MEGABYTE:.0f} MB early, {late / MEGABYTE:.0f} MB at the end")
        print(f"  largest difference from analyze: {worst:.4f} pixels")
        for reason in sorted(set(self.broken)):
            print(f"  broken: {reason}")
        answered = not self.broken and set(self.statuses) <= self.allowed and worst <= TOLERANCE
        return bool(answered and p99 <= TAIL * median and late <= GROWTH * early)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="*", type=Path, default=[SAMPLE])
    parser.add_argument("--pack", default="default")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workers", type=int, default=1, help="processes of the server")
    options = parser.parse_args()
    pictures = [path.read_bytes() for path in options.pictures]
    requests = [request(picture) for picture in pictures]
    analyzer = FaceAnalyzer(options.pack)
    expected = [analyzer.analyze(picture) for picture in pictures]
    places = options.clients // 2 // options.workers * options.workers
    refused = {200, 503}
    # The system may give one of several workers more connections than it has places.
    first = {200} if options.workers == 1 else refused
    saturated = Load(f"{places} clients, {places} places", first)
    crowded = Load(f"{options.clients} clients, {places} places", refused)
    batch = Spent()

    process, port = start(options.pack, options.workers, places, options.clients)
    try:
        running = [process.pid, *children(process.pid)]
        run_batch(analyzer, pictures, options.seconds / 2, batch)
        run_clients(saturated, running, port, places, options.seconds, requests)
        run_batch(analyzer, pictures, options.seconds / 2, batch)
        run_clients(crowded, running, port, options.clients, options.seconds, requests)
    finally:
        process.terminate()
        process.wait()
    print(f"analyze_batch: {batch}")
    good = saturated.report(expected)
    served = saturated.server.pictures / saturated.server.seconds
    print(f"  {100 * served * batch.seconds / batch.pictures:.0f} % of analyze_batch")
    return 0 if crowded.report(expected) and good else 1


def request(picture: bytes) -> bytes:
    """All bytes of a request."""
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    body = part + picture + b"\r\n--x--\r\n"
    head = "POST /v1/align HTTP/1.1\r\nHost: localhost\r\n"
    head += "Content-Type: multipart/form-data; boundary=x\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def run_batch(analyzer: FaceAnalyzer, pictures: list[bytes], seconds: float, spent: Spent) -> None:
    """Analyze files again and again."""
    batch = (pictures * 64)[:64]
    analyzer.analyze_batch(batch)
    start, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        analyzer.analyze_batch(batch)
        spent.pictures += len(batch)
    spent.seconds += time.perf_counter() - start
    spent.cpu += time.process_time() - cpu


def start(
    pack: str, workers: int, places: int, clients: int
) -> tuple[subprocess.Popen[bytes], int]:
    """A server, and its port, once it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "threedfa.cli", "serve", "--pack", pack, "--port", str(port)]
    command += [f"--max-queue={places // workers}", f"--max-client-requests={clients}"]
    if workers > 1:
        threads = max(1, available_cpus() // workers)
        command += [f"--workers={workers}", f"--threads={threads}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/readyz").close()
        except OSError:
            time.sleep(0.1)
        else:
            return process, port
    raise RuntimeError("the server does not start")


def run_clients(
    load: Load, pids: list[int], port: int, count: int, seconds: float, requests: list[bytes]
) -> None:
    """Clients that ask again as soon as they have an answer, or may after a refusal."""
    start, cpu, clients_cpu = time.perf_counter(), cpu_seconds(pids), time.process_time()
    end = start + seconds
    threads = [
        threading.Thread(target=ask_again, args=(load, port, number, end, requests))
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    while time.perf_counter() < end:
        load.memory.append(resident(pids))
        time.sleep(seconds / 50)
    for thread in threads:
        thread.join()
    load.server = Spent(len(load.latencies), time.perf_counter() - start, cpu_seconds(pids) - cpu)
    load.clients_cpu = time.process_time() - clients_cpu


def ask_again(load: Load, port: int, number: int, end: float, requests: list[bytes]) -> None:
    """One client, on one connection as long as it holds."""
    while time.perf_counter() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
                while (start := time.perf_counter()) < end:
                    which = number % len(requests)
                    number += 1
                    connection.sendall(requests[which])
                    status, wait, body = receive(connection)
                    load.statuses.append(status)
                    if status == 200:
                        load.latencies.append(time.perf_counter() - start)
                        load.answers.add((which, body))
                    time.sleep(wait)
        except OSError as error:
            load.broken.append(repr(error))


def receive(connection: socket.socket) -> tuple[int, float, bytes]:
    """Status, seconds after which to come back, and body of an answer."""
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0:
        received += some_bytes(connection)
    status, *lines = received[:end].decode("latin-1").lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    whole = end + 4 + int(headers["content-length"])
    while len(received) < whole:
        received += some_bytes(connection)
    return int(status.split()[1]), float(headers.get("retry-after", 0)), received[end + 4 :]


def some_bytes(connection: socket.socket) -> bytes:
    """At least one."""
    received = connection.recv(1 << 18)
    if not received:
        raise ConnectionError("closed without an answer")
    return received


def difference(body: bytes, expected: list[Face]) -> float:
    """Pixels between landmarks, the largest; infinite for another number of faces."""
    (entry,) = json.loads(body)
    if len(entry["faces"]) != len(expected):
        return float("inf")
    if not expected:
        return 0.0
    pairs = zip(faces_from_dict(entry, expected[0].model), expected, strict=True)
    return max(float(np.abs(a.landmarks - b.landmarks).max()) for a, b in pairs)


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_seconds(pids: list[int]) -> float:
    """That processes have used."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def resident(pids: list[int]) -> int:
    """Bytes of memory of processes."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
