"""langchain-openai and langchain-anthropic: invoke, stream, bound tools, a typed answer, async."""

import asyncio
import json
import sys

import pydantic
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


class Weather(pydantic.BaseModel):
    """The weather."""

    city: str
    degrees: int


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"21 degrees in {city}"


def with_tools(model):
    messages = [HumanMessage("hi")]
    bound = model.bind_tools([weather])
    asked = bound.invoke(messages)
    messages.append(asked)
    messages += [ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"]) for call in asked.tool_calls]
    return bound.invoke(messages).text


async def streamed(model):
    return "".join([piece.text async for piece in model.astream("hi")])


def tried(model, status):
    try:
        model.invoke(f"status {status}")
    except Exception as error:
        return type(error).__name__
    return "none"


async def main():
    """All in one loop: the clients keep their connections."""
    told = {}
    for kind in (ChatOpenAI, ChatAnthropic):
        for name in sys.argv[1:]:
            model = kind(model=name, max_tokens=50)
            typed = model.with_structured_output(Weather, method="json_schema").invoke("hi")
            by_tool = await model.with_structured_output(Weather, method="function_calling").ainvoke("hi")
            told[f"{kind.__name__} {name}"] = {
                "text": model.invoke("hi").text,
                "stream": await streamed(model),
                "tools": with_tools(model),
                "typed": [typed.city, by_tool.degrees],
                "errors": [tried(model, status) for status in (400, 429, 500)],
            }
    print(json.dumps(told))


asyncio.run(main())
