"""The archive through the shipped command line and daemon."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import json
import os
import signal
import subprocess
import sys

import pytest

import tundra_nb
from tests.conftest import Home, wait_until
from tests.contract.test_archive import TODAY, days
from tundra_nb.client.aio import AsyncClient
from tundra_nb.errors import QueryRefused, UsageError
from tundra_nb.paths import find
from tundra_nb.runtime.clock import Ids, SystemClock
from tundra_nb.runtime.history.service import History
from tundra_nb.settings import StoreSettings
from tundra_nb.views.show import blocks_of
from tundra_nb.views.text import plain

pytestmark = [pytest.mark.part("doltlite"), pytest.mark.timeout(300)]


def day(ago: int) -> str:
    """The date so many days before that from which `days` counts: a test may run past midnight."""
    return (dt.datetime.fromtimestamp(TODAY / 1e6, dt.UTC) - dt.timedelta(ago)).date().isoformat()


def seed(home: Home, first: int, last: int, each: int) -> int:
    """A history with calls of the days so many days ago."""

    async def fill() -> int:
        clock = SystemClock()
        history = History(find(home.data_dir), StoreSettings(), Ids(clock), clock)
        home.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        await history.open()
        try:
            rows = days(first, last, each)
            history.append(*rows)
            assert await history.settled(30)
        finally:
            await history.aclose()
        return len(rows)

    return asyncio.run(fill())


@pytest.mark.check
def test_a_year_by_profile_and_day_is_the_same_with_the_archive(home: Home) -> None:
    """`archive`, `calls --by` and `sql --archive` from the shell, from Python, and awaited; then without options."""
    rows = seed(home, 40, 20, 30)
    before = json.loads(home.run("calls", "--since", "1y", "--by", "profile,day", "--json").stdout)
    assert sum(row["count"] for row in before) == rows
    assert "nothing is archived" in home.run("archive").stdout
    done = home.run("archive", "--older-than", day(30))
    assert done.returncode == 0, done.stderr
    assert "300 rows" in done.stdout, done.stdout
    after = json.loads(home.run("calls", "--since", "1y", "--by", "profile,day", "--json").stdout)
    assert len(after) == len(before)
    for one, other in zip(after, before, strict=True):
        assert one == {
            name: pytest.approx(value, rel=1e-12) if isinstance(value, float) else value
            for name, value in other.items()
        }
    told = json.loads(home.run("archive", "--json").stdout)
    assert (told["rows"], told["files"], told["late"]) == (300, 10, {})
    verified = home.run("archive", "--verify")
    assert "10 files are what was written" in verified.stdout, verified.stdout
    counted = home.run("sql", "--archive", "--json", "select count(*) as n, max(at) as last from operation")
    assert json.loads(counted.stdout)[0]["n"] == rows
    refused = home.run("sql", "--archive", "copy operation to '/tmp/x.csv'")
    assert refused.returncode != 0
    assert "COPY is not allowed" in refused.stderr
    assert home.run("archive", "--older-than", day(0)).returncode != 0
    with tundra_nb.connect() as t:
        frame = t.calls(since="1y", by="profile,day")
        assert frame.attrs["archive"]["rows"] == 300
        assert "300 archived rows" in plain(blocks_of(frame))
        steps: list[str] = []
        again = t.archive(day(25), on_progress=lambda step: steps.append(step["doing"]))
        assert (again.copied_rows, again.rows) == (150, 450)
        assert {"counting", "copying"} <= set(steps)
        assert t.sql("select count(*) as n from operation", archive=True)["n"].iloc[0] == rows
        assert t.sql("select count(*) as n from operation")["n"].iloc[0] == rows
        assert len(t.calls(since="1y")) == rows
        for archive in (False, True):
            some = t.sql("select 1 as a union all select 2 union all select 3 order by a", limit=2, archive=archive)
            assert (list(some["a"]), some.attrs["truncated"]) == ([1, 2], True)
        with pytest.raises(UsageError, match="another state"):
            t.sql("select 1", at="HEAD", archive=True)
        with pytest.raises(QueryRefused):
            t.sql("attach 'x'", archive=True)

    async def awaited() -> int:
        async with AsyncClient() as t:
            assert (await t.archive()).rows == 450
            return int((await t.archive(day(25), verify=True)).verified_files)

    assert asyncio.run(awaited()) == 15
    assert not list((home.data_dir / "archive").rglob(".part-*"))


def has_files(home: Home, count: int) -> bool:
    return len(list((home.data_dir / "archive").rglob("*.parquet"))) >= count


@pytest.mark.check
@pytest.mark.timeout(600)
def test_a_daemon_killed_while_it_copies_leaves_an_archive_that_goes_on(home: Home) -> None:
    """kill -9 of daemon and workers, at several moments; the last run ends it, and nothing is there twice."""
    rows = seed(home, 60, 25, 400)
    for moment in (1, 6):
        home.run("status")
        command = [sys.executable, "-m", "tundra_nb.cli", "archive", "--older-than", day(30)]
        with subprocess.Popen(command, env=home.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
            wait_until(functools.partial(has_files, home, moment), 120)
            for process in home.daemon_processes():
                if process.pid != running.pid:
                    os.kill(process.pid, signal.SIGKILL)
            running.kill()
        found = json.loads(home.run("calls", "--since", "1y", "--by", "day", "--json").stdout)
        assert sum(row["count"] for row in found) == rows
    done = home.run("archive", "--older-than", day(30), "--json", timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 30 * 400
    files = sorted((home.data_dir / "archive").rglob("*.parquet"))
    assert len(files) == 30
    assert json.loads(home.run("archive", "--verify", "--json").stdout)["verified_files"] == 30
    found = json.loads(home.run("calls", "--since", "1y", "--by", "day", "--json").stdout)
    assert sum(row["count"] for row in found) == rows


def test_a_place_that_cannot_be_written_is_told_and_the_daemon_stays(home: Home) -> None:
    """A file, or a link to nowhere, where the archive's folder should be."""
    seed(home, 40, 38, 3)
    assert home.run("daemon", "start").returncode == 0  # to wait for it is told, too
    place = find(home.data_dir).archive
    for stands in (place.touch, lambda: place.symlink_to("/nonexistent/place")):
        stands()
        done = home.run("archive", "--older-than", "30d")
        assert done.returncode
        assert str(place) in done.stderr
        assert "daemon" not in done.stderr
        place.unlink()
    assert home.run("archive", "--older-than", "30d").returncode == 0


def test_an_edited_manifest_is_refused_with_a_way_out_that_works(home: Home) -> None:
    """Triage and `explain` tell that way too, and no backup that would replace a whole history."""
    seed(home, 40, 38, 3)
    assert home.run("archive", "--older-than", "30d").returncode == 0
    place = find(home.data_dir).archive
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["tables"]["operation"]["days"].popitem()
    (place / "manifest.json").write_text(json.dumps(manifest))
    for command in (["archive", "--verify"], ["calls", "--since", "1y", "--by", "day"]):
        refused = home.run(*command)
        assert "ArchiveDamaged" in refused.stderr
        assert "Move the archive's folder away" in refused.stderr
    assert "restore" not in home.run("triage", "--no-model", "--since", "1h").stdout
    place.rename(place.with_name("aside"))
    assert home.run("archive", "--older-than", "30d").returncode == 0
    rows = json.loads(home.run("calls", "--since", "1y", "--by", "day", "--json").stdout)
    assert [row["count"] for row in rows] == [3, 3, 3]
