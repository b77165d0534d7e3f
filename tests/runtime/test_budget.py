"""A token's budget through whole calls: never passed, whatever the program leaves out and however much is answered."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.runtime.calls import Calls, calls
from tundra_nb.errors import BudgetSpent, TundraError
from tundra_nb.faults.http_server import AnswerWriter, ReceivedRequest, head
from tundra_nb.runtime.caller import Caller
from tundra_nb.runtime.providers import bodies, prices
from tundra_nb.runtime.providers.relay import CallerBody
from tundra_nb.runtime.relayed import Choice, Relayed
from tundra_nb.runtime.rows import CallFacts
from tundra_nb.types import Usage

pytestmark = pytest.mark.anyio

READ_USD, WRITTEN_USD = 1e-6, 10e-6
PAID = {"one": {"kind": "openai", "model": "gpt-x"}}
LIMIT_OF = {"chat": "max_completion_tokens", "responses": "max_output_tokens"}


@pytest.fixture(autouse=True)
def priced(monkeypatch: pytest.MonkeyPatch) -> None:
    def cost(kind: str, model: str, usage: Usage, base_url: str = "") -> tuple[float | None, str | None]:
        if usage.input_tokens is None or usage.output_tokens is None:
            return None, None
        return usage.input_tokens * READ_USD + usage.output_tokens * WRITTEN_USD, "today"

    monkeypatch.setattr(prices, "cost", cost)


def dear(made: Calls) -> list[dict[str, Any]]:
    """Let the provider read a token per byte, and write as many as it may; the bodies that reach it."""
    seen: list[dict[str, Any]] = []

    def handle(request: ReceivedRequest, wire: AnswerWriter) -> None:
        asked = json.loads(request.body)
        seen.append(asked)
        form = "responses" if request.path.endswith("/responses") else "chat"
        # who sets no limit gets an answer without end
        written = asked.get(LIMIT_OF[form], 1_000_000) * asked.get("n", 1)
        read = len(request.body)
        if form == "chat":
            usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
            message = {"role": "assistant", "content": "much"}
            body: dict[str, Any] = {
                "id": "1", "object": "chat.completion", "created": 1, "model": asked["model"], "usage": usage,
                "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
            }  # fmt: skip
        else:
            usage = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
            body = {"id": "1", "object": "response", "model": asked["model"], "output": [], "usage": usage}
        told = json.dumps(body).encode()
        wire.write(head(200, (("content-type", "application/json"),), len(told)) + told)

    made.servers["one"].handler = handle
    return seen


def request(made: Calls, form: str = "chat", max_tokens: int | None = None, **fields: Any) -> Relayed:
    body = json.dumps({"model": "gpt-x", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()
    given = CallerBody(form=form, body=body, members=bodies.members(body))
    choices = [Choice(made.slots["one"].profile)]
    return Relayed(given, CallFacts(kind=form), choices, failover=True, max_tokens=max_tokens)


@pytest.mark.parametrize("form", ["chat", "responses"])
async def test_calls_without_a_limit_never_take_the_day_past_its_budget(form: str) -> None:
    async with calls("one", profiles=PAID) as made:
        seen = dear(made)
        caller = Caller("agent", usd_per_day=0.5)
        refused = 0

        async def call() -> None:
            nonlocal refused
            try:
                await made.operations.call(request(made, form), caller).carry_out()
            except TundraError as error:
                causes = getattr(error, "causes", None) or [error.to_wire()]
                assert {cause["type"] for cause in causes} == {"BudgetSpent"}
                refused += 1

        for _ in range(6):
            await asyncio.gather(*(call() for _ in range(4)))
        spent = sum(row.cost_usd or 0.0 for row in made.attempts)
        assert spent <= 0.5
        assert spent > 0.45, "what is left is used by a shorter answer"
        assert refused
        limits = [body[LIMIT_OF[form]] for body in seen]
        assert limits[0] == made.profiles.settings.gateway.budget_output_tokens
        assert min(limits) < limits[0]


async def test_several_choices_share_the_limit_and_a_limit_of_the_program_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with calls("one", profiles=PAID) as made:
        seen = dear(made)
        caller = Caller("agent", usd_per_day=100.0)
        await made.operations.call(request(made, n=4), caller).carry_out()
        await made.operations.call(request(made, max_tokens=7, max_completion_tokens=7), caller).carry_out()
        assert [body["max_completion_tokens"] for body in seen] == [2048, 7]
        assert made.attempts[0].output_tokens == 8192


async def test_what_a_body_only_names_is_reckoned_as_the_whole_context() -> None:
    async with calls("one", profiles=PAID) as made:
        dear(made)
        caller = Caller("agent", usd_per_day=0.5)  # a context of a million tokens costs a dollar to read
        image = {"type": "image_url", "image_url": {"url": "https://example.org/large.png"}}
        messages = [{"role": "user", "content": [image]}]
        for fields in ({"messages": messages}, {"tools": [{"type": "web_search"}]}):
            with pytest.raises(TundraError) as caught:
                await made.operations.call(request(made, max_tokens=5, **fields), caller).carry_out()
            assert "BudgetSpent" in str(caught.value.to_wire())
        inline = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
        messages = [{"role": "user", "content": [inline]}]
        await made.operations.call(request(made, max_tokens=5, messages=messages), caller).carry_out()


@pytest.mark.parametrize("pricing", [{"prompt": "0.000001", "completion": "0.00001"}, {}])
async def test_a_price_that_only_the_providers_own_list_tells_counts(
    monkeypatch: pytest.MonkeyPatch, pricing: dict[str, str]
) -> None:
    monkeypatch.setattr(prices, "cost", lambda *_: (None, None))
    async with calls("one", profiles={"one": {"kind": "openrouter", "model": "gpt-x"}}) as made:
        seen = dear(made)
        answer = made.servers["one"].handler
        listed = json.dumps({"object": "list", "data": [{"id": "gpt-x", "pricing": pricing}]}).encode()

        def handle(request: ReceivedRequest, wire: AnswerWriter) -> None:
            if request.method == "GET":
                wire.write(head(200, (("content-type", "application/json"),), len(listed)) + listed)
            else:
                answer(request, wire)

        made.servers["one"].handler = handle
        caller = Caller("agent", usd_per_day=0.5)
        asking = made.operations.call(request(made), caller).carry_out()
        if pricing:
            await asking
            row = made.attempts[-1]
            cost = (row.input_tokens or 0) * READ_USD + (row.output_tokens or 0) * WRITTEN_USD
            assert await kept(made, caller) == pytest.approx((cost, cost, cost))
            assert made.operation.price_at == "the provider's list"
            assert 0 < int(seen[0].get("max_tokens") or seen[0]["max_completion_tokens"]) <= 50_000
        else:
            with pytest.raises(TundraError, match="price"):
                await asking


async def kept(made: Calls, caller: Caller) -> tuple[float, float, float]:
    """What the counter says, and the rows of attempts and of operations, from which it is rebuilt after a restart."""
    settled, reserved = await made.operations._budgets.spent(caller.name)
    assert reserved == 0
    return settled, sum(row.cost_usd or 0.0 for row in made.attempts), made.operation.cost_usd or 0.0


async def test_who_hangs_up_on_a_provider_that_works_already_pays() -> None:
    async with calls("one", profiles=PAID) as made:
        arrived = asyncio.Event()

        async def handle(request: ReceivedRequest, wire: AnswerWriter) -> None:
            arrived.set()
            await asyncio.Event().wait()

        made.servers["one"].handler = handle
        caller = Caller("agent", usd_per_day=0.5)
        call = asyncio.ensure_future(made.operations.call(request(made, max_tokens=100), caller).carry_out())
        await arrived.wait()
        call.cancel()
        await asyncio.wait([call])
        settled, attempts, operation = await kept(made, caller)
        assert settled >= 100 * WRITTEN_USD
        assert settled == pytest.approx(attempts) == pytest.approx(operation)


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 1}, {"prompt_tokens": 1, "completion_tokens": "x"}])
async def test_an_answer_that_does_not_tell_its_tokens_is_charged_with_what_was_reserved(usage: Any) -> None:
    async with calls("one", profiles=PAID) as made:
        message = {"role": "assistant", "content": "much"}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        told = json.dumps({"id": "1", "model": "gpt-x", "choices": choices, "usage": usage}).encode()

        def handle(request: ReceivedRequest, wire: AnswerWriter) -> None:
            wire.write(head(200, (("content-type", "application/json"),), len(told)) + told)

        made.servers["one"].handler = handle
        caller = Caller("agent", usd_per_day=0.5)
        await made.operations.call(request(made, max_tokens=100), caller).carry_out()
        settled, attempts, operation = await kept(made, caller)
        assert settled >= 100 * WRITTEN_USD
        assert settled == pytest.approx(attempts) == pytest.approx(operation)


async def test_a_provider_that_refuses_or_is_not_there_costs_nothing() -> None:
    gone = {"one": PAID["one"] | {"base_url": "http://127.0.0.1:9"}}
    for profiles, status in ((gone, 0), (PAID, 500)):
        async with calls("one", profiles=profiles) as made:

            def handle(request: ReceivedRequest, wire: AnswerWriter, status: int = status) -> None:
                wire.write(head(status, (), 0))

            made.servers["one"].handler = handle
            caller = Caller("agent", usd_per_day=0.5)
            with pytest.raises(TundraError):
                await made.operations.call(request(made, max_tokens=100), caller).carry_out()
            assert await kept(made, caller) == (0, 0, 0)


async def test_a_caller_without_a_budget_is_not_limited() -> None:
    async with calls("one", profiles=PAID) as made:
        seen = dear(made)
        await made.operations.call(request(made), Caller("free")).carry_out()
        assert "max_completion_tokens" not in seen[0]


def test_a_refusal_says_what_is_missing() -> None:
    error = BudgetSpent(name="agent", profile="one", budget=1.0, spent=0.9, needed=0.2, retry_after=60.0)
    assert "0.2" in error.message
