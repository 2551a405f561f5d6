"""Errors as answers: ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ..errors import ExportError, ImageError, PackError

RETRY_SECONDS = 1
"""After which a client that was sent away may come back."""


class Problem(Exception):  # noqa: N818, an answer
    """An answer that says what was expected.

    Args:
        status: of HTTP, 4xx or 5xx.
        detail: for people.
        headers: more of them.
    """

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers

    @classmethod
    def retry(cls, status: int, detail: str) -> Problem:
        """One that goes away by itself."""
        detail = f"{detail}; try again in {RETRY_SECONDS} s"
        return cls(status, detail, headers={"Retry-After": str(RETRY_SECONDS)})

    def response(self, **members: Any) -> Response:
        """The answer, with further members of the problem."""
        content = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            **members,
        }
        return Response(
            json.dumps(content),
            self.status,
            headers=self.headers,
            media_type="application/problem+json",
        )


def handle_problems(app: FastAPI) -> None:
    """Make problems of all errors that requests can cause; others are the gate's."""

    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        return error.response()

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return Problem(error.status_code, str(error.detail), headers=error.headers).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        errors = [
            {"where": ".".join(map(str, each["loc"])), "what": each["msg"]}
            for each in error.errors()
        ]
        detail = "; ".join(f"{each['where']}: {each['what']}" for each in errors)
        return Problem(422, detail).response(errors=errors)

    # What the library says of pictures and options that it cannot use.
    for kind in (ImageError, PackError, ExportError):

        @app.exception_handler(kind)
        async def unusable(request: Request, error: Exception) -> Response:
            return Problem(422, str(error)).response()
