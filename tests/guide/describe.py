"""The table of endpoints as an OpenAPI 3.1 document."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from tundra_nb._version import API
from tundra_nb.errors import every_error
from tundra_nb.protocol.endpoint import Endpoint
from tundra_nb.protocol.words import JSON

ERROR = {
    "type": "object",
    "description": "What every error answer holds.",
    "required": ["code", "message", "reason", "hint", "retryable", "retry_after", "guide"],
    "properties": {
        "code": {"type": "string", "enum": sorted({cls.code for cls in every_error()})},
        "type": {"type": "string", "enum": sorted({cls.__name__ for cls in every_error()})},
        "message": {"type": "string"},
        "reason": {"type": "string"},
        "hint": {"type": "string"},
        "retryable": {"type": "boolean"},
        "retry_after": {"type": ["number", "null"]},
        "severity": {"type": "string"},
        "guide": {"type": "string"},
        "facts": {"type": "object"},
    },
}
_AS_TEXT = {"id": "digits: JavaScript rounds large integers", "date-time": "ISO 8601, or microseconds since 1970"}


def describe(endpoints: Mapping[str, Endpoint]) -> dict[str, Any]:
    """All endpoints but WebSockets, which OpenAPI cannot say."""
    spoken = {name: endpoint for name, endpoint in endpoints.items() if endpoint.method != "WS"}
    bodies = [(name, endpoint.body) for name, endpoint in spoken.items() if endpoint.body is not None]
    answers = [(name, endpoint.answer) for name, endpoint in spoken.items() if endpoint.answer is not None]
    types = [form for _, form in (*bodies, *answers)]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    taken = dict(
        zip([f"body {name}" for name, _ in bodies] + [f"answer {name}" for name, _ in answers], schemas, strict=True)
    )
    paths: dict[str, dict[str, Any]] = {}
    for name, endpoint in spoken.items():
        paths.setdefault(endpoint.template, {})[endpoint.method.lower()] = _operation(name, endpoint, taken)
    found = {
        "openapi": "3.1.0",
        "info": {
            "title": "tundra daemon",
            "version": str(API),
            "description": "On the daemon's Unix socket, and under /tundra of a Jupyter server, behind its token.",
        },
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": dict(sorted({**components, "Error": ERROR}.items()))},
    }
    return _plain(found)  # type: ignore[no-any-return]


def _operation(name: str, endpoint: Endpoint, taken: Mapping[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "operationId": name,
        "tags": [name.partition(".")[0]],
        "summary": endpoint.summary,
        "parameters": [
            *(
                {"name": part, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
                for part in endpoint.parts
            ),
            *_parameters(endpoint),
        ],
        "responses": {
            str(endpoint.status): {"description": "as asked", "content": _content(name, endpoint, taken)},
            "default": {
                "description": "an error",
                "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    if f"body {name}" in taken:
        told["requestBody"] = {"required": True, "content": {JSON: {"schema": taken[f"body {name}"]}}}
    return told


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    if endpoint.query is None:
        return []
    _, components = msgspec.json.schema_components([endpoint.query])
    schema = components[endpoint.query.__name__]
    documents = _field_documents(endpoint.query)
    found = []
    for field in msgspec.structs.fields(endpoint.query):
        entry: dict[str, Any] = {
            "name": field.encode_name,
            "in": "query",
            "schema": schema["properties"][field.encode_name],
        }
        if field.name in documents:
            entry["description"] = documents[field.name]
        found.append(entry)
    return found


def _content(name: str, endpoint: Endpoint, taken: Mapping[str, Any]) -> dict[str, Any]:
    return {
        media: {"schema": taken[f"answer {name}"]} if media == JSON and f"answer {name}" in taken else {}
        for media in endpoint.media
    }


def _field_documents(form: type) -> dict[str, str]:
    """The text below each field, which Python itself does not keep."""
    found = re.findall(r'^    (\w+):[^\n]*\n    """(.*?)"""', inspect.getsource(form), re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for name, text in found}


def _plain(schema: Any) -> Any:
    """Ids and times as they stand in JSON, which is not as they stand in a struct."""
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "integer" and schema.get("format") in _AS_TEXT:
        return {"type": ["string", "integer"], "description": _AS_TEXT[schema["format"]]}
    return {name: _plain(value) for name, value in schema.items()}
