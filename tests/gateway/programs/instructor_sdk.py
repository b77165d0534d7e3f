"""instructor: a forced tool of OpenAI's and of Anthropic's form, a schema, a stream of parts, async."""

import asyncio
import json
import sys

import anthropic
import instructor
import openai
import pydantic


class Weather(pydantic.BaseModel):
    city: str
    degrees: int


ASKED = [{"role": "user", "content": "hi"}]
ENDS = {"openai": {}, "anthropic": {"max_tokens": 50}}


async def in_async(vendor, name):
    client = instructor.from_provider(f"{vendor}/{name}", async_client=True)
    return (await client.chat.completions.create(response_model=Weather, messages=ASKED, **ENDS[vendor])).city


def tried(client, vendor, status):
    asked = [{"role": "user", "content": f"status {status}"}]
    try:
        client.chat.completions.create(response_model=Weather, messages=asked, max_retries=0, **ENDS[vendor])
    except Exception as error:
        while error.__cause__ is not None and not isinstance(error, openai.APIError | anthropic.APIError):
            error = error.__cause__
        return type(error).__name__
    return "none"


told = {}
for vendor in ("openai", "anthropic"):
    for name in sys.argv[1:]:
        client = instructor.from_provider(f"{vendor}/{name}")
        typed = client.chat.completions.create(response_model=Weather, messages=ASKED, **ENDS[vendor])
        parts = list(client.chat.completions.create_partial(response_model=Weather, messages=ASKED, **ENDS[vendor]))
        told[f"{vendor} {name}"] = {
            "text": typed.city,
            "stream": parts[-1].city,
            "tools": asyncio.run(in_async(vendor, name)),
            "typed": [typed.city, parts[-1].degrees],
            "errors": [tried(client, vendor, status) for status in (400, 429, 500)],
        }
print(json.dumps(told))
