"""openai-agents: Responses by default, chat completions on request; tools, streams, a typed answer, async."""

import asyncio
import json
import sys

import agents
import openai
import pydantic

agents.set_tracing_disabled(True)  # it would tell api.openai.com


class Weather(pydantic.BaseModel):
    city: str
    degrees: int


@agents.function_tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"21 degrees in {city}"


async def streamed(agent: agents.Agent) -> str:
    run = agents.Runner.run_streamed(agent, "hi")
    return "".join(
        [e.data.delta async for e in run.stream_events() if e.type == "raw_response_event"
         and e.data.type == "response.output_text.delta"]
    )  # fmt: skip


async def tried(agent: agents.Agent, status: int) -> str:
    try:
        await agents.Runner.run(agent, f"status {status}")
    except openai.APIStatusError as error:
        return type(error).__name__
    return "none"


async def main() -> None:
    told = {}
    for api in ("responses", "chat_completions"):
        agents.set_default_openai_api(api)
        for model in sys.argv[1:]:
            plain = agents.Agent(name="a", model=model)
            typed = (
                await agents.Runner.run(agents.Agent(name="b", model=model, output_type=Weather), "hi")
            ).final_output
            tools = await agents.Runner.run(agents.Agent(name="c", model=model, tools=[weather]), "hi")
            told[f"{api} {model}"] = {
                "text": (await agents.Runner.run(plain, "hi")).final_output,
                "stream": await streamed(plain),
                "tools": tools.final_output,
                "typed": [typed.city, typed.degrees],
                "errors": [await tried(plain, status) for status in (400, 429, 500)],
            }
    print(json.dumps(told))


asyncio.run(main())
