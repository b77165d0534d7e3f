"""What a failed call of another program means here: by its HTTP status, by the name of its exception, by its words."""

from __future__ import annotations

import functools
import re

from .fields import UNCLASSIFIED, Classifier

_BY_NAME = (
    # part of an exception's name or of `error.type`, lower case · code · reason
    ("ratelimit", "RateLimited", "rate_limited"),
    ("rate_limit", "RateLimited", "rate_limited"),
    ("overloaded", "ApiError", "api_error"),
    ("connecttimeout", "Timeout", "timeout_connect"),
    ("timeout", "Timeout", "timeout_total"),
    ("deadline", "Timeout", "timeout_total"),
    ("authentication", "ApiError", "key_rejected"),
    ("permissiondenied", "ApiError", "key_rejected"),
    ("unauthorized", "ApiError", "key_rejected"),
    ("quota", "ApiError", "quota_spent"),
    ("budget", "ApiError", "quota_spent"),
    ("contentpolicy", "ApiError", "moderated"),
    ("content_filter", "ApiError", "moderated"),
    ("contextwindow", "Unsupported", "unsupported"),
    ("context_length", "Unsupported", "unsupported"),
    ("notfound", "Unsupported", "unsupported"),
    ("not_found", "Unsupported", "unsupported"),
    ("badrequest", "ApiError", "request_rejected"),
    ("invalid_request", "ApiError", "request_rejected"),
    ("unprocessable", "ApiError", "request_rejected"),
    ("apiconnection", "HttpError", "connect"),
    ("connecterror", "HttpError", "connect"),
    ("connectionerror", "HttpError", "connect"),
    ("serviceunavailable", "ApiError", "api_error"),
    ("internalserver", "ApiError", "api_error"),
    ("apierror", "ApiError", "api_error"),
    ("api_error", "ApiError", "api_error"),
    ("jsondecode", "ParseError", "parse_error"),
    ("parseerror", "ParseError", "parse_error"),
    ("cancel", "Cancelled", "cancelled"),
)

_BY_WORDS = (
    # how messages of the original begin, lower case
    ("request timed out", "Timeout", "timeout_total"),
    ("call timed out", "Timeout", "timeout_total"),
    ("rate limited", "RateLimited", "rate_limited"),
    ("http error", "HttpError", "connect"),
    ("parse error", "ParseError", "parse_error"),
    ("unsupported:", "Unsupported", "unsupported"),
)
_STATUS = re.compile(r"\b(?:error|status|code|http)(?: code)?[ :=(]+([45]\d\d)\b", re.IGNORECASE)


def failure(status: int | None, name: str, message: str) -> tuple[str, str | None]:
    """Code and reason of a failure.

    Args:
        status: of HTTP; None when there is none.
        name: of the exception, or `error.type`.
        message: its words.
    """
    if status is None and re.fullmatch(r"[1-5]\d\d", name):
        status = int(name)
    if status is None and not name and (told := _STATUS.search(message[:400])):
        status = int(told[1])
    plain = name.rpartition(".")[2].lower()
    found = next(((code, reason) for part, code, reason in _BY_NAME if plain and part in plain), None)
    if found is not None and (status is None or status < 400 or found[1] not in ("api_error", "timeout_total")):
        return found
    if status is not None and status >= 400:
        return _of_status(status)
    if found is not None:
        return found
    lowered = message[:400].lower()
    for words, code, reason in _BY_WORDS:
        if words in lowered:
            return code, reason
    return _classifier().code(f"{name} {message}".strip()) or UNCLASSIFIED, None


def facts(code: str) -> tuple[str, bool]:
    """Severity of an error of ours and whether it is worth trying again."""
    return _classifier().facts(code)


def _of_status(status: int) -> tuple[str, str]:
    match status:
        case 429:
            return "RateLimited", "rate_limited"
        case 401 | 403:
            return "ApiError", "key_rejected"
        case 402:
            return "ApiError", "quota_spent"
        case 404:
            return "Unsupported", "unsupported"
        case 408 | 504:
            return "ApiError", "api_error"
        case 400 | 409 | 413 | 422:
            return "ApiError", "request_rejected"
        case _:
            return "ApiError", "api_error"


@functools.cache
def _classifier() -> Classifier:
    return Classifier()
