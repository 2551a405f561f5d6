"""The exceptions of threedfa.

::

    ThreedfaError            everything below
    ├── ImageError           an image that cannot be read or used (also a ValueError)
    │   └── ImageSizeError   one with more pixels than allowed
    ├── PackError            a pack that is missing, incomplete, altered or malformed
    ├── BackendError         a network backend or execution provider that is not available
    ├── ExportError          a result that cannot be written
    └── ServerError          a server that refuses or does not answer

Wrong arguments (dtype, shape, range) are plain ``TypeError`` and ``ValueError``.
"""

from __future__ import annotations


class ThreedfaError(Exception):
    """Base class of the errors of this package."""


class ImageError(ThreedfaError, ValueError):
    """An image that cannot be read or used."""


class ImageSizeError(ImageError):
    """An image with more pixels than allowed."""


class PackError(ThreedfaError):
    """A pack that is missing, incomplete, altered or malformed."""


class BackendError(ThreedfaError):
    """A network backend or an execution provider that is not available."""


class ExportError(ThreedfaError):
    """A result that cannot be written."""


class ServerError(ThreedfaError):
    """A server that refuses or does not answer.

    Attributes:
        status: of HTTP; None where there is no answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
