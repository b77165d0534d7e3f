"""Names of the OpenTelemetry conventions for generative AI, in one place.

The conventions had their first release of their own as 0.1.0, and renamed metrics and one usage attribute with it; no
package on PyPI has its constants. `OF_VERSION` has the families that can be written, `LATEST` is the usual one.
"""

from __future__ import annotations

import msgspec


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """What one version of the conventions calls things."""

    version: str
    duration: str
    """Histogram of the time of a call, in seconds."""
    first_chunk: str
    tokens: dict[str, str] = {}
    """Counters of tokens, by the column that has their number."""
    usage_sizes: str = ""
    """Histogram of the tokens of a call, by `gen_ai.token.type`; its buckets are `TOKEN_BUCKETS`."""


V0_1 = Names(
    version="0.1.0",
    duration="gen_ai.client.inference.duration",
    first_chunk="gen_ai.client.inference.time_to_first_chunk",
    tokens={
        "input_tokens": "gen_ai.client.inference.usage.input_tokens",
        "output_tokens": "gen_ai.client.inference.usage.output_tokens",
        "cached_tokens": "gen_ai.client.inference.usage.cache_read.input_tokens",
        "reasoning_tokens": "gen_ai.client.inference.usage.reasoning.output_tokens",
    },
)
V1_41 = Names(
    version="1.41",
    duration="gen_ai.client.operation.duration",
    first_chunk="gen_ai.client.operation.time_to_first_chunk",
    usage_sizes="gen_ai.client.token.usage",
)
"""The last release of the general conventions that had names for generative AI. Attributes of spans that are written
here were called the same.
"""
OF_VERSION = {names.version: names for names in (V0_1, V1_41)}
LATEST = V0_1

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
RESPONSE_ID = "gen_ai.response.id"
STREAM = "gen_ai.request.stream"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
USAGE_INPUT = "gen_ai.usage.input_tokens"
USAGE_OUTPUT = "gen_ai.usage.output_tokens"
USAGE_CACHED = "gen_ai.usage.cache_read.input_tokens"
USAGE_REASONING = "gen_ai.usage.reasoning.output_tokens"
ERROR_TYPE = "error.type"
CHAT = "chat"
STATUS = "http.response.status_code"

PROFILE = "tundra.profile"
OUTCOME = "tundra.outcome"
CODE = "tundra.code"
REASON = "tundra.reason"
ATTEMPTS = "tundra.attempts"
CAUSE = "tundra.cause"
"""Why an attempt was made: first, retry, failover, probe."""
WAIT_REASON = "tundra.wait.reason"
COST = "tundra.cost_usd"
USER = "tundra.user"
CALLER = "tundra.caller"
OPERATION_ID = "tundra.operation_id"
ATTEMPT_ID = "tundra.attempt_id"

# Names that spans of others have, the newest first: OpenTelemetry's of today and of before, then OpenInference's.
INFERENCES = frozenset({"chat", "text_completion", "generate_content", "embeddings", "completion", "responses"})
"""Names of operations that are calls to a model."""
PROVIDERS = (PROVIDER, "gen_ai.system", "llm.provider", "llm.system", "llm.vendor")
REQUEST_MODELS = (REQUEST_MODEL, "llm.request.model", "llm.model_name", "embedding.model_name")
RESPONSE_MODELS = (RESPONSE_MODEL, "llm.response.model", "llm.model_name")
INPUT_TOKENS = (USAGE_INPUT, "gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens", "llm.token_count.prompt")
OUTPUT_TOKENS = (
    USAGE_OUTPUT,
    "gen_ai.usage.completion_tokens",
    "llm.usage.completion_tokens",
    "llm.token_count.completion",
)
CACHED_TOKENS = (
    USAGE_CACHED,
    "gen_ai.usage.cache_read_input_tokens",
    "llm.token_count.prompt_details.cache_read",
)
REASONING_TOKENS = (USAGE_REASONING, "llm.token_count.completion_details.reasoning")
COSTS = (COST, "gen_ai.usage.cost", "llm.cost.total", "llm.usage.total_cost")
FINISHES = (FINISH_REASONS, "llm.response.finish_reason", "llm.response.stop_reason")
FIRST_CHUNKS = (FIRST_CHUNK, "gen_ai.server.time_to_first_token")
RESPONSE_IDS = (RESPONSE_ID, "llm.response.id")
STATUSES = (STATUS, "http.status_code")
ERROR_TYPES = (ERROR_TYPE, "exception.type")
USERS = (USER, "user.id", "enduser.id")
OPENINFERENCE_KIND = ("openinference.span.kind",)

DURATION_BUCKETS = tuple(0.01 * 2**n for n in range(14))
"""0.01 … 81.92 s, as the conventions have them. A call of ours may last 900 s: see `LONG_BUCKETS`."""
LONG_BUCKETS = (*DURATION_BUCKETS, 160.0, 320.0, 600.0, 900.0)
"""For metrics of our own: the longest call ends at 900 s."""
TOKEN_BUCKETS = tuple(4.0**n for n in range(14))
"""1 … 67,108,864 tokens, as the conventions have them."""


def prometheus(name: str, unit: str = "") -> str:
    """The name of a metric as Prometheus spells it."""
    return name.replace(".", "_") + (f"_{unit}" if unit else "")
