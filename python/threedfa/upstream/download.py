"""Getting the files of an upstream pack from the place that publishes them."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..errors import PackError
from ..pack import user_packs_folder
from . import convert, sources

UPSTREAM_URL = f"https://raw.githubusercontent.com/cleardusk/3DDFA_V2/{sources.UPSTREAM_COMMIT}/"

Progress = Callable[[str, int, "int | None"], None]

_ATTEMPTS = 4
_BLOCK = 1 << 16
_NETWORK_ERRORS = (OSError, http.client.HTTPException)  # OSError: sockets, TLS, URLError


def download_upstream(
    name: str,
    *,
    accept_licence: bool,
    destination: str | os.PathLike[str] | None = None,
    base_url: str = UPSTREAM_URL,
    progress: Progress | None = None,
    overwrite: bool = False,
    files: Sequence[sources.UpstreamFile] = sources.UPSTREAM_FILES,
    timeout: float = 30.0,
    retry_wait: float = 1.0,
) -> Path:
    """Download the files of an upstream pack and make the pack.

    Each file is compared with its git blob id before anything reads it. What was fetched stays in
    ``.NAME.download`` beside the pack until the pack is made, so that a broken download goes on
    where it stopped.

    Args:
        name: ``"3ddfa_v2-mb1"`` or ``"3ddfa_v2-mb05"``.
        accept_licence: whether the user accepts the licence
            (:data:`~threedfa.upstream.sources.UPSTREAM_LICENCE`).
        destination: folder of packs to put it in; by default ``$THREEDFA_HOME/packs`` or else the
            user's cache folder.
        base_url: where the paths of ``files`` start; a mirror may also be plain ``http``.
        progress: called with a file's name, the bytes present and the bytes expected (None where
            the server does not say).
        overwrite: replace a pack of the same name.
        files: the published files and their git blob ids.
        timeout: seconds without an answer after which a connection is given up.
        retry_wait: seconds before the second attempt at a file; twice that before the third...

    Returns:
        The folder of the new pack.

    Raises:
        PackError: if the licence is not accepted, a file cannot be fetched or differs from the
            published one, or the pack cannot be written.
    """
    if name not in sources.PACK_REGRESSORS:
        raise PackError(
            f"{name!r} cannot be downloaded; expected one of {', '.join(sources.PACK_REGRESSORS)}"
        )
    if not accept_licence:
        raise PackError(
            f"the licence of {name} must be accepted before it is downloaded "
            f"(--accept-licence, or accept_licence=True):\n{sources.UPSTREAM_LICENCE}"
        )
    packs = user_packs_folder() if destination is None else Path(destination)
    target = convert.pack_target(name, packs, overwrite=overwrite)
    regressor = sources.PACK_REGRESSORS[name]
    fetcher = _Fetcher(_checked_url(base_url), progress, timeout, retry_wait)
    folder = packs / f".{name}.download"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = {}
        for file in sources.needed_files(regressor, files):
            found[file.name] = folder / file.name
            fetcher.fetch(file, found[file.name])
        pack = convert.write_pack(found, regressor, target, overwrite=overwrite)
        shutil.rmtree(folder, ignore_errors=True)
        return pack
    except OSError as error:
        raise PackError(
            f"cannot write to {folder}: {error.strerror or error}; choose a writable folder with "
            "free space"
        ) from error


def _checked_url(url: str) -> str:
    if urllib.parse.urlsplit(url).scheme not in ("https", "http"):
        raise PackError(f"{url!r} is not an https (or http) address")
    return url if url.endswith("/") else url + "/"


class HttpsStaysHttps(urllib.request.HTTPRedirectHandler):
    """Redirects may not leave https for something else."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        allowed = ("https",) if req.full_url.startswith("https:") else ("https", "http")
        if urllib.parse.urlsplit(newurl).scheme not in allowed:
            raise PackError(f"{req.full_url} redirects to {newurl}, which is not {allowed[0]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _TransientError(Exception):
    """An attempt failed in a way that another one may cure."""


@dataclass(frozen=True)
class _Fetcher:
    base_url: str
    progress: Progress | None
    timeout: float
    retry_wait: float

    def fetch(self, file: sources.UpstreamFile, path: Path) -> None:
        """Put the file at ``path``, whole and checked."""
        if path.is_file() and sources.git_blob_id(path) == file.git_blob:
            return
        part = path.with_name(path.name + ".part")
        url = self.base_url + urllib.parse.quote(file.path)
        problem = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(self.retry_wait * 2 ** (attempt - 1))
            try:
                resumed = self._transfer(file.name, url, part)
            except _TransientError as error:
                problem = str(error)
                continue
            found = sources.git_blob_id(part)
            if found == file.git_blob:
                part.replace(path)
                return
            part.unlink()
            problem = f"expected git blob {file.git_blob}, found {found}"
            if not resumed:
                raise PackError(
                    f"{url} is not the published {file.path}: {problem}; nothing of it was used"
                )
        raise PackError(
            f"cannot download {url}: {problem}; tried {_ATTEMPTS} times. Try again later: what was "
            "fetched is kept"
        )

    def _transfer(self, name: str, url: str, part: Path) -> bool:
        """Fetch what ``part`` lacks; whether it already held something that was kept."""
        present = part.stat().st_size if part.exists() else 0
        request = urllib.request.Request(
            url, headers={"Accept-Encoding": "identity", "User-Agent": "threedfa"}
        )
        if present:
            request.add_header("Range", f"bytes={present}-")
        opener = urllib.request.build_opener(HttpsStaysHttps)
        try:
            response = opener.open(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            error.close()
            if present and error.code == 416:  # nothing after what is there
                return True
            problem = f"the server answers {error.code} {error.reason}"
            if error.code == 429 or error.code >= 500:
                raise _TransientError(problem) from error
            raise PackError(f"cannot download {url}: {problem}") from error
        except _NETWORK_ERRORS as error:
            raise _TransientError(_reason(error)) from error
        with contextlib.closing(response):
            resumed = present > 0 and _continues(response, present)
            start = present if resumed else 0
            length = response.headers.get("Content-Length", "")
            total = start + int(length) if re.fullmatch("[0-9]{1,15}", length) else None
            if total is not None and total > sources.MAX_BYTES:
                raise PackError(_too_large(url, total))
            with part.open("ab" if resumed else "wb") as stream:
                self._copy(name, url, response, stream, start, total)
        return resumed

    def _copy(
        self, name: str, url: str, response: Any, stream: IO[bytes], start: int, total: int | None
    ) -> None:
        done = start
        while True:
            if self.progress is not None:
                self.progress(name, done, total)
            try:
                block = response.read(_BLOCK)
            except _NETWORK_ERRORS as error:
                problem = f"the connection broke after {done} bytes: {_reason(error)}"
                raise _TransientError(problem) from error
            if not block:
                break
            done += len(block)
            if done > sources.MAX_BYTES:
                raise PackError(_too_large(url, done))
            stream.write(block)
        if total is not None and done != total:
            raise _TransientError(f"the connection ended after {done} of {total} bytes")


def _continues(response: Any, start: int) -> bool:
    content_range: str = response.headers.get("Content-Range", "")
    return bool(response.status == 206) and content_range.startswith(f"bytes {start}-")


def _too_large(url: str, size: int) -> str:
    return f"{url}: expected at most {sources.MAX_BYTES} bytes, found {size} or more"


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", "") or error or type(error).__name__)
