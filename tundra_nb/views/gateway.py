"""The gateway for people: where it listens, what to copy into a program, who has called; and a new token."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from tundra_nb.client.gateway import GatewayStatus, NewToken

from .blocks import Block, Cell, Code, Facts, Heading, Para, Styled, Table, Tone, money, number

CALLER_COLUMNS = ("who", "client", "form", "calls", "now", "failed", "last")
HIDDEN = "tnd-…"
"""Stands for the token, which is shown only once."""


def blocks(status: GatewayStatus) -> Sequence[Block]:
    """Status, copyable lines, callers."""
    url = status["url"]
    state: Cell = Styled(f"listens at {url}", "good") if url else Styled("does not listen", "warn")
    facts: list[tuple[str, Cell]] = [("gateway", state)]
    if status["insecure"]:
        facts.append(("", Styled("without TLS: tokens and prompts cross the network in the clear", "bad")))
    if status["problem"]:
        facts.append(("problem", Styled(status["problem"], "bad")))
        facts.append(("", status["hint"] or ""))
    found: list[Block] = [Facts(facts)]
    if url:
        found += [Para("For a program on this machine, with a token of `tundra token new NAME`:"), copyable(url)]
    else:
        found.append(Para("`%tundra gateway start` opens it for programs with a token."))
    tones: list[Tone | None] = ["strong", None, None, None, None, "bad", None]
    rows: list[list[Cell]] = [
        [Styled(told, tone) if tone and told else told for told, tone in zip(row, tones, strict=True)]
        for row in callers(status)
    ]
    if rows:
        found += [Heading("callers"), Table(list(CALLER_COLUMNS), rows, right=frozenset({3, 4, 5}))]
    else:
        found.append(Para("Nobody has called since the daemon's start."))
    return found


def callers(status: GatewayStatus) -> list[list[str]]:
    """The programs that called, the latest first, as `CALLER_COLUMNS`."""
    return [
        [
            f"{row['by']} {row['name']}",
            str(row["client"]),
            str(row["dialect"]),
            number(row["calls"]),
            number(row["running"]) if row["running"] else "",
            number(row["failed"]) if row["failed"] else "",
            dt.datetime.fromisoformat(row["last_at"]).astimezone().strftime("%H:%M:%S"),
        ]
        for row in status["callers"]
    ]


def new_token(token: NewToken) -> Sequence[Block]:
    """A token, this once."""
    limits = [
        ("profiles", ", ".join(token["profiles"]) or "all"),
        ("requests", f"{number(token['rpm'])} a minute" if token["rpm"] else "as the tier of users says"),
        ("tokens", f"{number(token['tpm'])} a minute" if token["tpm"] else "as the tier of users says"),
        ("budget", f"{money(token['usd_per_day'])} a day" if token["usd_per_day"] else "none"),
        ("until", token["expires_at"] or "it is revoked"),
    ]
    found: list[Block] = [
        Para(f"Token {token['name']!r}, shown this once:"),
        Code(token["token"]),
        Facts([(name, value) for name, value in limits]),
    ]
    if url := token["urls"].get("openai"):
        found += [copyable(url, token["token"])]
    else:
        found.append(Para("`%tundra gateway start` opens the gateway for it."))
    return found


def copyable(url: str, token: str = HIDDEN) -> Code:
    """Two lines for each vendor's SDK."""
    lines = [
        f"export OPENAI_BASE_URL={url}",
        f"export OPENAI_API_KEY={token}",
        f"export ANTHROPIC_BASE_URL={url.removesuffix('/v1')}",
        f"export ANTHROPIC_API_KEY={token}",
    ]
    return Code("\n".join(lines))
