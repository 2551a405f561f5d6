"""The web API under load and attack, and who may use it, against server processes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client as http_client
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from pictures import picture, png
from threedfa import Face, FaceAligner, FaceAnalyzer, ServerError, cli
from web_server import Server, serving

pytest.importorskip("uvicorn", reason="needs the extra [web]")

from starlette.requests import Request
from starlette.responses import Response

from threedfa.client import Client
from threedfa.web.batching import Batcher, Engine
from threedfa.web.capacity import Capacity
from threedfa.web.gate import Gate
from threedfa.web.metrics import Metrics
from threedfa.web.pictures import Upload
from threedfa.web.problems import Problem
from threedfa.web.service import Options, Scene, Service
from threedfa.web.settings import ApiKeys, Limits, Settings, SettingsError

KEY, OTHER_KEY = "a key of some length", "another key of some length"
LIMITS = {"upload-bytes": 200_000, "pixels": 40_000, "files": 3, "faces": 2, "client-requests": 4}
HEAD = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
ONE = picture((64, 32))
TCP_TABLE = Path("/proc/net/tcp")


@pytest.fixture(scope="module")
def server(web_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With keys and narrow limits."""
    folder = tmp_path_factory.mktemp("strict")
    (folder / "keys").write_text(f"# ours\n{KEY}\n\n{OTHER_KEY}\n")
    flags = [f"--max-{name}={value}" for name, value in LIMITS.items()]
    flags += ["--max-queue=2", f"--api-keys={folder / 'keys'}"]
    flags += ["--cors-origin=https://example.org", "--max-memory-bytes=30000000"]
    with serving(web_pack, folder, *flags) as server:
        yield server


@pytest.fixture(scope="module")
def quick(web_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With little time for each request, and wide limits otherwise."""
    folder = tmp_path_factory.mktemp("quick")
    with serving(web_pack, folder, "--max-seconds=4", "--max-client-requests=100") as server:
        yield server


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with server.client(headers={"Authorization": f"Bearer {KEY}"}) as client:
        yield client


def refused(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in answer.text
    detail: str = answer.json()["detail"]
    return detail


def start_upload(
    server: Server, key: str = KEY, route: str = "/v1/align", forwarded_for: str = ""
) -> socket.socket:
    """A request whose body has begun and does not go on."""
    connection = server.connect()
    head = f"POST {route} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
    if forwarded_for:
        head += f"X-Forwarded-For: {forwarded_for}\r\n"
    head += "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000\r\n\r\n"
    connection.sendall(head.encode() + HEAD)
    return connection


def status_of(connection: socket.socket) -> int:
    """Of the answer on a connection."""
    with connection, connection.makefile("rb") as stream:
        return int(stream.readline().split()[1])


# --- access ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["/v1/align", "/v1/crops", "/detect", "/b64/detect"])
def test_without_a_key(server: Server, route: str) -> None:
    headers: list[dict[str, str]] = [{}, {"Authorization": "Basic YTpi"}]
    headers += [{"Authorization": f"Bearer {key}"} for key in (KEY[:-1], KEY + " ä", "Bearer")]
    for shown in headers:
        encoded = [(name, value.encode("utf-8")) for name, value in shown.items()]
        answer = httpx.post(server.url + route, headers=encoded, files={"image": png(ONE)})
        assert "Authorization: Bearer" in refused(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"


def test_routes_with_and_without_keys(server: Server, http: httpx.Client) -> None:
    with server.client() as stranger:
        for route in ("/v1/healthz", "/v1/readyz", "/openapi.json"):
            assert stranger.get(route).status_code == 200
        for route in ("/v1/packs", "/v1/metrics"):
            refused(stranger.get(route), 401)
            assert http.get(route).status_code == 200


def test_both_keys_open_and_none_is_logged(server: Server, http: httpx.Client) -> None:
    assert http.post("/v1/align", files={"image": png(ONE)}).status_code == 200
    headers = {"Authorization": f"Bearer {OTHER_KEY}"}
    assert httpx.get(f"{server.url}/v1/packs", headers=headers).status_code == 200
    log = server.log.read_text()
    assert "POST /v1/align" in log and KEY not in log and OTHER_KEY not in log


def test_client_with_a_key(server: Server, web_pack: Path) -> None:
    with Client(server.url, web_pack, api_key=KEY) as client:
        assert len(client.analyze(ONE)) == 1
    with Client(server.url, web_pack) as client, pytest.raises(ServerError, match="401"):
        client.analyze(ONE)


def test_cors_is_for_those_who_are_named(server: Server, http: httpx.Client) -> None:
    for origin, allowed in (("https://example.org", True), ("https://example.com", False)):
        answer = http.get("/v1/packs", headers={"Origin": origin})
        assert (answer.headers.get("access-control-allow-origin") == origin) is allowed
        wish = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        asked = httpx.options(f"{server.url}/v1/align", headers=wish)
        assert (asked.status_code == 200) is allowed


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "got none"),
        (b"# only\n", "got none"),
        (b"short\n", "got 5 characters"),
        (b"abcdefghijklmnopqrst # ours\n", "API key 1: expected no remark behind it"),
        ("schlüsselschlüssel".encode(), "ASCII"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_key_files(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "keys").write_bytes(content)
    with pytest.raises(SettingsError, match=said):
        ApiKeys.load(tmp_path / "keys")
    with pytest.raises(SettingsError, match="No such file"):
        ApiKeys.load(tmp_path / "missing")


def test_keys_are_kept_as_hashes() -> None:
    keys = ApiKeys([KEY])
    assert KEY in keys and OTHER_KEY not in keys and "" not in keys and "\udcff" not in keys
    assert KEY not in repr(vars(keys))


# --- limits ---------------------------------------------------------------------------------------


def endless_file(count: int) -> Iterator[bytes]:
    yield HEAD
    for _ in range(count >> 16):
        yield bytes(1 << 16)


@pytest.mark.parametrize("announced", [True, False])
def test_a_large_upload(http: httpx.Client, announced: bool) -> None:
    size = 100 << 20
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    if announced:
        headers["Content-Length"] = str(len(HEAD) + size)
    answer = http.post("/v1/align", content=endless_file(size), headers=headers)
    assert refused(answer, 413) == "expected at most 200000 bytes in one request"


def test_a_large_upload_is_not_even_sent_where_the_client_asks_before(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"POST /v1/align HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
            b"Authorization: Bearer " + KEY.encode() + b"\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000000\r\n\r\n"
        )
        assert status_of(connection) == 413


def bomb(width: int, height: int) -> bytes:
    """A small PNG file that says to be large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)


@pytest.mark.parametrize(
    ("size", "status"), [((300, 300), 413), ((10_000, 10_000), 413), ((60_000, 60_000), 413)]
)
def test_a_decompression_bomb(http: httpx.Client, size: tuple[int, int], status: int) -> None:
    said = refused(http.post("/v1/align", files={"image": bomb(*size)}), status)
    assert "picture 0" in said and "40000 pixels" in said


def test_many_files(http: httpx.Client) -> None:
    files = [("image", (f"{i}", b"a")) for i in range(10_000)]
    body = httpx.Request("POST", "http://a", files=files[:1000]).read()
    assert len(body) < LIMITS["upload-bytes"]
    assert "Too many files" in refused(http.post("/v1/align", files=files[:1000]), 413)
    refused(http.post("/v1/align", files=files), 413)
    refused(http.post("/v1/align", json={"images": ["YQ=="] * 4}), 413)
    small = png(ONE[:64, :64])
    assert http.post("/v1/align", files=[("image", small)] * 3).status_code == 200
    fields = {f"field{i}": "a" for i in range(100)}
    refused(http.post("/v1/align", data=fields, files=files[:1]), 413)


def test_many_faces(http: httpx.Client) -> None:
    crowd = picture((0, 0), (64, 0), (128, 0), (0, 96), (64, 96))
    for query in ({}, {"max_faces": 5}):
        answer = http.post("/v1/detect", files={"image": png(crowd)}, params=query)
        assert len(answer.json()[0]["faces"]) == 2
    answer = http.post("/v1/detect", files={"image": png(crowd)}, params={"max_faces": 1})
    assert len(answer.json()[0]["faces"]) == 1


def test_many_requests_of_one_client(server: Server, http: httpx.Client) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(start_upload(server))
        wait_for_requests(http, 4)
        answer = http.post("/v1/align", files={"image": png(ONE)})
        assert "at most 4 requests" in refused(answer, 429)
        assert answer.headers["retry-after"] == "1"
        headers = {"Authorization": f"Bearer {OTHER_KEY}"}
        files = {"image": png(ONE)}
        other = httpx.post(f"{server.url}/v1/align", headers=headers, files=files)
        assert other.status_code == 200
    wait_for_requests(http, 0)
    assert http.post("/v1/align", files={"image": png(ONE)}).status_code == 200


@pytest.mark.parametrize(
    ("trusted", "told_apart"), [(None, False), ("127.0.0.1", True), ("192.0.2.1", False)]
)
def test_many_requests_behind_a_proxy(
    web_pack: Path, tmp_path: Path, trusted: str | None, told_apart: bool
) -> None:
    """Anybody may write the header: it names the client only where a trusted proxy sends it."""
    flags = [] if trusted is None else [f"--trusted-proxy={trusted}"]
    with (
        serving(web_pack, tmp_path, "--max-client-requests=1", *flags) as server,
        server.client() as http,
    ):

        def status(*forwarded_for: str) -> int:
            headers = [("X-Forwarded-For", client) for client in forwarded_for]
            return http.post("/v1/align", files={"image": png(ONE)}, headers=headers).status_code

        with start_upload(server, forwarded_for="203.0.113.1"):
            wait_for_requests(http, 1)
            assert status("203.0.113.1") == 429
            others = [status("203.0.113.2"), status()]
            assert others == [200 if told_apart else 429] * 2
            # The last is the proxy's own word, what comes before is the client's.
            assert status("203.0.113.2, 203.0.113.1") == 429
        wait_for_requests(http, 0)
        assert status("203.0.113.1") == 200


def until(condition: Callable[[], Any]) -> None:
    """Wait for something that comes soon."""
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise TimeoutError


def wait_for_requests(http: httpx.Client, count: int) -> None:
    """Until so many others are in progress."""
    line = f"threedfa_requests_in_progress {count + 1:.1f}"
    until(lambda: line in http.get("/v1/metrics").text.splitlines())


def test_a_full_queue(server: Server) -> None:
    """Some wait, the others are sent away; nobody gets anything else."""

    def ask(_: int) -> httpx.Response:
        return httpx.post(
            f"{server.url}/v1/mesh?texture_size=512",
            headers={"Authorization": f"Bearer {KEY if _ % 2 else OTHER_KEY}"},
            files={"image": png(ONE)},
            timeout=60,
        )

    answers: list[httpx.Response] = []
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            answers += pool.map(ask, range(8))
            if any(answer.status_code == 503 for answer in answers):
                break
    assert {answer.status_code for answer in answers} <= {200, 503}
    full = next(answer for answer in answers if answer.status_code == 503)
    assert "queue is full" in refused(full, 503) and full.headers["retry-after"] == "1"
    assert any(answer.status_code == 200 for answer in answers)


def test_memory_is_limited(web_pack: Path, tmp_path: Path) -> None:
    """Uploads that are held back and need more memory than there is do not get it."""
    limits = ["--max-upload-bytes=1000000", "--max-pixels=40000", "--max-memory-bytes=1300000"]
    with serving(web_pack, tmp_path, *limits) as server, contextlib.ExitStack() as stack:
        for _ in range(2):
            connection = stack.enter_context(server.connect())
            connection.sendall(
                b"POST /v1/align HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + HEAD + bytes(700_000)
            )
        with server.client() as http:
            until(lambda: 'status="503"' in http.get("/v1/metrics").text)


def test_a_request_that_never_fits_is_not_sent_away_for_a_while() -> None:
    lease = Capacity(Limits(pixels=1, upload_bytes=1, memory_bytes=7), lambda queued: None).lease()
    lease.take_memory(6)
    with pytest.raises(Problem, match="at most 7 bytes of memory") as caught:
        lease.take_memory(2)
    assert caught.value.status == 413


def test_no_more_is_made_for_a_request_that_is_over(web_pack: Path) -> None:
    service = Service(Settings(packs=[str(web_pack)], num_threads=1))
    lease = service.capacity.lease()
    made = []

    def make(number: int, scene: Scene) -> Iterator[tuple[str, bytes]]:
        made.append(number)
        lease.release()  # as if the client were gone
        yield "name", b"content"

    async def ask() -> None:
        async def receive() -> Any:
            await asyncio.sleep(60)

        request = Request({"type": "http", "state": {"lease": lease}}, receive)
        uploads = [Upload(None, png(ONE))] * 3
        await service.analyze(request, uploads, Options(), make, lambda files: Response())

    service.batcher.start()
    try:
        with pytest.raises(Problem, match="is over"):
            asyncio.run(ask())
        with pytest.raises(Problem, match="is over"):
            lease.check()
    finally:
        service.batcher.stop()
    assert made == [0]


# --- time -----------------------------------------------------------------------------------------


def test_an_upload_that_does_not_end(quick: Server) -> None:
    with start_upload(quick) as connection, connection.makefile("rb") as stream:
        answer = stream.read()  # until the server closes the connection
    assert answer.startswith(b"HTTP/1.1 408") and b"within 4 s" in answer


def test_slow_uploads_do_not_stop_others(quick: Server) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(start_upload(quick)) for _ in range(90)]
        with quick.client() as http:
            answer = http.post("/v1/align", files={"image": png(ONE)})
        assert answer.status_code == 200 and answer.json()[0]["faces"]
        slow[0].setblocking(False)
        with pytest.raises(BlockingIOError):  # they still wait
            slow[0].recv(1)


@pytest.mark.skipif(sys.platform != "linux", reason="needs more addresses of the own machine")
def test_slow_uploads_of_another_address(quick: Server) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(start_upload(quick))
        transport = httpx.HTTPTransport(local_address="127.0.0.2")
        with quick.client(transport=transport) as http:
            assert http.post("/v1/align", files={"image": png(ONE)}).status_code == 200


def test_clients_that_go_away(quick: Server) -> None:
    content = png(picture((64, 32), size=(900, 900)))
    body = HEAD + content + b"\r\n--x--\r\n"
    head = "POST /v1/align HTTP/1.1\r\nHost: a\r\n"
    head += "Content-Type: multipart/form-data; boundary=x\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    for sent in (*[len(body)] * 10, 10, len(body) // 2):
        with quick.connect() as connection:
            connection.sendall(head.encode() + body[:sent])
    with quick.client() as http:
        wait_for_requests(http, 0)
        assert "threedfa_queue_requests 0.0" in http.get("/v1/metrics").text
        assert http.post("/v1/align", files={"image": png(ONE)}).status_code == 200
    assert "Traceback" not in quick.log.read_text()


def test_an_answer_that_nobody_reads(quick: Server) -> None:
    """It does not stay in memory: it is more than the sockets' buffers take."""
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    body = HEAD + png(noise) + b"\r\n--x--\r\n"
    head = "POST /v1/render/box?format=png HTTP/1.1\r\nHost: a\r\n"
    head += "Content-Type: multipart/form-data; boundary=x\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", quick.port))
        connection.sendall(head.encode() + body)
        with quick.client() as http:
            wait_for_requests(http, 0)
        if TCP_TABLE.exists():  # nor in the system's buffers
            until(lambda: not server_has(connection))


def server_has(connection: socket.socket) -> bool:
    """Whether the other end of a connection of this machine is still there."""
    own, other = (
        f":{name[1]:04X}" for name in (connection.getsockname(), connection.getpeername())
    )
    rows = (line.split() for line in TCP_TABLE.read_text().splitlines())
    return any(row[1].endswith(other) and row[2].endswith(own) for row in rows)


def test_a_connection_that_was_idle(quick: Server) -> None:
    """Clients keep connections for some seconds (httpx five). A server that closes them as early
    may do so while the next request is on its way, which is then broken off."""
    connection = http_client.HTTPConnection("127.0.0.1", quick.port, timeout=60)
    with contextlib.closing(connection):
        for idle in (0, 6):
            time.sleep(idle)
            connection.request("GET", "/v1/healthz")
            with connection.getresponse() as answer:
                assert answer.status == 200 and answer.read()


def test_mistakes_are_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("a secret")

    async def ask() -> httpx.Response:
        gate = Gate(
            broken,
            limits=Limits(),
            capacity=Capacity(Limits(), on_queue=lambda queued: None),
            metrics=Metrics(),
        )
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gate)) as http:
            return await http.post("http://a/b", content=b"c")

    answer = asyncio.run(ask())
    assert "which its log describes" in refused(answer, 500) and "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "RuntimeError: a secret" in caplog.text


# --- stopping -------------------------------------------------------------------------------------


def test_stopping_finishes_what_runs(web_pack: Path, tmp_path: Path) -> None:
    content = png(ONE)
    body = HEAD + content + b"\r\n--x--\r\n"
    with serving(web_pack, tmp_path) as server:
        with server.connect() as connection, connection.makefile("rb") as answer:
            connection.sendall(
                b"POST /v1/align HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n"
                + f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body[:200]
            )
            with server.client() as http:
                wait_for_requests(http, 1)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: "Waiting for" in server.log.read_text())  # connections or tasks
            connection.sendall(body[200:])
            received = answer.read()
        assert received.startswith(b"HTTP/1.1 200") and b'"bbox"' in received
        assert server.process.wait(60) in (0, -signal.SIGTERM)
        assert "Traceback" not in server.log.read_text()


def test_workers(web_pack: Path, tmp_path: Path) -> None:
    with serving(web_pack, tmp_path, "--workers=2", "--threads=1") as server:
        with server.client() as http:
            for _ in range(4):
                assert http.post("/v1/align", files={"image": png(ONE)}).status_code == 200
        until(lambda: server.log.read_text().count("Started server process") == 2)
        for _ in range(6):  # on connections of their own, which either process may take
            with server.client() as http:
                assert http.post("/v1/align", files={"image": png(ONE)}).status_code == 200
                metrics = http.get("/v1/metrics").text
        assert "\nthreedfa_pictures_total 10.0\n" in metrics
        assert "\nthreedfa_queue_requests 0.0\n" in metrics
        assert "\nthreedfa_requests_in_progress 1.0\n" in metrics  # this one


def test_metrics_of_a_worker_that_is_gone(tmp_path: Path) -> None:
    def worker(code: str) -> str:
        code = f"from threedfa.web.metrics import Metrics; metrics = Metrics(); {code}"
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
            check=True,
        )
        return done.stdout

    worker("metrics.queue.set(5); metrics.pictures.inc(7)")
    text = worker("metrics.queue.set(1); print(metrics.exposition().decode())")
    assert "\nthreedfa_queue_requests 1.0\n" in text
    assert "\nthreedfa_pictures_total 7.0\n" in text


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--pack", "missing"], "there is no pack named 'missing'"),  # a second one
        (["--pack", "toy"], "expected packs of different names, got toy, toy"),
        (["--max-files", "0"], "files: expected a number above 0, got 0"),
        (["--max-seconds", "inf"], "seconds: expected a number above 0, got inf"),
        (["--port", "70000"], "port: expected 0..65535, got 70000"),
        (["--workers", "0"], "workers: expected at least 1, got 0"),
        (["--workers", "2", "--provider", "missing"], "providers: expected some of"),
        (["--max-memory-bytes", "1000"], "memory_bytes: expected at least"),
        (["--api-keys", "missing"], "cannot read API keys from missing"),
        (["--provider", "missing"], "providers: expected some of"),
    ],
)
def test_settings_that_cannot_be(
    web_pack: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    flags = [str(web_pack) if flag == "toy" else flag for flag in flags]
    assert cli.main(["serve", "--pack", str(web_pack), *flags]) == 1
    assert said in capsys.readouterr().err


# --- batches --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def analyzer(web_pack: Path) -> FaceAnalyzer:
    return FaceAnalyzer(web_pack, num_threads=2)


class HeldBack(FaceAligner):
    """Notes how many faces come together, and waits for leave to go on."""

    def __init__(self, pack: Path) -> None:
        super().__init__(pack)
        self.batches: list[int] = []
        self.free = threading.Event()

    def align_detected(self, images: Any, detections: Any, max_faces: Any) -> Any:
        self.batches.append(sum(map(len, detections)))
        assert self.free.wait(60)
        if any(image[0, 0, 0] == 255 for image in images):
            raise RuntimeError("a picture to stumble over")
        return super().align_detected(images, detections, max_faces)


@pytest.fixture
def aligner(web_pack: Path) -> HeldBack:
    return HeldBack(web_pack)


def engine_of(analyzer: FaceAnalyzer, aligner: HeldBack) -> Engine:
    return Engine((analyzer.detector, aligner), (analyzer.detector.single_threaded(), aligner))


@pytest.fixture
def batcher(aligner: HeldBack) -> Iterator[Batcher]:
    batcher = Batcher(1, Metrics())
    batcher.start()
    yield batcher
    aligner.free.set()
    batcher.stop()
    assert not batcher.running


def analyzed(
    batcher: Batcher, engine: Engine, images: Sequence[Any]
) -> Future[Sequence[list[Face]]]:
    """The faces of each image."""
    return batcher.analyze(
        engine,
        [lambda i=i: i for i in images],
        lambda _, found: [each.faces for each in found],
    )


def test_faces_of_requests_that_wait_go_together(
    batcher: Batcher, aligner: HeldBack, analyzer: FaceAnalyzer
) -> None:
    engine = engine_of(analyzer, aligner)
    two = picture((0, 0), (128, 64))
    first = analyzed(batcher, engine, [two])
    until(lambda: aligner.batches)  # it is under way
    others = [analyzed(batcher, engine, [two, ONE]) for _ in range(3)]
    gone = analyzed(batcher, engine, [two])
    assert gone.cancel()
    boxes = batcher.detect(engine, [lambda: two, lambda: ONE], lambda _, found: found)
    aligner.free.set()
    expected = analyzer.analyze_batch([two, two, ONE])
    found = [*first.result(60), *others[0].result(60)]
    for other in others[1:]:
        found += other.result(60)
        expected += expected[1:3]
    assert [len(faces) for faces in found] == [2, 2, 1, 2, 1, 2, 1]
    for a, b in zip(chain.from_iterable(found), chain.from_iterable(expected), strict=True):
        np.testing.assert_allclose(a.landmarks, b.landmarks, rtol=1e-5, atol=1e-3)
    assert [len(detections) for detections in boxes.result(60)] == [2, 1]
    assert aligner.batches == [2, 9]


def test_many_threads_find_the_same(analyzer: FaceAnalyzer) -> None:
    """Requests of several pictures, shared out among threads, come back whole and in order."""
    scenes = [picture(*((64 * i, 64 * j) for i in range(n) for j in range(2))) for n in range(4)]
    expected = [len(faces) for faces in analyzer.analyze_batch(scenes)]
    assert expected == [0, 2, 4, 6]
    batcher = Batcher(4, Metrics())
    batcher.start()
    engine = Engine.of(analyzer)
    jobs = [analyzed(batcher, engine, scenes[i % 4 :]) for i in range(20)]
    batcher.stop()
    for i, job in enumerate(jobs):
        assert [len(faces) for faces in job.result(0)] == expected[i % 4 :]


def test_a_request_that_fails_fails_alone(
    batcher: Batcher, aligner: HeldBack, analyzer: FaceAnalyzer
) -> None:
    engine = engine_of(analyzer, aligner)
    first = analyzed(batcher, engine, [ONE])
    until(lambda: aligner.batches)
    bad = ONE.copy()
    bad[0, 0] = 255
    jobs = [analyzed(batcher, engine, [image]) for image in (ONE, bad, ONE)]
    none = analyzed(batcher, engine, [None])
    aligner.free.set()
    assert [len(job.result(60)[0]) for job in (first, jobs[0], jobs[2])] == [1, 1, 1]
    with pytest.raises(RuntimeError, match="stumble"):
        jobs[1].result(60)
    with pytest.raises(AttributeError):
        none.result(60)
    assert len(analyzed(batcher, engine, [ONE]).result(60)[0]) == 1


def test_an_answer_that_nobody_waits_for_is_not_made(
    batcher: Batcher, aligner: HeldBack, analyzer: FaceAnalyzer
) -> None:
    engine = engine_of(analyzer, aligner)
    made: list[Any] = []
    job = batcher.analyze(engine, [lambda: ONE], lambda _, found: made.append(found))
    until(lambda: aligner.batches)  # it is under way
    assert job.cancel()
    aligner.free.set()
    assert len(analyzed(batcher, engine, [ONE]).result(60)[0]) == 1
    assert made == []


def test_pictures_are_let_go_at_once(
    batcher: Batcher, aligner: HeldBack, analyzer: FaceAnalyzer
) -> None:
    """Not when Python looks for circles, which may be many pictures later."""
    aligner.free.set()
    images = [ONE.copy(), ONE.copy()]
    kept = [weakref.ref(image) for image in images]
    gc.disable()
    try:
        assert len(analyzed(batcher, engine_of(analyzer, aligner), images).result(60)) == 2
        images.clear()
        until(lambda: not any(ref() is not None for ref in kept))
    finally:
        gc.enable()


def test_limits_are_checked() -> None:
    assert Limits(pixels=1, upload_bytes=1, memory_bytes=7).memory_bytes == 7
    with pytest.raises(SettingsError, match="expected at least 7"):
        Limits(pixels=1, upload_bytes=1, memory_bytes=6)
    for seconds in (math.inf, math.nan, 0.0):
        with pytest.raises(SettingsError, match="seconds: expected a number above 0"):
            Limits(seconds=seconds)
