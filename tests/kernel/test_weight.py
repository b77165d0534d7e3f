"""What is loaded when: light imports are what keeps `import tundra_nb` and `%load_ext` fast."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = (
    *("tornado", "IPython", "pandas", "pyarrow", "jupyter_server", "aiohttp", "httpx", "rich", "click", "starlette"),
    *("anywidget", "ipywidgets", "psutil", "markdown_it", "pygments"),
)


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after some code, of those that are heavy."""
    program = f"import json, sys\n{code}\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import tundra_nb") == set()


def test_importing_the_client_loads_nothing_heavy() -> None:
    assert loaded_after("import tundra_nb.client.sync") == set()


def test_loading_the_extension_loads_no_more_than_ipython_itself() -> None:
    bare = loaded_after("from IPython.core.interactiveshell import InteractiveShell as S; s = S.instance()")
    code = "from IPython.core.interactiveshell import InteractiveShell as S; s = S.instance()\n"
    code += "s.run_line_magic('load_ext', 'tundra_nb')"
    assert loaded_after(code) == bare


def test_a_short_command_loads_no_more_than_it_shows() -> None:
    """`tundra status` is typed often: no data frames, no Markdown, no doctor's checks."""
    code = "from tundra_nb.cli import main\nfrom tundra_nb.views import show, status, text\n"
    code += "text.plain(show.blocks_of('said'))"
    assert loaded_after(code) == {"rich", "click"}
