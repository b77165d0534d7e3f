"""The gateway's callers as a person sees them: live, while programs call."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.part("browser", "doltlite"), pytest.mark.timeout(180)]


def test_a_program_that_calls_is_seen_at_once(lab: Any) -> None:
    lab.tundra("gateway", "start", "--port", "0")
    told = json.loads(lab.tundra("token", "new", "agent", "--json"))
    page = lab.open(["%load_ext tundra_nb", "%tundra gateway --widget", "%tundra why last"])
    page.run(0)
    page.run(1)
    widget = page.output(1).locator(".tundra-gateway")
    expect(widget).to_contain_text("nobody has called")
    for _ in range(2):
        answer = httpx.post(
            f"{told['urls']['openai']}/chat/completions",
            headers={"authorization": f"Bearer {told['token']}", "user-agent": "OpenAI/Python 3.57.0"},
            json={"model": "auto", "messages": [{"role": "user", "content": "hi"}], "store": False},
        )
        assert answer.status_code == 200, answer.text
    row = widget.locator("tbody tr")
    expect(row).to_have_count(1)
    expect(row.locator("td").nth(3)).to_have_text("2")
    expect(row).to_contain_text("openai-python/3.57.0")
    page.screenshot("gateway-widget")
    page.theme("dark")
    page.screenshot("gateway-widget-dark")
    page.run(2)
    expect(page.output(2)).to_contain_text("relayed: the body as it came")
    expect(page.output(2)).to_contain_text("openai-chat")
    page.screenshot("gateway-why-dark")
    saved = page.save()
    assert told["token"] not in json.dumps(saved)
