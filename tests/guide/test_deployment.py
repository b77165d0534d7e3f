"""What the pages `teams` and `containers` give to copy: each block is read by what it is for."""

from __future__ import annotations

import re
from pathlib import Path

import pymysql
import pytest
import yaml  # type: ignore[import-untyped]

from tests.conftest import ROOT
from tests.contract.server import DoltServer
from tundra_nb import settings

GUIDE = ROOT / "tundra_nb" / "guide"
PAGES = ("teams.md", "containers.md")


def blocks(language: str) -> list[str]:
    return [
        block
        for page in PAGES
        for block in re.findall(rf"```{language}\n(.*?)```", (GUIDE / page).read_text(), re.DOTALL)
    ]


def test_every_block_of_settings_is_one_that_a_daemon_takes(tmp_path: Path) -> None:
    found = blocks("toml")
    assert len(found) >= 3
    for block in found:
        file = tmp_path / "tundra.toml"
        file.write_text(block)
        settings.load(file, {})
    team = next(block for block in found if "reader_user" in block)
    (tmp_path / "tundra.toml").write_text(team)
    store = settings.load(tmp_path / "tundra.toml", {}).settings.store
    assert (store.engine, store.tls, store.reader_user) == ("dolt", True, "tundra_reader")


def test_every_block_of_yaml_is_some() -> None:
    found = [yaml.safe_load(re.sub(r"\$\{\{.*?\}\}", "x", block)) for block in blocks("yaml")]
    pod = next(one for one in found if "kind" in one)
    (container,) = pod["spec"]["containers"]
    given = {one["name"]: one["value"] for one in container["env"]}
    mounted = {one["mountPath"] for one in container["volumeMounts"]}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert all(any(value.startswith(place) for place in mounted) for value in given.values())
    listener = next(one for one in found if "listener" in one)["listener"]
    assert listener["require_secure_transport"] is True


def test_the_hubs_core_is_what_its_example_says() -> None:
    example = (GUIDE / "jupyterhub_config.py").read_text()
    (core,) = (block for block in blocks("python") if "c.Spawner" in block)
    variables = re.findall(r'"([A-Z_]{6,})":', core)
    assert variables
    assert all(f'"{variable}":' in example for variable in variables)
    compile(core, "core", "exec")
    compile(example, "example", "exec")


@pytest.mark.part("dolt")
def test_the_logins_that_the_guide_gives_are_enough_and_no_more(tmp_path: Path) -> None:
    (sql,) = blocks("sql")
    server = DoltServer(tmp_path / "dolt")
    server.start()
    try:
        server.admin(*filter(None, map(str.strip, sql.split(";"))))
        login = {"host": "127.0.0.1", "port": server.port, "password": "PASSWORD", "database": "team"}
        with pymysql.connect(user="tundra", **login) as db, db.cursor() as cursor:  # type: ignore[call-overload]
            cursor.execute("CREATE TABLE t (a INT PRIMARY KEY)")
            cursor.execute("CALL DOLT_COMMIT('-Am', 'x')")
            cursor.execute("SELECT GET_LOCK('a', 0)")
        with pymysql.connect(user="tundra_reader", **login) as db, db.cursor() as cursor:  # type: ignore[call-overload]
            cursor.execute("SELECT * FROM t")
            with pytest.raises(pymysql.MySQLError):
                cursor.execute("INSERT INTO t VALUES (1)")
    finally:
        server.stop()
