"""Who may use the API, and how much of it at the same time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from .problems import Problem
from .service import ServiceState

_Bearer = Annotated[
    HTTPAuthorizationCredentials | None,
    Depends(HTTPBearer(auto_error=False, description="An API key, where the server asks for one.")),
]


class Clients:
    """How many requests each client has. Used from the event loop alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._requests: Counter[str] = Counter()

    def enter(self, client: str) -> None:
        """Begin a request.

        Raises:
            Problem: 429 if the client has too many already.
        """
        if self._requests[client] >= self._most:
            raise Problem.retry(
                429, f"expected at most {self._most} requests of one client at the same time"
            )
        self._requests[client] += 1

    def leave(self, client: str) -> None:
        """End it."""
        self._requests[client] -= 1
        if not self._requests[client]:
            del self._requests[client]


async def check_key(bearer: _Bearer, service: ServiceState) -> None:
    """Refuse whoever has no key.

    Raises:
        Problem: 401.
    """
    keys = service.settings.api_keys
    if keys is not None and (bearer is None or bearer.credentials not in keys):
        raise Problem(
            401,
            "expected an API key in the header 'Authorization: Bearer KEY'",
            headers={"WWW-Authenticate": "Bearer"},
        )


async def count_client(
    request: Request, bearer: _Bearer, service: ServiceState
) -> AsyncIterator[None]:
    """Refuse a client that has too many requests already; known by its key or its address.

    Raises:
        Problem: 429.
    """
    if service.settings.api_keys is not None and bearer is not None:
        client = hashlib.sha256(bearer.credentials.encode()).hexdigest()
    else:
        client = request.client.host if request.client else ""
    clients: Clients = request.app.state.clients
    clients.enter(client)
    try:
        yield
    finally:
        clients.leave(client)
