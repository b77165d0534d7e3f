"""What users import: the names are there, exactly typed, and cost nothing until they are used."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import tundra_nb

HERE = Path(__file__).parent
HEAVY = {"tornado", "IPython", "pandas", "pyarrow", "jupyter_server", "aiohttp", "httpx", "ipykernel", "starlette"}


def test_every_name_of_the_surface_can_be_imported_and_nothing_else_is_promised() -> None:
    assert tundra_nb.__all__ == sorted(tundra_nb.__all__)
    assert set(tundra_nb._LAZY) <= set(tundra_nb.__all__) <= set(dir(tundra_nb))
    for name in tundra_nb.__all__:
        assert getattr(tundra_nb, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        tundra_nb.nonsense  # noqa: B018


def test_type_checkers_are_told_of_the_same_names_as_are_there_at_run_time() -> None:
    tree = ast.parse(Path(inspect.getfile(tundra_nb)).read_text())
    shown = next(node for node in tree.body if isinstance(node, ast.If))
    told = {alias.asname for node in shown.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert told == set(tundra_nb._LAZY)


def test_importing_the_package_and_its_names_loads_nothing_heavy() -> None:
    program = "import sys, tundra_nb; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


@pytest.mark.parametrize("name", [name for name in tundra_nb.__all__ if name != "__version__"])
def test_every_name_says_what_it_is(name: str) -> None:
    assert inspect.getdoc(getattr(tundra_nb, name))


def checked(tool: list[str], folder: Path, text: str) -> str:
    """What a type checker says of a user's file, away from the source."""
    file = folder / "mine.py"
    file.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", *tool, str(file)], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


CHECKERS = {
    "mypy": ["mypy", "--strict", "--no-incremental"],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}
MISTAKES = """
import tundra_nb

t = tundra_nb.connect()
t.calls(sinse="1h")
t.ask("hi", profil="p")
t.run("true", timeout="1")
t.ptys["1"].send_secret(nane="X")
t.versions.diff("a", tabel="x")
t.ptys.open("cat", colums=80)


async def awaited(a: tundra_nb.AsyncClient) -> None:
    await a.run("true", timout=1)
    await a.simulate(sinse="1h")
    await a.replay("last", speed="2")
"""


@pytest.mark.check
@pytest.mark.parametrize("tool", CHECKERS)
def test_a_type_checker_sees_the_exact_types_of_a_user_s_file(tool: str, tmp_path: Path) -> None:
    told = checked(CHECKERS[tool], tmp_path, (HERE / "typing" / "api.py").read_text())
    assert "error" not in told.replace("0 errors", ""), told


@pytest.mark.check
@pytest.mark.parametrize("tool", CHECKERS)
def test_a_type_checker_refuses_a_mistyped_keyword(tool: str, tmp_path: Path) -> None:
    told = checked(CHECKERS[tool], tmp_path, MISTAKES)
    wrong = {
        line.split("mine.py:")[1].partition(":")[0]
        for line in told.splitlines()
        if "mine.py:" in line and "error" in line
    }
    assert wrong == {"5", "6", "7", "8", "9", "10", "14", "15", "16"}, told
