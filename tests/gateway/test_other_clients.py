"""Frameworks and SDKs that nobody changed, each in an environment of its own, through the gateway to both forms.

Profile `one` speaks OpenAI's form, `two` Anthropic's, so each program is relayed at one of them and translated at the
other, and must not notice.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.environments import node_with, python_with
from tests.gateway.acting_model import AFTER_TOOL, SAYS, acting_model
from tests.gateway.conftest import TOML, TWO_KEY, Opened, opened

pytestmark = [pytest.mark.part("doltlite"), pytest.mark.check, pytest.mark.timeout(400)]

PROGRAMS = Path(__file__).parent / "programs"
RUN_SECONDS = 180
TEXT, AFTER = "".join(SAYS), "".join(AFTER_TOOL)
ERRORS = ["BadRequestError", "RateLimitError", "InternalServerError"]
"""What the OpenAI and Anthropic SDKs raise for 400, 429 and 500."""


def words(*told: str) -> dict[str, Any]:
    """What a program has to tell of each of its clients, with the errors that are raised there."""
    return {"text": TEXT, "stream": TEXT, "tools": AFTER, "typed": ["Oslo", 21], "errors": list(told or ERRORS)}


LANGCHAIN = ("InvalidRequestError", "RateLimitError", "APIError")
PYTHON: dict[str, tuple[tuple[str, ...], dict[str, dict[str, Any]]]] = {
    "agents_sdk": (("openai-agents",), {"responses": words(), "chat_completions": words()}),
    "pydantic_ai_sdk": (
        ("pydantic-ai-slim[anthropic,openai]",),
        {api: words() | {"errors": [400, 429, 500]} for api in ("openai-chat", "openai-responses", "anthropic")},
    ),
    "langchain_sdk": (
        ("langchain-openai", "langchain-anthropic"),
        {f"Chat{vendor}": words(*(vendor + name for name in LANGCHAIN)) for vendor in ("OpenAI", "Anthropic")},
    ),
    "litellm_sdk": (("litellm",), {"openai": words(), "anthropic": words()}),
    "llm_sdk": (("llm",), {"llm": words()}),
    "instructor_sdk": (
        ("instructor", "anthropic"),
        {vendor: words() | dict.fromkeys(("text", "stream", "tools"), "Oslo") for vendor in ("openai", "anthropic")},
    ),
}
NODE = ("openai", "@anthropic-ai/sdk", "ai", "@ai-sdk/openai", "@ai-sdk/anthropic", "zod")


@pytest.fixture(scope="module")
def acting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    with acting_model() as (url, _):
        toml = TOML.replace("{one}", f"{url}/v1").replace("{two}", url.replace("127.0.0.1", "localhost"))
        with opened(tmp_path_factory.mktemp("others"), toml) as made:
            yield made


def told_by(acting: Opened, *command: str, cwd: Path | None = None) -> dict[str, Any]:
    """What a program prints; nothing but the four variables that its owner sets leads it to the gateway."""
    environ = dict(os.environ) | {
        "OPENAI_BASE_URL": acting.url,
        "OPENAI_API_KEY": acting.token,
        "ANTHROPIC_BASE_URL": acting.url.removesuffix("/v1"),
        "ANTHROPIC_API_KEY": acting.token,
    }
    for name in ("TUNDRA_DATA_DIR", "TUNDRA_CONFIG", "TWO_KEY"):
        environ.pop(name, None)
    done = subprocess.run(
        [*command, "one", "two"], env=environ, cwd=cwd, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert acting.token not in done.stderr
    assert TWO_KEY not in done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def ways(acting: Opened) -> set[tuple[str, str, str]]:
    """Dialect, profile and way of the calls that were answered."""
    rows = acting.t.sql("select distinct dialect, profile, way from operation where outcome = 'ok'")
    return set(rows.itertuples(index=False, name=None))


@pytest.mark.parametrize("program", PYTHON)
def test_a_python_framework_holds_its_conversations(acting: Opened, program: str) -> None:
    packages, expected = PYTHON[program]
    told = told_by(acting, str(python_with(*packages)), str(PROGRAMS / f"{program}.py"))
    assert told == {f"{client} {model}": words for client, words in expected.items() for model in ("one", "two")}
    assert ways(acting) <= {
        (dialect, profile, "relayed" if (dialect == "anthropic") == (profile == "two") else "translated")
        for dialect in ("openai-chat", "openai-responses", "anthropic")
        for profile in ("one", "two")
    }


@pytest.mark.part("node")
def test_the_node_sdks_hold_their_conversations(acting: Opened) -> None:
    folder = node_with(*NODE)
    # a module is looked for beside the file that imports it
    program = folder / "node_sdks.mjs"
    program.write_text((PROGRAMS / "node_sdks.mjs").read_text())
    told = told_by(acting, "node", str(program), cwd=folder)
    assert told.keys() == {
        f"{client} {model}"
        for client in ("openai", "responses", "anthropic", "ai chat", "ai responses", "ai anthropic")
        for model in ("one", "two")
    }
    for client, said in told.items():
        assert said == {name: words()[name] for name in said}, client
