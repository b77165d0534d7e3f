"""Every fault of the proxy, and with it every row of the outcome table, seen from a notebook.

One kernel and one daemon ask through fault proxies, in both wire formats, streamed and not, alone and with a spare
profile to fail over to. Each combination has a profile of its own, so that breakers, buckets and parked profiles tell
of nothing else; its model's name tells the proxies which fault it gets. All of them run at once, then `LINES` says what
must have come of each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.wiring.conftest import environment, open_notebook
from tundra_nb.faults.fault_proxy import FaultProcess
from tundra_nb.faults.faults import FAULTS
from tundra_nb.testing.scripted_provider import scripted_process

pytestmark = pytest.mark.part("doltlite")

RETRIES = 1
GAP = 0.06
"""Seconds between the events of a stream: text must have reached the daemon before the error that follows it."""
FORMATS = ("openai", "anthropic")
TEXT = "word0 word1 word2 word3 "
SETTINGS = """
[router]
retries = 1
backoff_seconds = 0.01
backoff_cap_seconds = 0.02
max_wait_seconds = 5
[deadlines]
connect_seconds = 5
idle_seconds = 2
total_seconds = 4
[breaker]
failures = 100
[limits.global]
rate = 1e6
burst = 1e6
[[profile]]
name = "spare"
kind = "local"
base_url = "{spare}"
model = "spare-1"
"""
PROFILE = """
[[profile]]
name = "{name}"
kind = "{kind}"
base_url = "{base_url}"
model = "{name}"
priority = 10
rpm = 1e6
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """What a fault must come to. `error` None: the answer arrives all the same."""

    fault: str
    error: str | None
    reason: str = ""
    retried: bool = False
    fails_over: bool = False
    counts: bool = False
    """For the breaker."""
    parks: bool = False
    penalised: bool = False
    """The provider said when to come back: the profile's bucket is shut until then."""
    has_text: bool = False
    """Some text arrived before the error."""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Of the rule."""
    label: str = ""
    formats: tuple[str, ...] = FORMATS
    streamed: tuple[bool, ...] = (False, True)


def api(fault: str, **more: Any) -> Line:
    return Line(fault=fault, error="ApiError", reason="api_error", retried=True, fails_over=True, counts=True, **more)


def http(fault: str, reason: str) -> Line:
    return Line(fault=fault, error="HttpError", reason=reason, retried=True, fails_over=True, counts=True)


def late(fault: str, deadline: str, **more: Any) -> Line:
    return Line(fault=fault, error="Timeout", reason=f"timeout_{deadline}", fails_over=True, counts=True, **more)


def unread(fault: str, **more: Any) -> Line:
    return Line(fault=fault, error="ParseError", reason="parse_error", fails_over=True, counts=True, **more)


def limited(
    fault: str, seconds: float | None = None, *, retried: bool = True, formats: tuple[str, ...] = FORMATS
) -> Line:
    """429: asked again when the provider says, or after the usual pause; not where it says not to."""
    return Line(
        fault=fault,
        error="RateLimited",
        reason="rate_limited",
        retried=retried,
        fails_over=True,
        penalised=seconds is not None,
        options={} if seconds is None else {"seconds": seconds},
        formats=formats,
    )


def parked(fault: str, error: str, reason: str, **more: Any) -> Line:
    return Line(fault=fault, error=error, reason=reason, fails_over=True, parks=True, **more)


def wrong(fault: str, error: str = "RequestRejected", reason: str = "request_rejected", **more: Any) -> Line:
    return Line(fault=fault, error=error, reason=reason, **more)


EVERY = ("openai", "anthropic", "openrouter")
LINES = [
    # HttpError: DNS, connect, TLS, reset
    http("dns", "dns"),
    http("refused", "connect"),
    http("tls", "tls"),
    http("reset", "reset"),
    http("closed", "reset"),
    # Timeout
    late("hang", "total", streamed=(False,)),
    late("hang", "idle", streamed=(True,)),
    late("slow_headers", "idle", label="too_slow_headers", options={"seconds": 3.0}, streamed=(True,)),
    Line(fault="slow_headers", error=None, options={"seconds": 0.1}),
    Line(fault="slow_stream", error=None, options={"seconds": 0.05}),
    # ApiError 408, 5xx, 529
    *(api(str(status)) for status in (408, 500, 502, 503, 504, 529)),
    # RateLimited 429
    limited("429"),
    limited("429_nonsense"),
    limited("429_no_retry", retried=False),
    limited("429_seconds", 0.2),
    limited("429_ms", 0.2),
    limited("429_date", 1.0),
    limited("429_rfc3339", 0.3),
    limited("429_epoch", 2.0),
    limited("429_epoch_ms", 0.3, formats=EVERY),
    limited("429_duration", 0.3),
    # quota spent, key wrong
    parked("401", "KeyRejected", "key_rejected"),
    parked("403", "KeyRejected", "key_rejected"),
    parked("402", "QuotaSpent", "quota_spent", formats=EVERY),
    parked("quota", "QuotaSpent", "quota_spent", formats=EVERY),
    # Unsupported; a context that is too long goes to a larger one only, and the spare's is not known
    Line(fault="404", error="Unsupported", reason="unsupported_model", fails_over=True, formats=("openai",)),
    unread("404", formats=("anthropic",)),
    Line(fault="context", error="Unsupported", reason="unsupported_context", formats=EVERY),
    # the request is wrong
    *(wrong(str(status)) for status in (400, 409, 413, 422)),
    # moderation
    wrong("moderation", "Moderated", "moderated", formats=EVERY),
    # ParseError
    unread("html"),
    unread("truncated_json"),
    unread("bad_encoding"),
    unread("stream_cut", options={"cut_bytes": 60}),
    # an error event inside a 200 stream
    api("error_in_200", formats=EVERY),
    Line(
        fault="error_in_200", error="RateLimited", reason="rate_limited", retried=True, fails_over=True,
        label="limit_in_200",
        options={"status": 429},
    ),
    parked("error_in_200", "KeyRejected", "key_rejected", label="key_in_200", options={"status": 401}),
    api("error_in_stream", streamed=(False,)),
    api("error_in_stream", streamed=(True,), options={"events": 0}, label="error_before_text"),
    Line(
        fault="error_in_stream", error="ApiError", reason="api_error", counts=True, has_text=True, streamed=(True,),
        formats=EVERY,
    ),
    Line(
        fault="stream_cut", error="ParseError", reason="parse_error", counts=True, has_text=True, streamed=(True,),
        label="cut_after_text", options={"cut_bytes": 900},
    ),
    # more than any parser takes: no answer either
    http("huge_headers", "protocol"),
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """One line, in one wire format, streamed or not, alone or with somebody to fail over to."""

    line: Line
    format: str
    streamed: bool
    alone: bool

    @property
    def name(self) -> str:
        fault = (self.line.label or self.line.fault).replace("_", "-")
        return f"{fault}.{self.format}.{'stream' if self.streamed else 'whole'}.{'alone' if self.alone else 'spare'}"


CASES = [
    Case(line, form, streamed, alone)
    for line in LINES
    for form, streamed, alone in itertools.product(line.formats, line.streamed, (True, False))
]

CELL = """
import asyncio, json, tundra_nb

async def one(t, limit, name, streamed, alone):
    pieces = []
    told = {"name": name}
    async with limit:
        try:
            if streamed:
                stream = t.ask("hi", profile=name, failover=not alone, stream=True)
                async for piece in stream:
                    pieces.append(piece)
                reply = stream.reply
            else:
                reply = await t.ask("hi", profile=name, failover=not alone)
            told |= {"text": reply.text, "profile": reply.profile, "attempts": reply.attempts}
        except tundra_nb.errors.TundraError as error:
            told |= {"type": type(error).__name__, "code": error.code, "reason": error.reason, "hint": error.hint,
                     "causes": [cause["reason"] for cause in getattr(error, "causes", ())]}
    return told | {"pieces": pieces}

async def everything(cases):
    async with tundra_nb.connect_async() as t:
        limit = asyncio.Semaphore(24)
        return await asyncio.gather(*(one(t, limit, *case) for case in cases))

with open("cases.json") as file:
    told = await everything(json.load(file))
with tundra_nb.connect() as t:
    frames = {"attempts": t.attempts(since="all"), "calls": t.calls(since="all"), "errors": t.errors(since="all"),
              "limits": t.limit_history(since="all"), "moves": t.breaker_history(since="all"),
              "breakers": t.breakers(), "providers": t.providers(), "buckets": t.limits()}
rows = {name: json.loads(frame.to_json(orient="records")) for name, frame in frames.items()}
with open("told.json", "w") as file:
    json.dump({"told": told, "frames": rows}, file)
"""


@dataclasses.dataclass
class Seen:
    """What came of all cases."""

    told: dict[str, dict[str, Any]]
    """At the client, by name of the case."""
    frames: dict[str, list[dict[str, Any]]]
    counts: dict[str, Counter[str]]
    """Requests per fault, by format, as the proxies counted them."""
    magics: dict[str, str]
    """What `%tundra ask` showed, by name of the case."""

    def attempts(self, case: Case) -> list[dict[str, Any]]:
        rows = [row for row in self.frames["attempts"] if row["profile"] == case.name]
        return sorted(rows, key=lambda row: row["seq"])

    def of_profile(self, frame: str, case: Case) -> dict[str, Any]:
        return next(row for row in self.frames[frame] if row["profile"] == case.name)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("faults")
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(scripted_process(gap=GAP, pieces=4))
        proxies = {
            form: stack.enter_context(FaultProcess(upstream.url, dialect=form))  # type: ignore[arg-type]
            for form in EVERY
        }
        dead = stack.enter_context(FaultProcess(upstream.url))
        dead.control.inject("refused")
        urls = {"dns": "http://fault.invalid", "refused": dead.url}
        toml = SETTINGS.format(spare=upstream.base_url)
        for case in CASES:
            proxy, fault = proxies[case.format], case.line.fault
            url = proxy.url.replace("http:", "https:") if fault == "tls" else urls.get(fault, proxy.url)
            toml += PROFILE.format(name=case.name, kind=case.format, base_url=url)
            if FAULTS[fault].place != "url" and fault != "refused":
                proxy.control.inject(fault, model=case.name, **case.line.options)
        env = environment(folder)
        with open_notebook(folder, upstream, toml, env) as notebook:
            (folder / "cases.json").write_text(json.dumps([[c.name, c.streamed, c.alone] for c in CASES]))
            ran = notebook.run(CELL)
            assert ran.error is None, ran.traceback
            result = json.loads((folder / "told.json").read_text())
            counts = {form: proxy.control.counts for form, proxy in proxies.items()}
            magics = {}
            for case in MAGICS:
                ran = notebook.run(f"%tundra ask -p {case.name} --no-failover hi")
                magics[case.name] = ran.traceback if ran.error else ran.text
        yield Seen({row["name"]: row for row in result["told"]}, result["frames"], counts, magics)


MAGICS = [
    case
    for case in CASES
    if case.streamed
    and case.alone
    and (case.name.startswith(("dns.", "529.", "402.", "422.", "html.", "moderation.", "error-in-stream.", "hang.")))
]
"""Asked once more with the magic."""


def test_the_table_has_a_line_for_each_fault_of_the_proxy() -> None:
    assert {line.fault for line in LINES} == set(FAULTS)
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", [case for case in CASES if case.alone], ids=lambda case: case.name)
def test_alone_the_caller_gets_the_error_itself(seen: Seen, case: Case) -> None:
    line, told, rows = case.line, seen.told[case.name], seen.attempts(case)
    if line.error is None:
        assert (told.get("text"), told.get("profile"), len(rows)) == (TEXT, case.name, 1), told
        assert "".join(told["pieces"]) == (TEXT if case.streamed else "")
        return
    assert (told.get("type"), told.get("reason")) == (line.error, line.reason), told
    assert told["hint"]
    assert [row["cause"] for row in rows] == ["first", "retry"][: 1 + (RETRIES if line.retried else 0)]
    assert {(row["outcome"], row["reason"], row["code"]) for row in rows} == {("error", line.reason, told["code"])}
    text = "".join(told["pieces"])
    assert TEXT.startswith(text)
    assert bool(text) == line.has_text
    (call,) = [row for row in seen.frames["calls"] if row["operation_id"] == rows[0]["operation_id"]]
    assert (call["outcome"], call["code"], call["attempts"]) == ("error", told["code"], len(rows))
    (error,) = [row for row in seen.frames["errors"] if row["operation_id"] == rows[0]["operation_id"]]
    assert (error["code"], error["source"], error["profile"]) == (told["code"], "providers", case.name)


@pytest.mark.parametrize("case", [case for case in CASES if not case.alone], ids=lambda case: case.name)
def test_beside_a_spare_profile_it_answers_exactly_when_the_table_says_so(seen: Seen, case: Case) -> None:
    line, told, rows = case.line, seen.told[case.name], seen.attempts(case)
    if line.error is None:
        assert told.get("profile") == case.name, told
    elif line.fails_over:
        assert (told.get("text"), told.get("profile")) == (TEXT, "spare"), told
        spares = [row for row in seen.frames["attempts"] if row["operation_id"] == rows[0]["operation_id"]][len(rows) :]
        assert [(row["profile"], row["outcome"], row["cause"]) for row in spares] == [("spare", "ok", "failover")]
        assert told["attempts"] == len(rows) + 1
        assert "".join(told["pieces"]) == (TEXT if case.streamed else "")  # once, and from one of them only
    else:
        causes = told.get("causes") or [told.get("reason")]
        assert causes == [line.reason], told
        assert all(row["profile"] == case.name for row in rows)
        assert bool(told["pieces"]) == line.has_text
        assert TEXT.startswith("".join(told["pieces"]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_breaker_router_and_bucket_know_what_they_must(seen: Seen, case: Case) -> None:
    line, rows = case.line, seen.attempts(case)
    breaker, provider = seen.of_profile("breakers", case), seen.of_profile("providers", case)
    assert breaker["state"] == "closed"
    assert breaker["failures"] == (len(rows) if line.counts else 0)
    assert (provider["state"] == "parked") == line.parks, provider
    moves = [row for row in seen.frames["moves"] if row["profile"] == case.name]
    assert [(row["old_state"], row["new_state"], row["reason"]) for row in moves] == (
        [("closed", "closed", line.reason)] if line.parks else []
    )
    shut = [row for row in seen.frames["limits"] if row["limit_key"] == case.name and row["decision"] == "penalised"]
    assert bool(shut) == line.penalised
    (bucket,) = [row for row in seen.frames["buckets"] if row["limit_key"] == case.name and row["owner"] == "tundra"]
    assert bucket["waiting"] == 0
    if line.penalised:
        hint = line.options["seconds"]
        assert all(hint - 1.5 < row["retry_after_s"] <= hint + 0.01 for row in rows)


@pytest.mark.parametrize("form", EVERY)
def test_the_proxies_were_asked_as_often_as_there_are_attempts(seen: Seen, form: str) -> None:
    wanted: Counter[str] = Counter()
    for case in CASES:
        if case.format == form and FAULTS[case.line.fault].place != "url" and case.line.fault != "refused":
            wanted[case.line.fault] += len(seen.attempts(case))
    got = Counter({fault: count for fault, count in seen.counts[form].items() if fault != "passed"})
    assert got == wanted


@pytest.mark.parametrize("case", MAGICS, ids=lambda case: case.name)
def test_the_magic_shows_code_cause_and_remedy_in_one_line_each(seen: Seen, case: Case) -> None:
    shown = seen.magics[case.name].splitlines()
    assert case.name in shown[0]
    assert ": " in shown[0]
    assert shown[1].strip().startswith("→")
    assert "Traceback" not in seen.magics[case.name]
