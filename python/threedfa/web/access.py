"""Who may use the API."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from .problems import Problem
from .service import ServiceState, lease_of

_Bearer = Annotated[
    HTTPAuthorizationCredentials | None,
    Depends(HTTPBearer(auto_error=False, description="An API key, where the server asks for one.")),
]


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


async def count_client(request: Request, bearer: _Bearer, service: ServiceState) -> None:
    """Refuse a client that has too many requests already; known by its key or its address.

    Raises:
        Problem: 429.
    """
    if service.settings.api_keys is not None and bearer is not None:
        client = hashlib.sha256(bearer.credentials.encode()).hexdigest()
    else:
        client = request.client.host if request.client else ""
    lease_of(request).name_client(client)
