"""Pictures out of requests: multipart forms, or base64 in JSON. Nothing touches the disk."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from ..errors import ImageError, ImageSizeError
from ..image import encoded_size, load_image
from .capacity import Lease
from .problems import Problem
from .settings import BYTES_PER_PIXEL, Limits

MULTIPART: Final = "multipart/form-data"
JSON: Final = "application/json"
URLENCODED: Final = "application/x-www-form-urlencoded"

_FIELDS: Final = 16  # of a form that are not files
_JSON_PARTS: Final = 1000  # arrays, objects and their members: parsed, each takes many bytes
# What base64, also as a data: URL, has to escape in a form; "+" there is a space.
_ESCAPES: Final = {f"%{ord(char):02X}".encode(): char.encode() for char in "+/=:;, \r\n"}


@dataclass(frozen=True)
class Upload:
    """An encoded picture and the file name that the client gave, which is for answers only."""

    name: str | None
    content: bytes


def media_type(request: Request) -> str:
    """What the body claims to be, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_form(request: Request, limits: Limits) -> FormData:
    """A multipart form; its files stay in memory.

    Raises:
        Problem: if it is malformed or cut off, or has too many parts.
    """
    parser = _Parser(
        request.headers,
        request.stream(),
        max_files=limits.files,
        max_fields=_FIELDS,
        max_part_size=limits.upload_bytes,
    )
    parser.spool_max_size = limits.upload_bytes + 1
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Problem(413 if "Too many" in error.message else 400, error.message) from error
    except UnicodeError as error:
        raise Problem(400, "expected names in UTF-8, got another charset") from error
    if not parser.complete:
        raise Problem(400, "expected a whole multipart body, got one that is cut off")
    return form


async def files_in(form: FormData, field: str) -> list[Upload]:
    """The pictures of a form's field.

    Raises:
        Problem: if there are none, one is empty or no file, or a file name is none.
    """
    uploads = []
    for value in form.getlist(field):
        if not isinstance(value, UploadFile):
            raise Problem(400, f"{field}: expected a file with a file name, got text")
        # The form says how its names are encoded, and so what they may turn into.
        name = (value.filename or "").encode("utf-8", "replace").decode()
        if "\0" in name:
            raise Problem(400, f"{field}: expected a file name without null characters")
        uploads.append(Upload(name or None, await value.read()))
    if not uploads:
        found = ", ".join(sorted(form)) or "none"
        raise Problem(400, f"expected a picture in the field {field!r}, got the fields: {found}")
    return uploads


def text_in(form: FormData, field: str) -> str:
    """The text of a form's field.

    Raises:
        Problem: if there is none.
    """
    text = form.get(field)
    if not isinstance(text, str):
        raise Problem(400, f"expected the form field {field} with a picture as base64")
    return text


def urlencoded_field(body: bytes, field: str) -> str:
    """Base64 in a field of an URL-encoded form. Parsers for any such form take a hundred bytes for
    each one that is escaped.

    Raises:
        Problem: if the form does not have the field, or has too many others.
    """
    if body.count(b"&") >= _FIELDS:
        raise Problem(413, f"expected at most {_FIELDS} fields, got {body.count(b'&') + 1}")
    fields = dict(part.partition(b"=")[::2] for part in body.split(b"&"))
    value = fields.get(field.encode())
    if value is None:
        raise Problem(400, f"expected the form field {field} with a picture as base64")
    value = value.replace(b"+", b" ")
    for escape, char in _ESCAPES.items():
        value = value.replace(escape, char).replace(escape.lower(), char)
    return value.decode("latin-1")


def images_in(body: bytes, limits: Limits) -> list[Upload]:
    """The pictures of ``{"images": ["base64", ...]}``.

    Raises:
        Problem: if the body is anything else, or has too many pictures.
    """
    parts = sum(map(body.count, (b"[", b"{", b",")))
    if parts > _JSON_PARTS:
        raise Problem(
            413,
            f"expected JSON of at most {_JSON_PARTS} arrays, objects and members, got {parts}",
        )
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"expected JSON: {error}") from error
    images = document.get("images") if isinstance(document, dict) else None
    if not isinstance(images, list) or not images:
        raise Problem(400, 'expected {"images": ["base64 of a picture", ...]}')
    if len(images) > limits.files:
        raise Problem(413, f"images: expected at most {limits.files}, got {len(images)}")
    return [Upload(None, decode_base64(image)) for image in images]


def decode_base64(text: object) -> bytes:
    """The bytes of a base64 text, which may be a ``data:`` URL.

    Raises:
        Problem: if it is none.
    """
    if not isinstance(text, str):
        raise Problem(400, f"expected a picture as base64 text, got {type(text).__name__}")
    encoded = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Problem(400, f"expected a picture as base64: {error}") from error


def decode(upload: Upload, number: int, limits: Limits, lease: Lease) -> NDArray[np.uint8]:
    """The picture in an upload, the number so and so of its request; CPU work, for threads.

    Raises:
        Problem: 413 if it is too large, which its header says, 422 if it is none, 503 if there is
            no memory for it.
    """
    try:
        height, width = encoded_size(upload.content)
        pixels = height * width
        if pixels > limits.pixels:
            raise Problem(
                413,
                f"picture {number}: expected at most {limits.pixels} pixels in a picture, "
                f"got {width} x {height}",
            )
        lease.take_memory(BYTES_PER_PIXEL * pixels)
        return load_image(upload.content, max_pixels=limits.pixels)
    except ImageSizeError as error:  # so large that its header alone is refused
        raise Problem(
            413, f"picture {number}: expected at most {limits.pixels} pixels in a picture, got more"
        ) from error
    except ImageError as error:
        raise Problem(422, f"picture {number}: {error}") from error


class _Parser(MultiPartParser):
    """Starlette's, which knows whether it has seen the end."""

    def __init__(
        self,
        headers: Headers,
        stream: AsyncGenerator[bytes, None],
        *,
        max_files: int,
        max_fields: int,
        max_part_size: int,
    ) -> None:
        super().__init__(
            headers,
            stream,
            max_files=max_files,
            max_fields=max_fields,
            max_part_size=max_part_size,
        )
        self.complete = False

    def on_end(self) -> None:
        """Called at the last boundary."""
        self.complete = True
