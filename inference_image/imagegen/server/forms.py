"""The form of errors: OpenAI's."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

__all__ = ["error_body"]


def error_body(status: int, message: str, code: str, *, param: str | None = None) -> dict[str, Any]:
    """Build the body of an answer that tells of an error.

    Parameters
    ----------
    status
        HTTP status code of the answer.
    message
        What is wrong and what is allowed.
    code
        Machine-readable reason.
    param
        The field or header that is to blame, if one is.
    """
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        kind = "rate_limit_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
