"""`/metrics` of the shipped daemon, read as Prometheus reads it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

import tundra_nb
from tests.conftest import ROOT, Home, wait_until
from tests.wiring.otlp import Receiver
from tundra_nb import paths
from tundra_nb.errors import TundraError
from tundra_nb.runtime.telemetry.metrics import MAX_SETS, OTHER, Family
from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process

KEY = "canary-metric-Zq9x7e0123"
SETTINGS = """
[router]
backoff_seconds = 0.01
[[profile]]
name = "first"
kind = "openai"
base_url = "{url}/v1"
model = "scripted-1"
api_key_env = "FIRST_API_KEY"
[[profile]]
name = "second"
kind = "anthropic"
base_url = "{url}"
model = "scripted-2"
priority = 1
"""


@pytest.fixture
def page(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A daemon that has answered, failed over and failed."""
    monkeypatch.setenv("FIRST_API_KEY", KEY)
    with scripted_process() as provider:
        home.write_settings(SETTINGS.format(url=provider.url))
        ask_in_every_way(provider)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(paths.find().socket)), base_url="http://d") as made:
            yield made


def ask_in_every_way(provider: ScriptedProcess) -> None:
    with tundra_nb.connect() as client:
        client.ask("hi")
        "".join(client.ask("hi", stream=True))
        provider.script("/v1/chat/completions", *[ScriptedStep(status=529, text=f"busy {KEY}")] * 3)
        client.ask("fails over", model=f"gpt-{KEY}")
        provider.script("/v1/chat/completions", ScriptedStep(status=400, text="bad"))
        with pytest.raises(TundraError):
            client.ask("hi", profile="first", failover=False)


@pytest.mark.part("doltlite")
def test_prometheus_reads_what_happened_and_no_key(page: httpx.Client, tmp_path: Path) -> None:
    told = page.get("/metrics")
    assert told.headers["content-type"].startswith("text/plain")
    assert KEY not in told.text
    found = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in plain_text(told.text)
        for sample in family.samples
    }

    def total(name: str, **labels: str) -> float:
        return sum(v for (n, pairs), v in found.items() if n == name and set(labels.items()) <= set(pairs))

    assert total("tundra_operations_total") == 4
    assert total("tundra_operations_total", outcome="ok", profile="second") == 1
    assert total("tundra_attempts_total", profile="first", outcome="error") == 4
    assert total("gen_ai_client_inference_duration_seconds_count", gen_ai_provider_name="anthropic") == 1
    assert total("gen_ai_client_inference_usage_output_tokens_total") > 0
    assert total("tundra_breaker_state", profile="first", state="closed") == 1
    assert total("tundra_store_ready") == 1
    assert total("tundra_operation_duration_seconds_bucket", le="900.0", outcome="ok") == 3
    assert total("tundra_operation_duration_seconds_bucket", le="+Inf", outcome="ok") == 3
    check_with_promtool(told.text, tmp_path)


@pytest.mark.part("doltlite")
def test_open_metrics_points_from_a_bucket_to_a_call(page: httpx.Client) -> None:
    told = page.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"})
    assert told.headers["content-type"].startswith("application/openmetrics-text")
    families = {family.name: family for family in open_metrics(told.text)}
    buckets = families["tundra_operation_duration_seconds"].samples
    pointers = [sample.exemplar.labels["operation_id"] for sample in buckets if sample.exemplar]
    with tundra_nb.connect() as client:
        assert set(pointers) <= set(client.calls().operation_id.astype(str))
    assert pointers
    by_set: dict[str, list[float]] = {}
    for sample in buckets:
        if sample.name.endswith("_bucket"):
            by_set.setdefault(json.dumps([sample.labels["outcome"], sample.labels["profile"]]), []).append(sample.value)
    assert all(counts == sorted(counts) for counts in by_set.values()), "buckets are cumulated"


@pytest.mark.part("doltlite")
def test_metrics_have_the_names_of_the_older_conventions_where_the_settings_say_so(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FIRST_API_KEY", KEY)
    with scripted_process() as provider:
        home.write_settings(SETTINGS.format(url=provider.url) + '[otel]\nnames = "1.41"\n')
        ask_in_every_way(provider)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(paths.find().socket)), base_url="http://d") as client:
            told = client.get("/metrics").text
    families = {family.name: family for family in plain_text(told)}
    usage = families["gen_ai_client_token_usage"].samples
    counted = {pairs["gen_ai_token_type"]: value for name, pairs, value, *_ in usage if name.endswith("_count")}
    assert set(counted) == {"input", "output"}
    assert all(counted.values())
    assert {pairs["le"] for name, pairs, *_ in usage if name.endswith("_bucket")} >= {"1.0", "4.0", "6.7108864e+07"}
    assert "gen_ai_client_operation_duration_seconds" in families
    assert "gen_ai_client_operation_time_to_first_chunk_seconds" in families
    assert not [name for name in families if name.startswith("gen_ai_client_inference")]
    check_with_promtool(told, tmp_path)


@pytest.mark.part("doltlite")
def test_what_is_lost_for_good_is_counted(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of a log that cannot be written, traces that a collector refuses; nothing of it stops a call."""
    monkeypatch.setenv("FIRST_API_KEY", KEY)
    receiver = Receiver()
    receiver.status = 400
    try:
        with scripted_process() as provider:
            home.write_settings(SETTINGS.format(url=provider.url) + f'[otel]\nendpoint = "{receiver.endpoint}"\n')
            with tundra_nb.connect() as client:
                client.ask("hi")
                transport = httpx.HTTPTransport(uds=str(paths.find().socket))
                with httpx.Client(transport=transport, base_url="http://d") as page:
                    wait_until(lambda: lost(page) == {"log_lines": 0, "journal_lines": 0, "rows": 0, "traces": 1}, 30)
                    shutil.rmtree(home.data_dir / "logs")
                    (home.data_dir / "logs").write_text("in the way")
                    provider.script("/v1/chat/completions", *[ScriptedStep(status=529, text="busy")] * 3)
                    client.ask("fails over")
                    wait_until(lambda: lost(page)["log_lines"] >= 3 and lost(page)["traces"] == 2, 30)
                    assert any("log is not written" in one["message"] for one in client.status()["problems"])
    finally:
        receiver.close()


def lost(page: httpx.Client) -> dict[str, float]:
    families = {family.name: family for family in plain_text(page.get("/metrics").text)}
    return {sample.labels["what"]: sample.value for sample in families["tundra_lost"].samples}


def test_a_label_is_short_and_can_be_printed() -> None:
    """Names of models come from outside: one of 5,000 letters would be in each line of a histogram."""
    family = Family("x", "x", ("model",), (1.0,))
    for name in ("m" * 5000, "m" * 6000, "a\x1b[31m\nb\x00\ud800"):
        family.add((name,))
        family.observe((name,), 0.5)
    assert family.values == {("m" * 128,): 2.0, ("a\ufffd[31m\ufffdb\ufffd\ufffd",): 1.0}
    assert family.cells.keys() == family.values.keys()


def test_label_sets_are_bounded_and_the_rest_is_counted_together() -> None:
    family = Family("m", "help", ("model",), (1.0,))
    for number in range(MAX_SETS + 60):
        family.add((f"model-{number}",))
        family.observe((f"model-{number}",), 0.5)
    assert len(family.values) == len(family.cells) == MAX_SETS + 1
    assert family.values[OTHER,] == 60
    assert family.cells[OTHER,].counts == [60, 0]


@pytest.mark.part("doltlite")
def test_every_query_of_the_dashboard_finds_its_metrics(page: httpx.Client) -> None:
    dashboard = json.loads((ROOT / "tundra_nb" / "guide" / "grafana.json").read_text())
    told = page.get("/metrics").text
    names = {sample.name for family in plain_text(told) for sample in family.samples}
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) >= 8
    for query in queries:
        asked = {word for word in words(query) if word.startswith(("tundra_", "gen_ai_client_"))}
        assert asked, query
        assert asked <= names, query


def words(query: str) -> list[str]:
    return "".join(letter if letter.isalnum() or letter == "_" else " " for letter in query).split()


def check_with_promtool(text: str, folder: Path) -> None:
    """Prometheus' own opinion of the page, where it is installed."""
    if (promtool := shutil.which("promtool")) is None:
        return
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    queries = json.loads((ROOT / "tundra_nb" / "guide" / "grafana.json").read_text())["panels"]
    rules = [
        {"record": f"panel:{number}:{place}", "expr": target["expr"].replace("$__rate_interval", "5m")}
        for number, panel in enumerate(queries)
        for place, target in enumerate(panel["targets"])
    ]
    file = folder / "rules.json"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
