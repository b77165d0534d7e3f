"""llm: models of `extra-openai-models.yaml`; a prompt, a stream, tools, a schema, async."""

import asyncio
import json
import os
import pathlib
import sys
import tempfile

folder = tempfile.mkdtemp()
os.environ["LLM_USER_PATH"] = folder
pathlib.Path(folder, "extra-openai-models.yaml").write_text(
    "".join(
        f"- model_id: {name}\n  model_name: {name}\n  api_base: {os.environ['OPENAI_BASE_URL']}\n"
        "  api_key_name: gateway\n  supports_tools: true\n  supports_schema: true\n"
        for name in sys.argv[1:]
    )
)
pathlib.Path(folder, "keys.json").write_text(json.dumps({"gateway": os.environ["OPENAI_API_KEY"]}))

import llm
import openai

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
    "required": ["city", "degrees"],
}


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"21 degrees in {city}"


async def in_async(name):
    return "".join([piece async for piece in llm.get_async_model(name).prompt("hi")])


def tried(model, status):
    try:
        model.prompt(f"status {status}", stream=False).text()
    except openai.APIStatusError as error:
        return type(error).__name__
    return "none"


told = {}
for name in sys.argv[1:]:
    model = llm.get_model(name)
    typed = json.loads(model.prompt("hi", schema=SCHEMA, stream=False).text())
    told[f"llm {name}"] = {
        "text": model.prompt("hi", stream=False).text(),
        "stream": asyncio.run(in_async(name)),
        "tools": model.chain("hi", tools=[weather]).text(),
        "typed": [typed["city"], typed["degrees"]],
        "errors": [tried(model, status) for status in (400, 429, 500)],
    }
print(json.dumps(told))
