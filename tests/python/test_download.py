"""Downloads of upstream packs, from a server in this process."""

from __future__ import annotations

import http.client
import io
import re
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from threedfa.errors import PackError
from threedfa.pack import Pack
from threedfa.upstream.download import UPSTREAM_URL, HttpsStaysHttps, download_upstream
from threedfa.upstream.sources import UPSTREAM_FILES, UpstreamFile, git_blob_id

NAME = "3ddfa_v2-mb05"
BASIS = "configs/bfm_noneck_v3.pkl"
MB05 = "weights/mb05_120x120.pth"


@dataclass
class Server:
    """Files and how to serve them; what was asked for is noted in ``requests``."""

    files: dict[str, bytes]
    url: str = ""
    ranges: bool = True
    lengths: bool = True
    #: How often the connection breaks, and after how many bytes.
    breaks: dict[str, int] = field(default_factory=dict)
    break_after: int = 1000
    #: Answers before the first good one.
    errors: dict[str, list[int]] = field(default_factory=dict)
    redirect: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)

    def asked(self, path: str) -> list[str]:
        return [wanted for requested, wanted in self.requests if requested == path]


class Handler(BaseHTTPRequestHandler):
    state: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        state, path = self.state, self.path.removeprefix("/mirror/")
        wanted = self.headers.get("Range", "")
        state.requests.append((path, wanted))
        if state.redirect:
            self.answer(302, {"Location": state.redirect})
            return
        if state.errors.get(path):
            self.answer(state.errors[path].pop(0), {})
            return
        if path not in state.files:
            self.answer(404, {})
            return
        data = state.files[path]
        start, status, headers = 0, 200, {}
        if state.ranges and (match := re.fullmatch(r"bytes=(\d+)-", wanted)):
            start, status = int(match[1]), 206
            if start >= len(data):
                self.answer(416, {})
                return
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        if state.lengths:
            headers["Content-Length"] = str(len(body))
        if state.breaks.get(path, 0) > 0:
            state.breaks[path] -= 1
            body = body[: state.break_after]
        self.answer(status, headers, body)

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(upstream_files: Path) -> Iterator[Server]:
    paths = [file.path for file in UPSTREAM_FILES]
    state = Server({path: (upstream_files / path).read_bytes() for path in paths})
    handler = type("Bound", (Handler,), {"state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        http_server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients leave
        state.url = f"http://127.0.0.1:{http_server.server_address[1]}/mirror/"
        thread = threading.Thread(target=http_server.serve_forever, args=(0.01,))
        thread.start()
        yield state
        http_server.shutdown()
        thread.join()


@pytest.fixture
def table(upstream_files: Path) -> list[UpstreamFile]:
    """The published files, as far as these tests are concerned."""
    paths = [file.path for file in UPSTREAM_FILES]
    return [UpstreamFile(path, git_blob_id(upstream_files / path)) for path in paths]


@pytest.fixture
def download(server: Server, table: list[UpstreamFile], tmp_path: Path) -> Callable[..., Path]:
    def run(name: str = NAME, **options: Any) -> Path:
        settings: dict[str, Any] = {
            "accept_licence": True,
            "destination": tmp_path / "packs",
            "base_url": server.url,
            "files": table,
            "timeout": 5.0,
            "retry_wait": 0.0,
            **options,
        }
        return download_upstream(name, **settings)

    return run


Download = Callable[..., Path]


def same_as_imported(pack: Path, synthetic_pack: Path) -> None:
    for name in ("detector.onnx", "regressor.onnx", "model.safetensors"):
        assert (pack / name).read_bytes() == (synthetic_pack / name).read_bytes()


def kept(tmp_path: Path) -> set[str]:
    """What a failed download left: no pack, only what it may go on with."""
    folder = tmp_path / "packs" / f".{NAME}.download"
    assert [path.name for path in (tmp_path / "packs").iterdir()] == [folder.name]
    return {path.name for path in folder.iterdir()}


def test_address_of_the_published_files() -> None:
    assert UPSTREAM_URL == (
        "https://raw.githubusercontent.com/cleardusk/3DDFA_V2/"
        "1b6c67601abffc1e9f248b291708aef0e43b55ae/"
    )


def test_download(download: Download, server: Server, synthetic_pack: Path, tmp_path: Path) -> None:
    reports: list[tuple[str, int, int | None]] = []
    pack = download(progress=lambda *report: reports.append(report))
    assert pack == tmp_path / "packs" / NAME
    assert [path.name for path in (tmp_path / "packs").iterdir()] == [NAME]
    same_as_imported(pack, synthetic_pack)
    assert "not the published ones" not in Pack.load(pack).source
    assert "weights/mb1_120x120.pth" not in {path for path, _ in server.requests}
    of_basis = [report for report in reports if report[0] == "bfm_noneck_v3.pkl"]
    size = len(server.files[BASIS])
    assert of_basis[0] == ("bfm_noneck_v3.pkl", 0, size)
    assert of_basis[-1] == ("bfm_noneck_v3.pkl", size, size)
    assert [done for _, done, _ in of_basis] == sorted(done for _, done, _ in of_basis)


def test_the_licence_is_shown_and_must_be_accepted(
    download: Download, server: Server, tmp_path: Path
) -> None:
    with pytest.raises(PackError) as caught:
        download(accept_licence=False)
    for part in ("--accept-licence", "MIT", "Basel Face Model", "academic use only"):
        assert part in str(caught.value)
    assert server.requests == []
    assert not (tmp_path / "packs").exists()


def test_only_published_packs(download: Download, server: Server) -> None:
    with pytest.raises(PackError, match="expected one of 3ddfa_v2-mb1, 3ddfa_v2-mb05"):
        download("3ddfa_v3")
    assert server.requests == []


@pytest.mark.parametrize("url", ["file:///etc/", "ftp://127.0.0.1/", "/somewhere", ""])
def test_only_web_addresses(download: Download, url: str) -> None:
    with pytest.raises(PackError, match="is not an https"):
        download(base_url=url)


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_redirects_stay_on_the_web(
    download: Download, server: Server, tmp_path: Path, target: str
) -> None:
    server.redirect = target
    with pytest.raises(PackError, match=r"redirects to|is not allowed"):
        download()
    assert kept(tmp_path) == set()


def test_redirects_stay_on_https() -> None:
    request = urllib.request.Request("https://example.org/a")
    handler = HttpsStaysHttps()
    headers = http.client.HTTPMessage()
    with pytest.raises(PackError, match="which is not https"):
        handler.redirect_request(request, io.BytesIO(), 302, "", headers, "http://example.org/b")
    url = "https://elsewhere.example/b"
    followed = handler.redirect_request(request, io.BytesIO(), 302, "", headers, url)
    assert followed is not None
    assert followed.full_url == url


@pytest.mark.parametrize("ranges", [True, False])
def test_broken_connections_are_resumed_or_restarted(
    download: Download, server: Server, synthetic_pack: Path, ranges: bool
) -> None:
    server.ranges = ranges
    server.breaks = {BASIS: 2, MB05: 1}
    same_as_imported(download(), synthetic_pack)
    assert server.asked(MB05) == ["", "bytes=1000-"]
    assert server.asked(BASIS) == ["", "bytes=1000-", f"bytes={2000 if ranges else 1000}-"]


def test_a_truncated_file_without_a_length_is_restarted(
    download: Download, server: Server, synthetic_pack: Path
) -> None:
    """Nothing but the check of its content shows that it is not whole."""
    server.lengths = False
    server.breaks = {MB05: 1}
    with pytest.raises(PackError, match="is not the published weights/mb05_120x120"):
        download()
    same_as_imported(download(), synthetic_pack)


def test_a_later_call_goes_on(
    download: Download, server: Server, synthetic_pack: Path, tmp_path: Path
) -> None:
    server.breaks = {MB05: 100}
    server.break_after = 0
    with pytest.raises(PackError, match=r"cannot download .*mb05_120x120.*tried 4 times"):
        download()
    assert kept(tmp_path) == {"FaceBoxesProd.pth", "mb05_120x120.pth.part"}
    server.requests.clear()
    server.breaks = {}
    same_as_imported(download(), synthetic_pack)
    assert server.asked("FaceBoxes/weights/FaceBoxesProd.pth") == []
    assert len(server.asked(MB05)) == 1


@pytest.mark.parametrize("rubbish", [b"rubbish", b"x" * 10_000_000])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_wrong_part_is_thrown_away(
    download: Download,
    server: Server,
    synthetic_pack: Path,
    tmp_path: Path,
    rubbish: bytes,
    ranges: bool,
) -> None:
    server.ranges = ranges
    folder = tmp_path / "packs" / f".{NAME}.download"
    folder.mkdir(parents=True)
    (folder / "mb05_120x120.pth.part").write_bytes(rubbish)
    (folder / "FaceBoxesProd.pth").write_bytes(b"altered after it was checked")
    same_as_imported(download(), synthetic_pack)
    assert server.asked(MB05) == [f"bytes={len(rubbish)}-", *([""] if ranges else [])]


def test_a_complete_part_is_used(
    download: Download, server: Server, synthetic_pack: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "packs" / f".{NAME}.download"
    folder.mkdir(parents=True)
    (folder / "mb05_120x120.pth.part").write_bytes(server.files[MB05])
    same_as_imported(download(), synthetic_pack)
    assert len(server.asked(MB05)) == 1


def test_altered_files_are_refused(download: Download, server: Server, tmp_path: Path) -> None:
    data = bytearray(server.files[BASIS])
    data[len(data) // 2] ^= 1
    server.files[BASIS] = bytes(data)
    with pytest.raises(PackError) as caught:
        download()
    for part in ("is not the published configs/bfm_noneck_v3.pkl", "expected git blob", "found"):
        assert part in str(caught.value)
    assert len(server.asked(BASIS)) == 1
    assert kept(tmp_path) == {"FaceBoxesProd.pth", "mb05_120x120.pth"}


def test_missing_files_are_named_at_once(
    download: Download, server: Server, tmp_path: Path
) -> None:
    del server.files[MB05]
    with pytest.raises(PackError, match=r"weights/mb05_120x120\.pth: the server answers 404"):
        download()
    assert len(server.asked(MB05)) == 1
    assert kept(tmp_path) == {"FaceBoxesProd.pth"}


def test_a_busy_server_is_asked_again(
    download: Download, server: Server, synthetic_pack: Path
) -> None:
    server.errors = {MB05: [503, 429]}
    same_as_imported(download(), synthetic_pack)
    server.errors = {MB05: [500] * 10}
    with pytest.raises(PackError, match="answers 500"):
        download(overwrite=True)


def test_absurd_sizes_are_refused(
    download: Download, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("threedfa.upstream.sources.MAX_BYTES", 5000)
    for lengths in (True, False):
        server.lengths = lengths
        with pytest.raises(PackError, match="expected at most 5000 bytes"):
            download()


def test_no_server(download: Download, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        with pytest.raises(PackError, match="tried 4 times"):
            download(base_url=url)
    assert kept(tmp_path) == set()


def test_a_silent_server(download: Download) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(PackError, match="timed out"):
            download(base_url=url, timeout=0.05)


def test_an_existing_pack_is_not_fetched_again(
    download: Download, server: Server, synthetic_pack: Path
) -> None:
    pack = download()
    server.requests.clear()
    with pytest.raises(PackError, match="exists"):
        download()
    assert server.requests == []
    same_as_imported(download(overwrite=True), synthetic_pack)
    assert Pack.load(pack).name == NAME


def test_destination_that_cannot_be_written(download: Download, tmp_path: Path) -> None:
    (tmp_path / "packs").touch()
    with pytest.raises(PackError, match="cannot write"):
        download()
