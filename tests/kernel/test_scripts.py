"""The widgets' scripts, by node's own test runner."""

from __future__ import annotations

import subprocess

import pytest

from tests.conftest import BIOME, ROOT


@pytest.mark.part("node")
def test_the_scripts_of_the_widgets_pass_their_own_tests() -> None:
    tests = sorted(map(str, (ROOT / "tests" / "js").glob("*.test.mjs")))
    assert tests
    done = subprocess.run(["node", "--test", *tests], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.check
@pytest.mark.part("biome")
def test_scripts_and_styles_have_no_fault_that_a_linter_finds() -> None:
    folders = ["tundra_nb/kernel/widgets", "tundra_nb/labextension/static/tundra.js", "tests/js"]
    command = [str(BIOME), "lint", "--config-path=tests/js-lint.json", "--error-on-warnings", *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
