"""The zip of an incident: a change in it is named, and what does not belong is refused before anything is written."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import io
import json
import os
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import nbformat
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import Home, stop_processes
from tundra_nb.client.results import Document
from tundra_nb.errors import UsageError
from tundra_nb.incidents import archive
from tundra_nb.incidents.notebook import check_place, slug
from tundra_nb.incidents.story import SLACK
from tundra_nb.protocol.digest import digest
from tundra_nb.testing.scripted_provider import ScriptedStep, scripted_process

CHAT = "/v1/chat/completions"
CANARY = "sk-canary-0123456789abcdef"


def table(*ids: int) -> pa.Table:
    return pa.table({"operation_id": pa.array(ids, pa.int64()), "outcome": ["ok"] * len(ids)})


def made(file: Path, change: Callable[[dict[str, bytes], dict[str, Any]], None] | None = None) -> Path:
    """A small archive; `change` may alter members and manifest after the hashes were taken."""
    rows = table(1, 2, 3)
    members = {
        "incident-x.ipynb": b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}',
        "tables/operation.parquet": archive._parquet(rows),
        "rows.json": json.dumps({"operation": archive._row_hashes(rows)}).encode(),
    }
    members[archive.CRATE] = archive._crate(Document({"title": "x", "ref": "x", "since": "", "until": ""}), members)
    manifest: dict[str, Any] = {
        "format": archive.FORMAT,
        "made_by": {"tundra-nb": "9.9", "frame_version": 2},
        "about": {
            "ref": "incident/x-1",
            "commit": "incident/x-1",
            "incident": {
                "incident_id": "1",
                "title": "x",
                "ref": "incident/x-1",
                "since": "2026-03-01T10:00:00+00:00",
                "until": "2026-03-01T11:00:00+00:00",
            },
            "changed_before": "",
        },
        "tables": {"operation": 3},
        "digests": {"operation": digest(rows)},
        "members": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in members.items()
        },
    }
    if change is not None:
        change(members, manifest)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("manifest.json", json.dumps(manifest))
        for name, data in members.items():
            zipped.writestr(name, data)
    return file


def refusal(file: Path) -> str:
    before = sorted(file.parent.iterdir())
    with pytest.raises(UsageError) as caught:
        archive.check(file)
    assert sorted(file.parent.iterdir()) == before
    return str(caught.value)


def test_a_whole_archive_passes_also_when_another_tool_zipped_it_again(tmp_path: Path) -> None:
    file = made(tmp_path / "a.zip")
    archive.check(file)
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_STORED) as new:
        for name in sorted(old.namelist()):
            new.writestr(name, old.read(name))
    archive.check(tmp_path / "b.zip")


def test_a_changed_row_is_named_with_its_table(tmp_path: Path) -> None:
    def change(members: dict[str, bytes], manifest: dict[str, Any]) -> None:
        members["tables/operation.parquet"] = archive._parquet(table(1, 7, 3))

    told = refusal(made(tmp_path / "a.zip", change))
    assert "tables/operation.parquet is not what was exported: row 2 (operation_id 7)" in told

    def remove(members: dict[str, bytes], manifest: dict[str, Any]) -> None:
        members["tables/operation.parquet"] = archive._parquet(table(1, 2))

    assert "1 rows are missing" in refusal(made(tmp_path / "b.zip", remove))


HOSTILE: dict[str, tuple[Callable[[dict[str, bytes], dict[str, Any]], Any], str]] = {
    "a way out": (lambda m, _: m.update({"../x": b"x"}), "does not belong"),
    "an absolute name": (lambda m, _: m.update({"/etc/x": b"x"}), "does not belong"),
    "an unknown member": (lambda m, _: m.update({"setup.sh": b"x"}), "does not belong"),
    "a table beside the manifest": (lambda m, _: m.update({"tables/note.parquet": b"x"}), "not in its manifest"),
    "a missing member": (lambda m, _: m.pop("rows.json"), "'rows.json' is missing"),
    "another notebook": (lambda m, _: m.update({"incident-x.ipynb": b"[]"}), "incident-x.ipynb is not what"),
    "a bomb": (lambda m, _: m.update({"environment.txt": b"0" * 30_000_000}), "far larger than it is packed"),
    "a newer format": (lambda _, manifest: manifest.update(format=99), "newer than this one"),
    "newer frames": (lambda _, manifest: manifest["made_by"].update(frame_version=99), "newer than this one"),
    "no list of members": (lambda _, manifest: manifest.pop("members"), "manifest.json cannot be read"),
}


WRONG = "its manifest.json cannot be read"
FIELDS: list[tuple[str, tuple[Any, ...], str]] = [
    *((name, (5, "x", None), WRONG) for name in ("about", "members", "tables", "digests", "whole", "made_by")),
    ("tables", ({"note": 1},), "a table 'note' that is not in it"),
    ("format", ("x", {}, 0), WRONG),
    ("members", ({"rows.json": {"sha256": "x", "bytes": 1}},), WRONG),
]


@pytest.mark.parametrize(("field", "values", "problem"), FIELDS)
def test_every_field_of_the_manifest_is_of_its_type(
    tmp_path: Path, field: str, values: tuple[Any, ...], problem: str
) -> None:
    for number, value in enumerate(values):

        def change(_: dict[str, bytes], manifest: dict[str, Any], value: Any = value) -> None:
            manifest[field] = value

        assert problem in refusal(made(tmp_path / f"{number}.zip", change))


@pytest.mark.parametrize("since", ["nonsense", 5, "2026-03-01T10:00:00", "2026-03-02T10:00:00+00:00"])
def test_a_window_that_is_none_is_refused(tmp_path: Path, since: Any) -> None:
    def change(_: dict[str, bytes], manifest: dict[str, Any]) -> None:
        manifest["about"]["incident"]["since"] = since

    assert WRONG in refusal(made(tmp_path / "a.zip", change))


def other(manifest: dict[str, Any], field: str, name: str, value: Any) -> None:
    manifest[field][name] = value


def crate(members: dict[str, bytes], manifest: dict[str, Any]) -> None:
    data = members[archive.CRATE] = members[archive.CRATE].replace(b'"sha256": "', b'"sha256": "0', 1)
    manifest["members"][archive.CRATE] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def beside(members: dict[str, bytes], manifest: dict[str, Any]) -> None:
    data = members["tables/note.parquet"] = archive._parquet(table(1))
    manifest["members"]["tables/note.parquet"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


AT_ODDS: dict[str, tuple[Callable[[dict[str, bytes], dict[str, Any]], Any], str]] = {
    "another digest": (
        lambda _, m: other(m, "digests", "operation", "0" * 64),
        "tables/operation.parquet have not the",
    ),
    "another count": (lambda _, m: other(m, "tables", "operation", 4), "has 3 rows, and its manifest.json says 4"),
    "no digest": (lambda _, m: m["digests"].clear(), "has not both rows and digest of the table 'operation'"),
    "no count": (lambda _, m: m["tables"].clear(), "has not both rows and digest of the table 'operation'"),
    "a table of which nothing is told": (beside, "has not both rows and digest of the table 'note'"),
    "another hash in the list for archives": (crate, "do not say the same of 'incident-x.ipynb'"),
}


@pytest.mark.parametrize("name", AT_ODDS)
def test_a_manifest_that_tells_otherwise_than_what_is_there_is_refused(tmp_path: Path, name: str) -> None:
    """Every number and digest of a manifest is compared with what it is about, not only the members' hashes."""
    change, problem = AT_ODDS[name]
    assert problem in refusal(made(tmp_path / "a.zip", change))


def test_a_table_that_unpacks_to_more_than_memory_holds_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text that is packed once and meant in every row is counted before it is copied into each."""
    monkeypatch.setattr(archive, "MOST_TEXT_BYTES", 5)
    assert "its texts are too long" in refusal(made(tmp_path / "a.zip"))


def test_rows_have_the_same_hash_whatever_class_time_zones_are_of() -> None:
    """Who reads an archive with another pyarrow names the row that was changed, not the first."""

    class Rows:
        def __init__(self, zone: dt.tzinfo) -> None:
            self.at = dt.datetime(2026, 3, 1, tzinfo=zone)

        def to_pylist(self) -> list[dict[str, Any]]:
            return [{"at": self.at}]

    given: list[Any] = [Rows(dt.UTC), Rows(ZoneInfo("UTC"))]
    assert archive._row_hashes(given[0]) == archive._row_hashes(given[1])


def test_a_notebook_that_is_none_is_refused_also_with_its_hash(tmp_path: Path) -> None:
    def change(members: dict[str, bytes], manifest: dict[str, Any]) -> None:
        data = members["incident-x.ipynb"] = b"not json"
        del members[archive.CRATE], manifest["members"][archive.CRATE]
        manifest["members"]["incident-x.ipynb"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}

    assert "is no notebook" in refusal(made(tmp_path / "a.zip", change))


def test_devices_pipes_folders_and_huge_files_are_refused_without_reading(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge.zip").open("wb") as huge:
        huge.truncate(archive.MOST_BYTES + 1)
    for file, problem in (
        (Path("/dev/zero"), "a device"),
        (tmp_path / "pipe", "a pipe"),
        (tmp_path, "a folder"),
        (tmp_path / "huge.zip", "too large"),
    ):
        with pytest.raises(UsageError, match=problem):
            archive.check(file)


def test_a_list_of_members_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    size = archive.MOST_LIST_BYTES + 1
    with (tmp_path / "long.zip").open("wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, size, 0, 0))
    assert "the list of its members is too long" in refusal(tmp_path / "long.zip")


def test_titles_have_names_of_their_own_that_any_file_system_takes() -> None:
    """Signs alone, other scripts and long titles too; plain words are the name as they are."""
    titles = [
        "..",
        "/",
        "%",
        "../../x",
        "\u202e",
        "сбой",
        "отказ",
        "café",
        "cafe",
        "x" * 199,
        "x" * 200,
        "COM 1",
        "a_b",
    ]
    names = [slug(title) for title in titles]
    assert len(set(names)) == len(names)
    assert all(archive.MEMBER.fullmatch(f"incident-{name}.ipynb") for name in names), names
    assert names[0].startswith("untitled-")
    assert names[7].startswith("cafe-")
    assert slug("Anthropic was overloaded!") == "anthropic-was-overloaded"


def test_where_an_export_cannot_go_is_told_before_any_work(tmp_path: Path) -> None:
    for file, problem in ((tmp_path / "none" / "e.zip", "no folder"), (tmp_path, "is a folder")):
        with pytest.raises(UsageError, match=problem):
            check_place(file)


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_or_foreign_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    change, problem = HOSTILE[name]
    assert problem in refusal(made(tmp_path / "a.zip", change))


def test_links_encrypted_members_doubles_and_things_that_are_no_zip_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("environment.txt")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(made(tmp_path / "link.zip"), "a") as zipped:
        zipped.writestr(link, "/etc/passwd")
    assert "does not belong" in refusal(tmp_path / "link.zip")
    with zipfile.ZipFile(made(tmp_path / "double.zip"), "a") as zipped, pytest.warns(UserWarning, match="Duplicate"):
        zipped.writestr("rows.json", b"{}")
    assert "same name" in refusal(tmp_path / "double.zip")
    data = bytearray(made(tmp_path / "locked.zip").read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(data)
    assert "encrypted" in refusal(tmp_path / "locked.zip")
    (tmp_path / "text.zip").write_text("no zip")
    assert "cannot be read" in refusal(tmp_path / "text.zip")
    (tmp_path / "cut.zip").write_bytes(made(tmp_path / "whole.zip").read_bytes()[:-40])
    assert "cannot be read" in refusal(tmp_path / "cut.zip")
    with pytest.raises(UsageError, match="no file"):
        archive.check(tmp_path / "none.zip")


# --- from one machine to another


def place(folder: Path, name: str) -> Home:
    env = {key: value for key, value in os.environ.items() if not key.startswith("TUNDRA_")}
    env |= {
        "TUNDRA_DATA_DIR": str(folder / name / "data"),
        "TUNDRA_CONFIG": str(folder / name / "tundra.toml"),
        "JUPYTER_DATA_DIR": str(folder / name / "jupyter"),
        "IPYTHONDIR": str(folder / name / "ipython"),
        "SCRIPTED_API_KEY": CANARY,
    }
    (folder / name).mkdir()
    return Home(folder / name, env)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, Home]]:
    """A home with an incident that is exported, and another machine's, which was set up differently."""
    folder = tmp_path_factory.mktemp("two")
    one, other = place(folder, "one"), place(folder, "other")
    other.env.pop("SCRIPTED_API_KEY")
    try:
        with scripted_process(pieces=3) as provider:
            one.write_settings(
                '[record]\ncontent = "all"\n[router]\nretries = 0\n[breaker]\nfailures = 9\n'
                f'[[profile]]\nname = "scripted"\nkind = "openai"\nbase_url = "{provider.url}/v1"\nmodel = "tiny"\n'
                'api_key_env = "SCRIPTED_API_KEY"\n'
            )
            provider.script(
                CHAT,
                ScriptedStep(text=f"your key is {CANARY}"),
                ScriptedStep(status=500, text=f"broken \u202ehalf\u202c {CANARY}", repeat=3),
                ScriptedStep(text="ok"),
            )
            for number in range(5):
                if number == 3:
                    time.sleep(SLACK.total_seconds())
                    one.run("settings", "set", "pty.capacity=11")
                one.run("ask", f"question {number}: my key is {CANARY}")
            one.run("run", f"echo {CANARY}")
            one.run("note", f"the key was {CANARY}")
            done = one.run("incident", "new", "Canary", "--since", "1h", timeout=200)
            assert done.returncode == 0, done.stderr
            assert one.run("incident", "pin", "Canary").returncode == 0  # the notebook stays at the pin of before
            # a password as people choose them for Jupyter; its last letters are in columns' names, which a Parquet file
            # also holds in base64
            weak = dataclasses.replace(one, env={**one.env, "JUPYTER_TOKEN": "mytoken"})
            done = weak.run("incident", "export", "Canary", "--out", "canary.zip", timeout=100)
            assert done.returncode == 0, done.stderr
        yield one, other
    finally:
        stop_processes(one)
        stop_processes(other)


pytestmark = [pytest.mark.timeout(280)]


@pytest.mark.check
@pytest.mark.part("doltlite")
def test_an_export_holds_what_it_says_and_no_canary(two: tuple[Home, Home]) -> None:
    one, _ = two
    file = one.folder / "canary.zip"
    assert file.stat().st_mode & 0o777 == 0o600
    manifest = archive.check(file)
    assert manifest.tables["operation"] == 5
    with zipfile.ZipFile(file) as zipped:
        names = set(zipped.namelist())
        assert {"incident-canary.ipynb", "incident-canary.html", "ro-crate-metadata.json", "REDACTIONS.md"} <= names
        assert sum(name.startswith("recordings/") for name in names) == 5
        crate = json.loads(zipped.read("ro-crate-metadata.json"))
        assert {part["@id"] for part in crate["@graph"][1]["hasPart"]} <= names
        for name in names:
            data = zipped.read(name)
            if name.endswith(".parquet"):
                data = repr(pq.read_table(io.BytesIO(data)).to_pylist()).encode()
            assert CANARY.encode() not in data, name
            assert CANARY[3:].encode() not in data, name
        html = zipped.read("incident-canary.html").decode()
    assert "4, of them" in html or "5, of them 3" in html
    again = one.run("incident", "export", "Canary", "--out", "canary.zip")
    assert again.returncode == 2
    assert "is there already" in again.stderr


@pytest.mark.check
@pytest.mark.part("doltlite")
def test_a_key_in_a_title_is_in_no_files_name_either(two: tuple[Home, Home], tmp_path: Path) -> None:
    one, _ = two
    elsewhere = dataclasses.replace(one, folder=tmp_path)
    done = elsewhere.run("incident", "new", f"with {CANARY}", "--since", "1h", "--no-run", "--json", timeout=100)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("*.ipynb")
    kept = json.loads(elsewhere.run("incident", "show", "last", "--json").stdout)["notebook"]
    assert kept == str(file)
    assert CANARY[3:] not in kept + file.read_text() + done.stdout


@pytest.mark.check
@pytest.mark.part("doltlite")
def test_on_another_machine_every_cell_is_the_same_and_replays_alike(two: tuple[Home, Home]) -> None:
    one, other = two
    file = one.folder / "canary.zip"
    done = other.run("incident", "import", str(file), "--json", timeout=100)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert json.loads(other.run("incident", "list", "--json").stdout) == [], "nothing enters the own history"
    book = other.folder / told["notebook"]
    assert "changed meanwhile" in book.read_text()
    refused = other.run("verify", str(book))
    assert (refused.returncode, "not trusted" in refused.stderr) == (2, True)
    done = other.run("verify", str(book), "--trust", "--report", "report.html", "--json", timeout=200)
    assert done.returncode == 0, done.stdout
    page = (other.folder / "report.html").read_text()
    assert "cells are the same" in page
    assert "default-src 'none'" in page
    replays = [home.run("replay", "Canary", "--json").stdout for home in two]
    assert replays[0] == replays[1]
    assert [row["outcome_now"] for row in json.loads(replays[1])] == ["ok", "error", "error", "error", "ok"]
    # one number in one saved output
    saved = nbformat.read(book, as_version=4)
    code = [cell for cell in saved.cells if cell.cell_type == "code"]
    number, cell = next((n, c) for n, c in enumerate(code, 1) if c.source.startswith("%tundra calls --by code"))
    cell.outputs[0].data["text/plain"] = cell.outputs[0].data["text/plain"].replace("3", "2", 1)
    nbformat.write(saved, other.folder / "edited.ipynb")
    done = other.run("verify", "edited.ipynb", "--trust", "--json", timeout=200)
    assert done.returncode == 1
    wrong = [name for name, state in json.loads(done.stdout).items() if not state.startswith(("same", "not"))]
    assert wrong == [f"edited.ipynb [{number}]"]
