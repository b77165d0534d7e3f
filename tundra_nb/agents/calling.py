"""`tools/call` of both eras: what reads runs, what acts runs after a person's yes to the exact command."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tundra_nb.errors import TundraError, UsageError

from . import answers
from .approval import Approvals
from .rpc import INVALID_PARAMS, McpSession, Message, RpcError, mapping
from .tools import Tool, ToolAnswer, Toolbox

if TYPE_CHECKING:
    from tundra_nb.client.sync import Client

_YES = "approve"


def connecting(until_the_end: contextlib.ExitStack) -> Callable[[], Client]:
    """Gives the client of a toolbox: opened when any thread first asks for it, closed at the end."""
    opening = threading.Lock()

    @functools.cache
    def opened() -> Client:
        from tundra_nb.client.sync import Client

        return until_the_end.enter_context(Client(caller="mcp"))

    def connect() -> Client:
        with opening:
            return opened()

    return connect


class Calling:
    """Runs the tools of a toolbox; side by side, for a query that takes long is no reason for others to wait."""

    def __init__(self, toolbox: Toolbox) -> None:
        self._toolbox = toolbox
        self._approvals = Approvals()

    def by_handshake(self, params: Mapping[str, Any], session: McpSession) -> Message:
        tool, arguments = self._wanted(params)
        if not tool.acts:
            return _told(self._toolbox.call(tool.name, arguments))
        refusal = self._refusal(tool, arguments)
        if refusal is not None:
            return _told(refusal)
        line = self._toolbox.command_line(tool.name, arguments)
        if not session.can_be_asked or session.ask is None:
            return _told(_not_asked(line))
        answer = session.ask("elicitation/create", _question(line))
        return _told(self._toolbox.call(tool.name, arguments) if _is_yes(answer) else _not_run(line, answer))

    def stateless(self, params: Mapping[str, Any], capabilities: Mapping[str, Any]) -> Message:
        tool, arguments = self._wanted(params)
        if not tool.acts:
            return _complete(self._toolbox.call(tool.name, arguments))
        refusal = self._refusal(tool, arguments)
        if refusal is not None:
            return _complete(refusal)
        line = self._toolbox.command_line(tool.name, arguments)
        if "elicitation" not in capabilities:
            return _complete(_not_asked(line))
        state = params.get("requestState")
        if not isinstance(state, str):
            return {
                "resultType": "input_required",
                "inputRequests": {_YES: {"method": "elicitation/create", "params": _question(line)}},
                "requestState": self._approvals.ask(line),
            }
        try:
            self._approvals.redeem(state, line)
        except UsageError as problem:
            return _complete(_failed(problem))
        answer = mapping(mapping(params.get("inputResponses")).get(_YES))
        return _complete(self._toolbox.call(tool.name, arguments) if _is_yes(answer) else _not_run(line, answer))

    def _wanted(self, params: Mapping[str, Any]) -> tuple[Tool, Mapping[str, Any]]:
        name = params.get("name")
        tool = self._toolbox.tools.get(name) if isinstance(name, str) else None
        if tool is None:
            raise RpcError(INVALID_PARAMS, f"no tool {name!r}; tools: {', '.join(self._toolbox.tools)}")
        arguments = params.get("arguments")
        if not isinstance(arguments, dict | None):
            raise RpcError(INVALID_PARAMS, "`arguments` is not an object")
        return tool, arguments or {}

    def _refusal(self, tool: Tool, arguments: Mapping[str, Any]) -> ToolAnswer | None:
        """What is wrong with a call, before a person is asked about it."""
        try:
            self._toolbox.check(tool.name, arguments)
        except TundraError as problem:
            return _failed(problem)
        return None


def _told(given: ToolAnswer) -> Message:
    return {"content": [{"type": "text", "text": given.text}], "isError": given.is_error}


def _complete(given: ToolAnswer) -> Message:
    return {**_told(given), "resultType": "complete"}


def _question(line: str) -> Message:
    return {
        "mode": "form",
        "message": f"An agent wants to run exactly this command:\n\n    {line}\n\nRun it once?",
        "requestedSchema": {
            "type": "object",
            "properties": {_YES: {"type": "boolean", "title": "Run it", "description": line}},
            "required": [_YES],
        },
    }


def _is_yes(answer: Mapping[str, Any]) -> bool:
    return answer.get("action") == "accept" and mapping(answer.get("content")).get(_YES) is True


def _failed(problem: TundraError) -> ToolAnswer:
    return ToolAnswer(f"{problem.code}: {problem.message}\nnext: {problem.hint}", is_error=True)


def _not_run(line: str, answer: Mapping[str, Any]) -> ToolAnswer:
    """Why a command was not run, to which `answer` is no yes: only a person's no is told as one."""
    match answer:
        case {"action": "decline"} | {"action": "accept", "content": {"approve": False}}:
            why = f"the person said no to `{line}`. Do not ask again."
        case {"action": "cancel"}:
            why = f"the person closed the question about `{line}` without an answer. Ask in words before you try again."
        case {"error": problem}:
            said = " ".join(answers.plain(str(mapping(problem).get("message") or "without a word")).split())[:200]
            why = f"the client could not ask its person ({said}). To be run by hand: {line}"
        case {"late": seconds}:
            why = f"nobody answered the question about `{line}` within {seconds:.0f} s."
        case _:
            why = f"what the client answered is neither a yes nor a no. To be run by hand: {line}"
    return ToolAnswer(f"not run: {why}", is_error=True)


def _not_asked(line: str) -> ToolAnswer:
    return ToolAnswer(f"not run: this client cannot ask its person. Run it yourself: {line}", is_error=True)
