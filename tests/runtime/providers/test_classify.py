"""Literal error bodies of each vendor, and the class each must become."""
# ruff: noqa: E501 (a table of bodies reads better one case a line)

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tundra_nb import errors
from tundra_nb.runtime.providers import classify
from tundra_nb.runtime.providers.anthropic import AnthropicFormat
from tundra_nb.runtime.providers.contract import Target, WireFormat
from tundra_nb.runtime.providers.openai import OpenAIFormat
from tundra_nb.runtime.providers.openrouter import OpenRouterFormat

KEY = "sk-canary-0123456789abcdef"
MODEL = "some-model"
NOW = 1_790_000_000.0
HTML = b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>"


def target(kind: str) -> Target:
    return Target(
        profile="p", kind=kind, base_url="https://api.example/v1", key=KEY, key_variable="THE_KEY", now=lambda: NOW
    )


FORMATS: dict[str, WireFormat] = {
    "openai": OpenAIFormat(target("openai")),
    "local": OpenAIFormat(target("local")),
    "openrouter": OpenRouterFormat(target("openrouter")),
    "anthropic": AnthropicFormat(target("anthropic")),
}


def openai(message: str, kind: str | None = None, code: Any = None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def anthropic(kind: str, message: str, **more: Any) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message, **more}, "request_id": "req_1"}


def openrouter(code: int, message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, **more}, "user_id": "u"}


TABLE: list[tuple[str, int, Any, type[errors.ProviderError], dict[str, Any]]] = [
    # OpenAI
    ("openai", 429, openai("Rate limit reached for m. Please try again in 1.5s.", "tokens", "rate_limit_exceeded"),
     errors.RateLimited, {"retry_after": 1.5}),
    ("openai", 429, openai("You exceeded your current quota", "insufficient_quota", "insufficient_quota"),
     errors.QuotaSpent, {"status": 429}),
    ("openai", 400, openai("This model's maximum context length is 8192 tokens.", "invalid_request_error",
     "context_length_exceeded", "messages"), errors.Unsupported, {"kind": "context"}),
    ("openai", 404, openai("The model `x` does not exist or you do not have access to it.", "invalid_request_error",
     "model_not_found"), errors.Unsupported, {"kind": "model", "status": 404}),
    ("openai", 401, openai("Incorrect API key provided: sk-cana********cdef.", "invalid_request_error", "invalid_api_key"),
     errors.KeyRejected, {"status": 401, "variable": "THE_KEY"}),
    ("openai", 403, openai("Country, region, or territory not supported", "request_forbidden",
     "unsupported_country_region_territory"), errors.Forbidden, {"status": 403}),
    ("openai", 400, openai("Invalid type for 'temperature'", "invalid_request_error", "invalid_type", "temperature"),
     errors.RequestRejected, {"field": "temperature"}),
    ("openai", 400, openai("Your request was rejected by the safety system", "invalid_request_error",
     "content_policy_violation"), errors.Moderated, {"status": 400}),
    ("openai", 400, openai("filtered", None, "content_filter"), errors.Moderated, {}),
    ("openai", 400, openai("Unsupported value: 'stream' does not support streaming: your organization must be verified to"
     " stream this model.", "invalid_request_error", "unsupported_value", "stream"), errors.Unsupported, {"kind": "stream"}),
    ("openai", 500, openai("The server had an error", "server_error"), errors.ApiError, {"status": 500}),
    ("openai", 503, openai("overloaded", "server_error"), errors.ApiError, {"status": 503}),
    ("openai", 408, openai("timed out"), errors.ApiError, {"status": 408}),
    ("openai", 409, openai("conflict"), errors.RequestRejected, {"status": 409}),
    ("openai", 413, openai("too big"), errors.RequestRejected, {"status": 413}),
    ("openai", 422, {"detail": [{"loc": ["body", "messages", 0], "msg": "field required"}]},
     errors.RequestRejected, {"field": "messages.0", "detail": "field required"}),
    ("openai", 404, openai("Invalid URL (POST /v1/v1/chat/completions)", "invalid_request_error"), errors.ParseError, {}),
    # whoever speaks the form: Google's list, bare messages
    ("openai", 429, [{"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED",
     "details": [{"@type": "RetryInfo", "retryDelay": "19s"}]}}], errors.RateLimited, {"retry_after": 19.0}),
    ("openai", 400, [{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}],
     errors.KeyRejected, {}),
    ("openai", 503, {"message": "no healthy upstream"}, errors.ApiError, {"detail": "no healthy upstream"}),
    # llama.cpp
    ("local", 400, {"error": {"code": 400, "message": "request (5008 tokens) exceeds the available context size (2048"
     " tokens), try increasing it", "type": "exceed_context_size_error", "n_prompt_tokens": 5008, "n_ctx": 2048}},
     errors.Unsupported, {"kind": "context"}),
    ("local", 401, {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}},
     errors.KeyRejected, {}),
    ("local", 503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
     errors.ApiError, {"status": 503}),
    ("local", 500, {"error": {"code": 500, "message": "image input is not supported - hint: if this is unexpected, you may"
     " need to provide the mmproj", "type": "server_error"}}, errors.Unsupported, {"kind": "vision"}),
    ("local", 500, {"error": {"code": 500, "message": "tools param requires --jinja flag", "type": "server_error"}},
     errors.Unsupported, {"kind": "tools"}),
    ("local", 404, {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}},
     errors.ParseError, {}),
    # vLLM
    ("local", 404, {"object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError", "param": None,
     "code": 404}, errors.Unsupported, {"kind": "model"}),
    ("local", 400, {"object": "error", "message": "This model's maximum context length is 4096 tokens. However, you"
     " requested 9000 tokens", "type": "BadRequestError", "code": 400}, errors.Unsupported, {"kind": "context"}),
    ("local", 400, {"error": {"message": '"auto" tool choice requires --enable-auto-tool-choice', "type":
     "BadRequestError", "code": 400}}, errors.Unsupported, {"kind": "tools"}),
    ("local", 404, {"detail": "Not Found"}, errors.ParseError, {}),
    # Ollama
    ("local", 404, {"error": {"message": 'model "x" not found, try pulling it first', "type": "api_error"}},
     errors.Unsupported, {"kind": "model"}),
    ("local", 400, {"error": "registry.ollama.ai/library/gemma does not support tools"},
     errors.Unsupported, {"kind": "tools"}),
    # OpenRouter
    ("openrouter", 402, openrouter(402, "Insufficient credits", metadata={"error_type": "payment_required"}),
     errors.QuotaSpent, {"status": 402}),
    ("openrouter", 402, openrouter(402, "busy", metadata={"limit_source": "openrouter_in_flight_budget"}),
     errors.RateLimited, {}),
    ("openrouter", 403, openrouter(403, "Your input was flagged", metadata={"reasons": ["violence"], "flagged_input":
     "…", "provider_name": "OpenAI"}), errors.Moderated, {"detail": "OpenAI: Your input was flagged (violence)"}),
    ("openrouter", 403, openrouter(403, "Key limit exceeded"), errors.QuotaSpent, {}),
    ("openrouter", 429, openrouter(429, "Provider returned error", metadata={"provider_name": "Acme", "raw":
     '{"error":{"message":"slow down, try again in 250ms","type":"rate_limit"}}'}),
     errors.RateLimited, {"retry_after": 0.25, "detail": "Acme: slow down, try again in 250ms"}),
    ("openrouter", 400, openrouter(400, "Provider returned error", metadata={"provider_name": "Anthropic", "raw":
     json.dumps(anthropic("invalid_request_error", "prompt is too long: 3 tokens > 2 maximum"))}),
     errors.Unsupported, {"kind": "context"}),
    ("openrouter", 400, openrouter(400, "x/y is not a valid model ID"), errors.Unsupported, {"kind": "model"}),
    ("openrouter", 404, openrouter(404, "No endpoints found for x/y."), errors.Unsupported, {"kind": "model"}),
    ("openrouter", 404, openrouter(404, "No endpoints found that support tool use."), errors.Unsupported, {"kind": "tools"}),
    ("openrouter", 404, openrouter(404, "No endpoints found that support image input"),
     errors.Unsupported, {"kind": "vision"}),
    ("openrouter", 502, openrouter(502, "down", metadata={"error_type": "provider_unavailable"}),
     errors.ApiError, {"status": 502}),
    ("openrouter", 503, openrouter(503, "nobody", availability={"code": "all_ignored", "retryable": False}),
     errors.Unsupported, {"kind": "model"}),
    ("openrouter", 503, openrouter(503, "busy", availability={"code": "overloaded", "retryable": True}),
     errors.ApiError, {"status": 503}),
    ("openrouter", 408, openrouter(408, "timed out"), errors.ApiError, {"status": 408}),
    # Anthropic
    ("anthropic", 400, anthropic("invalid_request_error", "messages.0.content: Input should be a valid list"),
     errors.RequestRejected, {"field": "messages.0.content"}),
    ("anthropic", 400, anthropic("invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum"),
     errors.Unsupported, {"kind": "context"}),
    ("anthropic", 400, anthropic("invalid_request_error", "input length and `max_tokens` exceed context limit: 1 + 2 > 3"),
     errors.Unsupported, {"kind": "context"}),
    ("anthropic", 400, anthropic("invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
     errors.QuotaSpent, {"status": 400}),
    ("anthropic", 400, anthropic("invalid_request_error", "You have reached your specified API usage limits. You will"
     " regain access on 2026-12-01."), errors.QuotaSpent, {}),
    ("anthropic", 401, anthropic("authentication_error", "invalid x-api-key"), errors.KeyRejected, {"status": 401}),
    ("anthropic", 402, anthropic("billing_error", "pay"), errors.QuotaSpent, {"status": 402}),
    ("anthropic", 403, anthropic("permission_error", "no"), errors.KeyRejected, {"status": 403}),
    ("anthropic", 404, anthropic("not_found_error", "model: claude-nope"), errors.Unsupported, {"kind": "model"}),
    ("anthropic", 409, anthropic("conflict_error", "conflict"), errors.RequestRejected, {"status": 409}),
    ("anthropic", 413, anthropic("request_too_large", "too large"), errors.RequestRejected, {"status": 413}),
    ("anthropic", 429, anthropic("rate_limit_error", "slow"), errors.RateLimited, {"retry_after": None}),
    ("anthropic", 429, anthropic("rate_limit_error", "blocked", details={"error_code": "enforced_spend_limit_reached"}),
     errors.QuotaSpent, {"status": 429}),
    ("anthropic", 500, anthropic("api_error", "Internal server error"), errors.ApiError, {"status": 500}),
    ("anthropic", 504, anthropic("timeout_error", "late"), errors.ApiError, {"status": 504}),
    ("anthropic", 529, anthropic("overloaded_error", "Overloaded"), errors.ApiError, {"status": 529}),
    # a spent balance, in the words of each vendor, under any status
    ("openai", 500, openai("insufficient balance (1008)", "insufficient_balance_error"), errors.QuotaSpent, {"status": 500}),
    ("openai", 200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, errors.QuotaSpent, {}),
    ("openai", 429, {"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}}, errors.QuotaSpent, {"status": 429}),
    ("anthropic", 429, {"type": "error", "error": {"type": "1113", "message": "Insufficient balance or no resource package."
     " Please recharge."}}, errors.QuotaSpent, {}),
    ("openai", 200, {"code": "1113", "msg": "x"}, errors.QuotaSpent, {}),
    ("openai", 429, openai("Your account is suspended due to insufficient balance, please recharge your account",
     "exceeded_current_quota_error"), errors.QuotaSpent, {}),
    ("openai", 403, {"code": "The caller does not have permission to execute the specified operation", "error": "Your newly"
     " created team doesn't have any credits or licenses yet."}, errors.QuotaSpent, {"status": 403}),
    ("openai", 429, {"code": "Some resource has been exhausted", "error": "Your team has either used all available credits or"
     " reached its monthly spending limit."}, errors.QuotaSpent, {}),
    ("openai", 403, {"code": 30001, "message": "Sorry, your account balance is insufficient"}, errors.QuotaSpent, {}),
    ("openai", 400, {"code": "Arrearage", "message": "Access denied, please make sure your account is in good standing."},
     errors.QuotaSpent, {}),
    ("openai", 403, {"error": {"code": "AccountOverdueError", "message": "overdue balance"}}, errors.QuotaSpent, {}),
    ("openai", 400, openai("Budget has been exceeded!", "budget_exceeded", "400"), errors.QuotaSpent, {}),
    ("openai", 403, openai("quota exceeded for this month"), errors.QuotaSpent, {}),
    # the same words under 429 may mean a minute's limit
    ("openai", 429, openai("quota exceeded"), errors.RateLimited, {}),
    ("openai", 429, [{"error": {"code": 429, "message": "You exceeded your current quota, please check your plan and billing"
     " details. Please retry in 36.8s.", "status": "RESOURCE_EXHAUSTED"}}], errors.RateLimited, {"retry_after": 36.8}),
    ("openrouter", 429, openrouter(429, "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 a day"),
     errors.RateLimited, {}),
    # not the key: a country, a network, a firewall, a policy
    ("openai", 403, b"error code: 1010", errors.Forbidden, {"status": 403}),
    ("openai", 429, b"error code: 1015", errors.RateLimited, {}),
    ("anthropic", 403, {"error": {"type": "forbidden", "message": "Request not allowed"}}, errors.Forbidden, {}),
    ("openai", 403, openai("Access denied. Please check your network settings."), errors.Forbidden, {}),
    ("openai", 400, [{"error": {"code": 400, "message": "User location is not supported for the API use.", "status":
     "FAILED_PRECONDITION"}}], errors.Forbidden, {}),
    ("openai", 403, openai("This service is not available in your country"), errors.Forbidden, {}),
    ("openai", 401, openai("Your IP is not authorized", "invalid_request_error", "ip_not_authorized"), errors.Forbidden, {}),
    ("openai", 403, openai("blocked by your organization's policy", None, "model_permission_blocked_org"), errors.Forbidden, {}),
    ("openai", 403, openai("blocked by the Web Application Firewall"), errors.Forbidden, {}),
    ("openai", 403, openai("You are not allowed to use this project"), errors.KeyRejected, {}),
    # the key, the model, the request
    ("openai", 400, openai("API key expired. Please renew the API key."), errors.KeyRejected, {"status": 400}),
    ("openai", 200, {"data": {"error": {"message": "invalid api key"}}}, errors.KeyRejected, {}),
    ("openai", 200, {"base_resp": {"status_code": 2049, "status_msg": "invalid api key"}}, errors.KeyRejected, {}),
    ("local", 400, openai("No models loaded. Please load a model in the developer page."), errors.Unsupported, {"kind": "model"}),
    ("openai", 400, openai("This model's maximum prompt length is 131072 but the request contains 200000 tokens."),
     errors.Unsupported, {"kind": "context"}),
    ("openai", 400, openai("Unknown parameter: 'moderation_level'.", "invalid_request_error", "unknown_parameter"),
     errors.RequestRejected, {"field": "moderation_level"}),
    ("openai", 400, openai("Unrecognized request argument supplied: policy_mode"), errors.RequestRejected,
     {"field": "policy_mode"}),
    ("openai", 400, openai("Content Exists Risk", "invalid_request_error"), errors.Moderated, {}),
    # hints in words, and in headers that OpenRouter copies into the body
    ("openai", 429, openai("Please retry after 17 seconds."), errors.RateLimited, {"retry_after": 17.0}),
    ("openai", 500, openai("Overloaded. Try again in about 2 minutes"), errors.ApiError, {"retry_after": 120.0}),
    ("openai", 429, openai("retry-after: 5"), errors.RateLimited, {"retry_after": 5.0}),
    ("openrouter", 429, openrouter(429, "slow", metadata={"headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset":
     "1790000012000"}}), errors.RateLimited, {"retry_after": 12.0}),
    # no JSON
    ("openai", 502, HTML, errors.ApiError, {"status": 502, "detail": ""}),
    ("openai", 429, HTML, errors.RateLimited, {}),
    ("openai", 413, HTML, errors.RequestRejected, {}),
    ("openai", 403, HTML, errors.ParseError, {}),
    ("openai", 404, b"404 page not found", errors.ParseError, {}),
    ("anthropic", 401, b"", errors.KeyRejected, {}),
    ("anthropic", 503, b"\xff\xfe", errors.ApiError, {}),
    ("openai", 400, b'{"error": {"mess', errors.RequestRejected, {}),
    ("local", 407, b"", errors.HttpError, {"kind": "proxy"}),
    # Words of others, seen in their documents and reports
    ("openai", 403, openai("Public access is disabled. Please configure private endpoint.", code="403"),
     errors.Forbidden, {}),
    ("openai", 400, {"__type": "com.amazon#ThrottlingException", "message": "Too many tokens, please wait."},
     errors.RateLimited, {}),
    ("openai", 403, {"message": "You don't have access to the model with the specified model ID."},
     errors.Unsupported, {"kind": "model"}),
    ("openai", 400, {"message": "The provided model identifier is invalid."}, errors.Unsupported, {"kind": "model"}),
    ("openai", 403, openai("This API method requires billing to be enabled."), errors.QuotaSpent, {}),
    ("openai", 400, openai("Organization has been restricted. Please reach out to support",
     code="organization_restricted"), errors.KeyRejected, {}),
    ("anthropic", 400, anthropic("invalid_request_error", "This organization has been disabled."),
     errors.KeyRejected, {}),
    ("openai", 422, openai("`inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000 `inputs` tokens"),
     errors.Unsupported, {"kind": "context"}),
    ("openai", 413, {"code": 20042, "message": "length of prompt_tokens (9) must be less than max_seq_len (8)."},
     errors.Unsupported, {"kind": "context"}),
    ("openai", 400, openai("Range of input length should be [1, 98304]", code="invalid_parameter_error"),
     errors.Unsupported, {"kind": "context"}),
    ("local", 400, openai("The decoder prompt (length 9) is longer than the maximum model length of 8."),
     errors.Unsupported, {"kind": "context"}),
    ("openai", 413, openai("Request body too large for gpt-x model. Max size: 8000 tokens.",
     code="tokens_limit_reached"), errors.Unsupported, {"kind": "context"}),
    ("openai", 403, {"code": 30003, "message": "Model disabled.", "data": None}, errors.Unsupported, {"kind": "model"}),
    ("openai", 403, openai("Access to model denied.", code="Model.AccessDenied"), errors.Unsupported, {}),
    ("openai", 403, {"error": "Access to model x is restricted and you are not in the authorized list."},
     errors.Unsupported, {}),
    ("openai", 404, openai("Your account has not activated the model y.", code="ModelNotOpen"), errors.Unsupported, {}),
    ("openai", 400, {"error": "The requested model 'x' is not supported by any provider you have enabled."},
     errors.Unsupported, {"kind": "model"}),
    ("openai", 400, openai("The input text may contain sensitive information.",
     code="InputTextSensitiveContentDetected"), errors.Moderated, {}),
    ("openai", 403, {"code": "permission-denied", "error": "Content violates usage guidelines. Failed check: X"},
     errors.Moderated, {}),
    ("openai", 503, {"error": "Model x is currently loading", "estimated_time": 20.0},
     errors.ApiError, {"retry_after": 20.0}),
    ("openai", 429, {"error": "Too many requests. Please retry after 20 seconds."},
     errors.RateLimited, {"retry_after": 20.0}),
    ("openai", 429, {"detail": "slow down, try again in 7m12.5s"}, errors.RateLimited, {"retry_after": 432.5}),
    ("local", 400, {"error": "The model has crashed without additional information. (Exit code: 6)"},
     errors.ApiError, {}),
    ("local", 424, {"error": "Request failed during generation: CUDA out of memory"}, errors.ApiError, {}),
    ("openai", 498, openai("Flex tier capacity exceeded"), errors.ApiError, {}),
    ("openai", 498, {"message": "invalid token"}, errors.KeyRejected, {}),
    ("openai", 499, openai("The operation was cancelled."), errors.ApiError, {}),
    ("openai", 400, openai("ExceededBudget: User=x over budget. Spend=1, Budget=0.5"), errors.QuotaSpent, {}),
    ("openai", 200, {"error_code": 18, "error_msg": "Open api qps request limit reached"}, errors.RateLimited, {}),
    ("openai", 200, {"error": {"message": "Invalid API key"}}, errors.KeyRejected, {"status": 401}),
    ("openai", 200, {"error": {"message": "too busy"}}, errors.ApiError, {"status": 500}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "status", "body", "expected", "facts"), TABLE)
def test_each_error_body_becomes_its_class(
    kind: str, status: int, body: Any, expected: type[errors.ProviderError], facts: dict[str, Any]
) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    if status == 200:
        with pytest.raises(errors.ProviderError) as caught:
            FORMATS[kind].answer(MODEL, raw)
        error = caught.value
    else:
        error = FORMATS[kind].error(MODEL, status, None, raw)
    assert type(error) is expected
    assert {name: error.facts[name] for name in facts} == facts
    assert error.message
    assert error.hint


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 409, 413, 422, 425, 429, 500, 502, 503, 504, 529])
def test_the_bare_status_decides_where_the_body_says_nothing(kind: str, status: int) -> None:
    expected: dict[int, type[errors.ProviderError]] = {
        401: errors.KeyRejected, 402: errors.QuotaSpent, 403: errors.KeyRejected, 404: errors.ParseError,
        408: errors.ApiError, 425: errors.ApiError, 429: errors.RateLimited,
    }  # fmt: skip
    error = FORMATS[kind].error(MODEL, status, 3.0, b"{}")
    assert type(error) is expected.get(status, errors.ApiError if status >= 500 else errors.RequestRejected)
    if status in (408, 429) or status >= 500:
        assert error.facts["retry_after"] == 3.0


@pytest.mark.parametrize(
    ("kind", "event", "expected", "status"),
    [
        ("openai", openai("slow", "requests", "rate_limit_exceeded"), errors.RateLimited, None),
        ("openai", openai("no money", "insufficient_quota"), errors.QuotaSpent, 429),
        ("openai", openai("broken", "server_error"), errors.ApiError, 500),
        ("openai", {"error": "broken"}, errors.ApiError, 500),
        ("openai", {"error": None, "detail": "broken"}, errors.ApiError, 500),
        ("local", {"object": "error", "message": "bad", "type": "BadRequestError", "code": 400}, errors.RequestRejected, 400),
        ("local", {"error": {"code": 500, "message": "compute error", "type": "server_error"}}, errors.ApiError, 500),
        ("openrouter", {"id": "gen-1", "error": {"code": 502, "message": "gone"}, "choices": [{"index": 0, "delta":
         {"content": ""}, "finish_reason": "error"}]}, errors.ApiError, 502),
        ("openrouter", {"id": "gen-1", "choices": [{"error": {"code": 429, "message": "slow"}, "finish_reason": "error"}]},
         errors.RateLimited, None),
        ("openrouter", {"error": {"code": "server_error", "message": "gone"}}, errors.ApiError, 500),
        ("anthropic", anthropic("overloaded_error", "Overloaded"), errors.ApiError, 529),
        ("anthropic", anthropic("rate_limit_error", "slow"), errors.RateLimited, None),
        ("anthropic", anthropic("invalid_request_error", "no"), errors.RequestRejected, 400),
    ],
)  # fmt: skip
def test_an_error_under_status_200_is_the_same_error_whole_or_streamed(
    kind: str, event: dict[str, Any], expected: type[errors.ProviderError], status: int | None
) -> None:
    raw = json.dumps(event).encode()
    with pytest.raises(errors.ProviderError) as whole:
        FORMATS[kind].answer(MODEL, raw)
    with pytest.raises(errors.ProviderError) as streamed:
        FORMATS[kind].reader(MODEL).feed("error" if kind == "anthropic" else "message", raw)
    assert type(whole.value) is type(streamed.value) is expected
    if status is not None:
        assert whole.value.facts["status"] == status
    assert whole.value.facts == streamed.value.facts


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("echo", [KEY, "sk-cana********cdef", "sk-proj-abcdefghijkl", f"Bearer {KEY}!"])
def test_a_key_that_a_provider_echoes_is_not_repeated_even_in_part(kind: str, echo: str) -> None:
    for status in (400, 401, 429, 500):
        error = FORMATS[kind].error(MODEL, status, None, json.dumps(openai(f"Bad key {echo} given")).encode())
        told = json.dumps(error.to_wire())
        assert KEY not in told
        assert "cdef" not in told
        assert "abcdefghijkl" not in told


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["error", "message", "code", "type", "detail", "metadata", "raw",
                      "object", "availability", "details", "param", "choices", "loc", "msg"]), inner, max_size=4),
                    max_leaves=12),
       st.sampled_from(sorted(FORMATS)), st.sampled_from([400, 403, 404, 429, 503]))  # fmt: skip
def test_no_json_body_makes_classification_fail(body: Any, kind: str, status: int) -> None:
    raw = json.dumps(body).encode()
    assert isinstance(FORMATS[kind].error(MODEL, status, None, raw), errors.ProviderError)
    with pytest.raises(errors.ProviderError):
        FORMATS[kind].answer(MODEL, raw)


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(sorted(FORMATS)), st.integers(400, 599))
def test_no_bytes_make_classification_fail(body: bytes, kind: str, status: int) -> None:
    assert isinstance(FORMATS[kind].error(MODEL, status, None, body), errors.ProviderError)


def test_every_phrase_says_whose_words_it_is_and_is_reached() -> None:
    assert all(phrase.seen for phrase in classify.phrases())
    words = [(phrase.word, phrase.statuses) for phrase in classify.phrases() if phrase.word]
    assert len(words) == len(set(words))


def test_the_providers_words_are_one_short_line() -> None:
    assert classify.clip("a\n  b\t" + "x" * 1000).startswith("a b xxx")
    assert len(classify.clip("x" * 1000)) == classify.MAX_DETAIL
