"""Who may use the API, and how much of it at the same time."""

from __future__ import annotations

import hashlib

from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection

from .problems import Problem
from .service import lease_of, service_of


class Admission(HTTPBearer):
    """A dependency of routes: lets in those who have a key, where the server asks for one.

    Args:
        counted: only those who do not have too many requests already.
    """

    def __init__(self, *, counted: bool) -> None:
        super().__init__(
            auto_error=False,
            scheme_name="HTTPBearer",
            description="An API key, where the server asks for one.",
        )
        self._counted = counted

    async def __call__(self, request: HTTPConnection) -> None:
        """Let a request in.

        Raises:
            Problem: 401, 429.
        """
        client = request.client.host if request.client else ""
        keys = service_of(request).settings.api_keys
        if keys is not None:
            bearer = await super().__call__(request)
            if bearer is None or bearer.credentials not in keys:
                raise Problem(
                    401,
                    "expected an API key in the header 'Authorization: Bearer KEY'",
                    headers={"WWW-Authenticate": "Bearer"},
                )
            client = hashlib.sha256(bearer.credentials.encode()).hexdigest()
        if self._counted:
            lease_of(request).name_client(client)
