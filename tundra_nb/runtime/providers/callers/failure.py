"""Errors in the words of the caller's form: status and body, so that each SDK raises its right class."""

from __future__ import annotations

from typing import Any

from tundra_nb import errors
from tundra_nb.errors.spelling import as_typed

from .form import encode

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_exceeded",
}
_OURS = frozenset({401, 403})
"""An upstream's word about *our* key is no word about the caller's token."""


def status_of(error: errors.TundraError) -> int:
    """The status that tells the caller's SDK what kind of failure it is.

    One failed candidate, or all of one kind, have their own status.
    """
    if isinstance(error, errors.AllProvidersExhausted):
        statuses = {status_of(cause) for cause in causes_of(error)}
        return statuses.pop() if len(statuses) == 1 else error.http_status
    if isinstance(error, errors.Unsupported):
        return 404 if error.kind == "model" else 400
    if isinstance(error, errors.ApiError):
        known = 400 <= error.status <= 599 and error.status not in _OURS
        return error.status if known else error.http_status
    return error.http_status


def causes_of(error: errors.TundraError) -> list[errors.TundraError]:
    """What every candidate failed with; the error itself where there is only one."""
    if isinstance(error, errors.AllProvidersExhausted) and error.causes:
        return [errors.from_wire(cause) for cause in error.causes]
    return [error]


def code_of(error: errors.TundraError) -> str:
    """The code that users look up: that of the cause where all candidates failed with one."""
    codes = {cause.code for cause in causes_of(error)}
    return codes.pop() if len(codes) == 1 else error.code


def fault(vendor: str, error: errors.TundraError, *, operation_id: str) -> dict[str, Any]:
    """The error as a JSON value in the vendor's form."""
    status, code = status_of(error), code_of(error)
    if vendor == "anthropic":
        kind = _ANTHROPIC_TYPES.get(status) or ("invalid_request_error" if status < 500 else "api_error")
        details = {"error_code": code, "hint": as_typed(error.hint), "operation_id": operation_id}
        return {
            "type": "error",
            "error": {"type": kind, "message": error.message, "details": details},
            "request_id": operation_id,
        }
    kind = _OPENAI_TYPES.get(status) or ("invalid_request_error" if status < 500 else "server_error")
    fields = {getattr(cause, "field", None) for cause in causes_of(error)}
    param = fields.pop() if len(fields) == 1 else None
    told = {"message": error.message, "type": kind, "param": param, "code": code}
    return {"error": {**told, "hint": as_typed(error.hint), "operation_id": operation_id}}


def error_body(vendor: str, error: errors.TundraError, *, operation_id: str) -> tuple[int, bytes]:
    """Status and body of an error answer."""
    return status_of(error), encode(fault(vendor, error, operation_id=operation_id))
