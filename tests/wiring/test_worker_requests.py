"""How many requests of the store worker each read of the history takes, at the shipped daemon: one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

import tundra_nb
from tests.conftest import Home
from tundra_nb.client.sync import Client
from tundra_nb.paths import find
from tundra_nb.testing.scripted_provider import scripted_process

pytestmark = [pytest.mark.part("doltlite")]

SETTINGS = """
[[profile]]
name = "scripted"
kind = "local"
base_url = "{url}/v1"
model = "scripted-1"
"""


@pytest.fixture
def client(home: Home) -> Iterator[Client]:
    with scripted_process() as provider:
        home.write_settings(SETTINGS.format(url=provider.url))
        with tundra_nb.connect() as made:
            made.ask("hello")
            made.versions.commit("before")
            made.set_setting("breaker.failures", 3)
            made.ask("hello again")
            made.ask("and again")
            yield made


def requests() -> dict[str, int]:
    """What the worker was asked so far, by method."""
    page = httpx.Client(transport=httpx.HTTPTransport(uds=str(find().socket)), base_url="http://tundra")
    with page:
        families = text_string_to_metric_families(page.get("/metrics").text)
    return {
        sample.labels["method"]: int(sample.value)
        for family in families
        for sample in family.samples
        if sample.name == "tundra_store_requests"
    }


READS: dict[str, Callable[[Client], object]] = {
    "diff of one table": lambda client: client.versions.diff("HEAD~1", "HEAD", "setting"),
    "diff of all tables": lambda client: client.versions.diff("HEAD~1", "now"),
    "stat": lambda client: client.versions.stat("HEAD~1"),
    "commits": lambda client: client.versions.log("HEAD", limit=3),
    "tags": lambda client: client.versions.tags(),
    "a tag made": lambda client: client.versions.tag("good", "HEAD~1"),
    "a branch made": lambda client: client.versions.branch("try"),
    "branches": lambda client: client.versions.branches(),
    "a ref": lambda client: client.versions.resolve("good"),
    "overview": lambda client: client.versions.status(),
    "why": lambda client: client.why(),
    "why by digits": lambda client: client.why(str(client.calls()["operation_id"].iloc[-1])[-6:]),
    "calls": lambda client: client.calls(),
    "sql": lambda client: client.sql("select count(*) from operation"),
}


def test_each_read_is_one_request_of_the_worker(client: Client) -> None:
    asked = {}
    for name, read in READS.items():
        before = sum(requests().values())
        read(client)
        asked[name] = sum(requests().values()) - before
    assert asked == dict.fromkeys(READS, 1) | {"why by digits": 2}, "the test itself reads the calls there"


def test_a_revert_is_one_request_and_those_that_write_down_what_is_in_force_then(client: Client) -> None:
    client.versions.commit("the calls so far")
    client.note("to be taken back")
    client.versions.commit("a note")
    before = requests()
    client.versions.revert("HEAD")
    asked = {name: count - before.get(name, 0) for name, count in requests().items() if count != before.get(name, 0)}
    assert asked == {"revert": 1}, "no setting has changed"
    assert client.notes(since="all").empty
    client.set_setting("breaker.failures", 9)
    before = requests()
    done = client.versions.revert("HEAD")
    asked = {name: count - before.get(name, 0) for name, count in requests().items() if count != before.get(name, 0)}
    assert asked["revert"] == 1
    assert "resolve" not in asked
    assert [(one["path"], one["was"], one["value"]) for one in done["applied"]] == [("breaker.failures", 9, 3)]


def test_a_diff_of_all_tables_is_that_of_each_table(client: Client) -> None:
    whole = client.versions.diff("HEAD~1", "now")
    tables = client.versions.stat("HEAD~1", "now")["table"].tolist()
    assert len(tables) >= 2
    assert whole["table"].unique().tolist()[0] == "setting", "what people changed stands first"
    for name in tables:
        alone = client.versions.diff("HEAD~1", "now", name)
        rows = whole[whole["table"] == name]
        assert len(rows) == len(alone) >= 1
        for column in alone.columns:
            assert rows[column].astype(str).tolist() == alone[column].astype(str).tolist(), (name, column)
    assert client.versions.diff("HEAD~1", "now", limit=1).attrs["truncated"] is True
    assert len(client.versions.diff("HEAD", "HEAD")) == 0
