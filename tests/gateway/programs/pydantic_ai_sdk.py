"""pydantic-ai: chat, Responses and Messages; tools, streams, a typed answer by tool and by schema."""

import asyncio
import json
import sys

import pydantic
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.exceptions import ModelHTTPError


class Weather(pydantic.BaseModel):
    city: str
    degrees: int


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"21 degrees in {city}"


async def streamed(agent: Agent) -> str:
    async with agent.run_stream("hi") as run:
        return "".join([piece async for piece in run.stream_text(delta=True, debounce_by=None)])


async def tried(agent: Agent, status: int) -> int:
    try:
        await agent.run(f"status {status}")
    except ModelHTTPError as error:
        return error.status_code
    return 0


async def main() -> None:
    told = {}
    for api in ("openai-chat", "openai-responses", "anthropic"):
        for model in sys.argv[1:]:
            name = f"{api}:{model}"
            plain = Agent(name)
            by_tool = (await Agent(name, output_type=Weather).run("hi")).output
            # for a model of Anthropic's that it does not know, it only has the tool
            output = Weather if api == "anthropic" else NativeOutput(Weather)
            by_schema = (await Agent(name, output_type=output).run("hi")).output
            told[f"{api} {model}"] = {
                "text": (await plain.run("hi")).output,
                "stream": await streamed(plain),
                "tools": (await Agent(name, tools=[weather]).run("hi")).output,
                "typed": [by_tool.city, by_schema.degrees],
                "errors": [await tried(plain, status) for status in (400, 429, 500)],
            }
    print(json.dumps(told))


asyncio.run(main())
