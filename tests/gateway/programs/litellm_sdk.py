"""litellm as a client: chat, Messages and Responses; streams, tools, a schema, async."""

import asyncio
import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would ask the network for prices

import litellm

litellm.suppress_debug_info = True
ASKED = [{"role": "user", "content": "hi"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}


def with_tools(model):
    asked = litellm.completion(model=model, messages=ASKED, tools=[TOOL], max_tokens=50).choices[0].message
    call = asked.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": json.loads(call.function.arguments)["city"]}
    messages = [*ASKED, asked.model_dump(exclude_none=True), result]
    return litellm.completion(model=model, messages=messages, tools=[TOOL], max_tokens=50).choices[0].message.content


async def streamed(model):
    answer = await litellm.acompletion(model=model, messages=ASKED, stream=True, max_tokens=50)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])


def typed(model):
    format_ = {"type": "json_schema", "json_schema": {"name": "Weather", "schema": SCHEMA, "strict": True}}
    answer = litellm.completion(model=model, messages=ASKED, response_format=format_, max_tokens=50)
    told = json.loads(answer.choices[0].message.content)
    return [told["city"], told["degrees"]]


def tried(model, status):
    asked = [{"role": "user", "content": f"status {status}"}]
    try:
        litellm.completion(model=model, messages=asked, max_tokens=50, num_retries=0)
    except Exception as error:
        return type(error).__name__
    return "none"


told = {}
for vendor in ("openai", "anthropic"):
    for name in sys.argv[1:]:
        model = f"{vendor}/{name}"
        told[f"{vendor} {name}"] = {
            "text": litellm.completion(model=model, messages=ASKED, max_tokens=50).choices[0].message.content,
            "stream": asyncio.run(streamed(model)),
            "tools": with_tools(model),
            "typed": typed(model),
            "errors": [tried(model, status) for status in (400, 429, 500)],
        }
print(json.dumps(told))
