"""Turns an error answer into one class of the error tree: the outcome table as code.

A body is first read into an `ErrorBody` (whatever its form: OpenAI, Anthropic, OpenRouter, llama.cpp, vLLM, Ollama,
FastAPI, Google's list), then `classify` decides by its stable words, then by its prose where a vendor has no word for
the case, then by the status. The same two steps serve error statuses, error bodies under status 200 and errors inside a
stream.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from tundra_nb.errors import (
    ApiError,
    Forbidden,
    HttpError,
    KeyRejected,
    Moderated,
    ParseError,
    ProviderError,
    QuotaSpent,
    RateLimited,
    RequestRejected,
    Unsupported,
)
from tundra_nb.surrogates import whole

from . import headers
from .contract import Target
from .lenient import NotJsonError, amount, count, dumps, loads, word

MAX_DETAIL = 300
"""Characters of a provider's own words that an error carries."""


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """What an error body says, whatever its form."""

    message: str = ""
    words: frozenset[str] = frozenset()
    """Every stable word in it, in lower case: type, code, error_type, error_code."""
    field: str | None = None
    """The request's field that it is about."""
    status: int | None = None
    """The status that the body itself names."""
    retry_after: float | None = None


class Phrase(msgspec.Struct, frozen=True):
    """One line of `phrases.tsv`: how one vendor words one class of fault."""

    kind: str
    statuses: frozenset[int]
    """Empty: any."""
    word: str
    """A stable word; empty when `pattern` decides."""
    pattern: re.Pattern[str] | None
    seen: str
    """Whose words these are."""


def read_phrases(table: str) -> tuple[Phrase, ...]:
    """Read the table of phrases.

    Raises:
        ValueError: a line is not of its form.
    """
    phrases = []
    for line in table.splitlines():
        if not line or line.startswith("#"):
            continue
        kind, statuses, form, told, seen = line.split("\t")
        phrases.append(
            Phrase(
                kind=kind,
                statuses=frozenset() if statuses == "*" else frozenset(map(int, statuses.split(","))),
                word=told if form == "word" else "",
                pattern=re.compile(told, re.IGNORECASE | re.DOTALL) if form == "text" else None,
                seen=seen,
            )
        )
    return tuple(phrases)


@functools.cache
def phrases() -> tuple[Phrase, ...]:
    """The table, read on first use: about 10 ms."""
    return read_phrases(Path(__file__).with_name("phrases.tsv").read_text("utf-8"))


CAPABILITIES = frozenset({"context", "model", "tools", "vision", "json", "stream"})
"""Kinds of fault that are `Unsupported`, by its own words."""

_STATUS_OF_WORD: dict[str, int] = {
    "invalid_request_error": 400,
    "invalid_request": 400,
    "invalid_prompt": 400,
    "badrequesterror": 400,
    "exceed_context_size_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "payment_required": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "notfounderror": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "api_error": 500,
    "server_error": 500,
    "internalservererror": 500,
    "provider_unavailable": 502,
    "unavailable_error": 503,
    "provider_overloaded": 503,
    "timeout_error": 504,
    "timeout": 504,
    "overloaded_error": 529,
}
"""The status an error would have had, had it not come inside a 200."""
_STATUS_OF_KIND = {"key": 401, "quota": 402, "forbidden": 403, "limit": 429, "failed": 500}
_ABOUT_THE_REQUEST = frozenset({400, 406, 409, 410, 411, 412, 413, 414, 415, 416, 417, 422, 431})
"""Any other error status (425, 444, 498, 499, 520 …) tells of the server."""
_FIELD_PROSE = re.compile(r"^([a-z_]+(?:[.\[][\w.\[\]]*)?): ")
_QUOTED_FIELD = re.compile(r"(?:parameter|argument|field|name)s?(?: supplied)?:? [\"'`]?([A-Za-z_][\w.\[\]]{0,63})")
_ASKS = (
    r"(?:try again|retry(?: your request)?|wait|available again|resets?)"
    r"(?:[ -](?:at least|about|approximately|in|after|for)){0,3}:? "
)
_AGAIN = re.compile(_ASKS + r"((?:\d+(?:\.\d+)?(?:ns|us|µs|ms|[smhd]))+)(?![a-z])", re.IGNORECASE)
_AGAIN_IN_WORDS = re.compile(
    _ASKS + r"(\d+(?:\.\d+)?) ?(milliseconds?|msecs?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)\b",
    re.IGNORECASE,
)
_AGAIN_BARE = re.compile(r"retry[-_ ]after[\"']?[:=] ?(\d{1,6}(?:\.\d+)?)(?![\w.])", re.IGNORECASE)
_UNITS = (("mil", 0.001), ("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86400.0))
_MESSAGES = (
    "message", "Message", "msg", "error_msg", "errorMessage", "error_message", "status_msg", "faultstring", "errmsg"
)  # fmt: skip
_WORDS = ("type", "Type", "Code", "status", "reason", "error_code", "error_type", "errorCode")
_FINE = ("", "2", "ok", "success")
_STABLE = re.compile(r"[A-Za-z][\w.]{2,63}", re.ASCII)
_ERROR_NAME = re.compile(r"error(?!_?(?:code|count|type)$)|exception|(?<!de)fault|failure", re.IGNORECASE)
_NOTHING = ("[]", "null", '""')
MAX_EVENT_LINES = 64 * 1024
"""How far into an error's body an event is looked for."""
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])|\x9b[0-?]*[ -/]*[@-~]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a provider says is shown in a terminal too: it must not steer it, nor turn round what stands beside it."""
_MASKED_KEY = re.compile(r"\b(?:sk|pk|rk|gsk|xai|key|AIza)[-_][\w*.…-]{8,}|\S*\*{3,}\S*")


def read(value: Any, now: float = 0.0) -> ErrorBody | None:
    """The fault in a decoded JSON body; None when it holds no error.

    Args:
        value: the body.
        now: seconds since the epoch, for hints that name a point of time.
    """
    if isinstance(value, list) and len(value) == 1:  # Google's OpenAI form
        value = value[0]
    if isinstance(value, str) and value.strip():
        return _read_dict({"message": value}, now)
    if not isinstance(value, dict):
        return None
    error = value.get("error")
    if isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, dict):
        if _says_something(error) or not _is_answer(value):
            return _read_dict(error, now) if error else None
    elif isinstance(error, str) and error.strip():
        return _read_text(error, value, now)
    elif isinstance(error, int) and error and error is not True:
        return _read_dict({"code": error, **value}, now)
    status = value.get("base_resp")
    if isinstance(status, dict) and (code := count(status.get("status_code"))):  # MiniMax
        return ErrorBody(message=word(status.get("status_msg")), words=frozenset((f"base_resp:{code}",)))
    if value.get("object") == "error":  # vLLM before 0.10
        return _read_dict(value, now)
    detail = value.get("detail")
    if detail and not _is_answer(value):  # FastAPI
        return _read_detail(detail)
    several = value.get("errors")
    if isinstance(several, list) and several and not _is_answer(value):  # Cloudflare
        first = several[0]
        return _read_dict(first, now) if isinstance(first, dict) else ErrorBody(message=word(first))
    if not _is_answer(value):
        return _by_name(value, now)
    return None


def _read_text(error: str, value: dict[str, Any], now: float) -> ErrorBody:
    """An error that is text: prose, a stable word, or another's error as JSON."""
    if error.lstrip().startswith("{"):
        try:
            inner = loads(error.encode(errors="replace"))
        except NotJsonError:
            inner = None
        if isinstance(inner, dict) and (fault := read(inner, now) or bare(inner)) is not None:
            return fault
    word_of_it = {"error_type": error} if _STABLE.fullmatch(error) else {}
    return _read_dict({**word_of_it, **value, "message": error}, now)


def _by_name(value: dict[str, Any], now: float) -> ErrorBody | None:
    """The fault under a name that says that it is one: `Error`, `fault`, `exception`, `throttlingException`."""
    for name, told in value.items():
        if not _ERROR_NAME.search(name) or not told or (isinstance(told, int | float) and not isinstance(told, bool)):
            continue
        if isinstance(told, dict):
            fault = _read_dict(told, now)
            return msgspec.structs.replace(fault, words=fault.words | {name.lower()})
        if isinstance(told, str):
            return _read_dict({**value, "message": told}, now)
        return bare(value) or _read_dict(value, now)
    for told in value.values():  # in an envelope: `{"data": {"error": …}}`
        if isinstance(told, dict) and isinstance(error := told.get("error"), dict | str) and error:
            return read(told, now)
    return None


def bare(value: dict[str, Any]) -> ErrorBody | None:
    """The fault in a body that has no error but a `message`, or a code that is not one of success."""
    message = next((told for name in _MESSAGES if isinstance(told := value.get(name), str) and told.strip()), "")
    code = value.get("code")
    failed = value.get("success") is False or (count(code) or 0) not in (0, 200)
    failed = failed or word(code).strip("0").lower() not in _FINE
    if not failed and (not message or code is not None or value.get("success") is True):
        return None
    return _read_dict({**value, "message": whole(message)}, 0.0)


def said(value: Any) -> ErrorBody:
    """The fault in what a server itself calls an error, whatever its form."""
    if isinstance(value, dict):
        return bare(value) or _read_dict(value, 0.0)
    return ErrorBody(message=whole(value) if isinstance(value, str) else dumps(value))


def read_body(body: bytes, now: float = 0.0) -> ErrorBody | None:
    """The fault in the body of an error status; None when it is no JSON. A bare `message` will do."""
    value = _json_in(body)
    fault = read(value, now)
    if fault is None and isinstance(value, dict):
        if not _says_something(value):
            return ErrorBody()
        message = next((told for name in _MESSAGES if isinstance(told := value.get(name), str)), "")
        return _read_dict({**value, "message": message}, now)
    if fault is None and isinstance(value, str):
        return ErrorBody(message=whole(value))
    return fault


def _json_in(body: bytes) -> Any:
    """The JSON of an error's body, also where it came as an event; None when there is none."""
    try:
        return loads(body)
    except NotJsonError:
        pass
    for line in body[:MAX_EVENT_LINES].splitlines():
        name, _, data = line.partition(b":")
        if name in (b"data", b"error"):
            try:
                return loads(data)
            except NotJsonError:
                continue
    return None


def _is_answer(value: dict[str, Any]) -> bool:
    return bool(value.get("choices") or value.get("content"))


def _says_something(error: dict[str, Any]) -> bool:
    return any(told not in (None, "", 0, False, [], {}) for told in error.values())


def answer_error(
    target: Target, model: str, status: int, *, retry_after: float | None, body: bytes, fault: ErrorBody | None
) -> ProviderError:
    """Classify an answer with an error status, whether its body could be read (`fault`) or not."""
    if fault is not None:
        return classify(target, model, status, fault, retry_after)
    text = body[:2000].decode("utf-8", "replace").strip()
    if fault is None and status == 403 and text and not _is_html(text):  # not the API: whatever stands before it
        return Forbidden(profile=target.profile, status=status, detail=clip(text, target.key))
    if status == 407:
        return HttpError(profile=target.profile, host=host_of(target), kind="proxy", cause="407 from the proxy")
    if text and status in (400, 401, 403, 404, 405) and (_is_html(text) or status in (404, 405)):
        what = "a web page" if _is_html(text) else "no API error"
        return ParseError(profile=target.profile, problem=f"status {status} with {what} in the body")
    is_nothing = text in _NOTHING or _is_html(text)
    return classify(target, model, status, ErrorBody(message="" if is_nothing else text), retry_after)


def classify(
    target: Target, model: str, status: int | None, fault: ErrorBody, retry_after: float | None = None
) -> ProviderError:
    """The error that stands for a fault.

    Args:
        target: whom was asked.
        model: which model was asked for.
        status: of the answer; None or 200 when the error came inside a successful one.
        fault: what the body says.
        retry_after: what the headers say, in seconds; the body's own word serves when they say nothing.
    """
    kind = None
    if status is None or status < 400:
        told = fault.status or next((_STATUS_OF_WORD[w] for w in sorted(fault.words) if w in _STATUS_OF_WORD), None)
        status = told or 500
        if told is None and (kind := _kind_by_words(500, fault) or _kind_by_words(400, fault)):
            status = _STATUS_OF_KIND.get(kind, 400)  # nothing names one: the words decide which it would have been
    detail = clip(fault.message, target.key)
    if retry_after is None:
        retry_after = fault.retry_after
    name = target.profile
    kind = kind or _kind_by_words(status, fault) or _kind_by_status(status)
    if kind in CAPABILITIES:
        return Unsupported(profile=name, detail=detail, kind=kind, model=model, status=status)
    match kind:
        case "quota":
            return QuotaSpent(profile=name, detail=detail, status=status)
        case "limit":
            return RateLimited(profile=name, detail=detail, retry_after=retry_after)
        case "moderation":
            return Moderated(profile=name, detail=detail, status=status)
        case "forbidden":
            return Forbidden(profile=name, detail=detail, status=status)
        case "key":
            return KeyRejected(profile=name, detail=detail, status=status, variable=target.key_variable)
        case "address":
            problem = f"status {status}: there is no such address at {host_of(target)}"
            return ParseError(profile=name, problem=f"{problem} ({detail})" if detail else problem)
        case "failed":
            return ApiError(profile=name, detail=detail, status=status, retry_after=retry_after)
    return RequestRejected(profile=name, detail=detail, status=status, field=fault.field or _field_in(fault.message))


def _kind_by_words(status: int, fault: ErrorBody) -> str | None:
    """What the table of phrases says; None when no line of it fits."""
    for phrase in phrases():
        if phrase.statuses and status not in phrase.statuses:
            continue
        if phrase.pattern is not None:
            if phrase.pattern.search(fault.message):
                return phrase.kind
        elif phrase.word in fault.words:
            return phrase.kind
    return None


def _kind_by_status(status: int) -> str:
    if status in (401, 403):
        return "key"
    if status in (404, 405):
        return "address"
    if status == 451:
        return "forbidden"
    by_status = {402: "quota", 429: "limit"}
    return by_status.get(status, "request" if status in _ABOUT_THE_REQUEST else "failed")


def _field_in(text: str) -> str | None:
    """The field that a provider's prose puts in quotes (`Unknown parameter: 'x'`)."""
    told = _QUOTED_FIELD.search(text)
    return told.group(1) if told else None


def clip(text: str, key: str = "") -> str:
    """A provider's own words: one line, shortened, without any key, even a masked one (ends of a key identify it)."""
    text = _CONTROL.sub("", _ESCAPES.sub("", whole(text)))
    if key:
        text = text.replace(key, "[key]")
    text = _MASKED_KEY.sub("[key]", " ".join(text.split()))
    return text if len(text) <= MAX_DETAIL else text[: MAX_DETAIL - 1] + "…"


def host_of(target: Target) -> str:
    """Host and port of the target, without credentials that an URL may carry."""
    return target.base_url.partition("://")[2].partition("/")[0].rpartition("@")[2]


def _read_dict(error: dict[str, Any], now: float) -> ErrorBody:
    if isinstance(inner := error.get("error"), dict) and _says_something(inner) and "message" not in error:
        return _read_dict(inner, now)
    message = next((told for name in _MESSAGES if isinstance(told := error.get(name), str) and told), None)
    text = whole(message) if message is not None else dumps(error)
    code = error.get("code")
    details = error.get("details")
    words = [code, *(error.get(name) for name in _WORDS)]
    words += [f"error_code:{told}" for told in (count(error.get("error_code")),) if told]  # Baidu
    if isinstance(kind := error.get("__type"), str):  # AWS
        words.append(kind.rpartition("#")[2])
    retry_after = None
    if isinstance(details, dict):  # Anthropic
        words.append(details.get("error_code"))
    elif isinstance(details, list):  # Google
        told = (d.get("retryDelay") for d in details if isinstance(d, dict))
        retry_after = next((headers.duration(t) for t in told if isinstance(t, str)), None)
        words += [d.get("reason") for d in details if isinstance(d, dict)]
    if retry_after is None:
        retry_after = _told_headers(error.get("metadata"), now)
    if retry_after is None:
        retry_after = wait_in(text)
    if retry_after is None and (loading := amount(error.get("estimated_time"))):  # Hugging Face
        retry_after = min(loading, headers.MAX_SECONDS)
    param = error.get("param")
    prefix = _FIELD_PROSE.match(text)
    return ErrorBody(
        message=text,
        words=_words(words),
        field=whole(param) if isinstance(param, str) and param else prefix.group(1) if prefix else None,
        status=status_in(code),
        retry_after=retry_after,
    )


def _read_detail(detail: Any) -> ErrorBody:
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        place = [str(part) for part in detail[0].get("loc", ()) if part != "body"]
        return ErrorBody(message=str(detail[0].get("msg", "")), field=".".join(place) or None)
    if isinstance(detail, dict):
        return _read_dict(detail, 0.0)
    return _read_dict({"message": detail if isinstance(detail, str) else dumps(detail)}, 0.0)


def _told_headers(metadata: Any, now: float) -> float | None:
    """A retry hint among the headers that OpenRouter copies into the body."""
    kept = metadata.get("headers") if isinstance(metadata, dict) else None
    if not isinstance(kept, dict):
        return None
    return headers.read({word(name).lower(): word(value) for name, value in kept.items()}, now)[1]


def wait_in(text: str) -> float | None:
    """The wait in seconds that a provider asks for in its prose."""
    if again := _AGAIN.search(text):
        return headers.duration(again.group(1).rstrip("."))
    if bare := _AGAIN_BARE.search(text):
        return headers.duration(f"{bare.group(1)}s")
    if again := _AGAIN_IN_WORDS.search(text):
        number, unit = float(again.group(1)), again.group(2).lower()
        scale = next(scale for start, scale in _UNITS if unit.startswith(start))
        return headers.duration(f"{number * scale:.3f}s")
    return None


def status_in(code: Any) -> int | None:
    """The HTTP status that a body's `code` is, if it is one."""
    if isinstance(code, str) and code.isascii() and code.isdecimal() and len(code) == 3:
        code = int(code)
    return code if isinstance(code, int) and not isinstance(code, bool) and 400 <= code <= 599 else None


def _words(values: Iterable[Any]) -> frozenset[str]:
    return frozenset(told.lower() for value in values if (told := word(value)))


def _is_html(text: str) -> bool:
    return text[:200].lstrip("\ufeff \t\r\n").lower().startswith(("<!doctype", "<html", "<head", "<body", "<?xml"))
