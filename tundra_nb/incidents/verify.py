"""Runs a notebook again in a clean kernel, without keys and with acting commands refused, and compares cell by cell.

What is shown must be what was saved (else *edited*: each output carries the SHA-256 of what it shows), what is computed
now must be what was computed then (else *changed*: frames by the digest of their values, the rest line by line with
declared volatile parts masked), and the same values must be shown alike where the same versions show them (else
*edited*: hashes can be rewritten too).
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import urllib.parse
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import msgspec

from tundra_nb.client.call import REFUSED, VERIFYING
from tundra_nb.errors import UsageError

from .notebook import CELL_SECONDS, STARTING, library, run_through, save, sources, telling

SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|_PAT$", re.IGNORECASE)
"""Names of variables that the kernel is not given."""
MASKS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "time",
        re.compile(
            r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?"
            r"|(\b\d\d [A-Z][a-z]{2} )?\b\d\d:\d\d(:\d\d(\.\d+)?)?\b"
        ),
    ),
    ("address", re.compile(r"0x[0-9a-fA-F]{6,}")),
    ("duration", re.compile(r"\b\d+(\.\d+)? ?(ms|µs|s|ns)\b")),
)
"""Parts of text that differ from run to run by their nature."""

ZONE = re.compile(r"[A-Za-z<][A-Za-z0-9_+<>:,./-]{1,80}")
"""How a zone is written in `TZ`, and never a file's path."""
SAME_LOOK = ("made_with", "zone", "store", "commit")
"""Outputs that differ in what they tell of this may show the same values otherwise: a history may have moved."""
RICH = ("display_data", "execute_result")
UNSEEN = re.compile(r"<(style|script)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
"""What of HTML nobody reads."""
DRAWN = re.compile(r'data:image/svg[^,"]*,([^"]*)')
"""A drawing within HTML: its words are read."""
READ = ("text/markdown", "text/latex", "application/json")
"""What is read as text besides plain text and HTML; other kinds hold ids that differ from run to run."""

State = Literal["same", "edited", "changed", "failed", "not repeated", "nothing saved", "gone"]
WRONG: frozenset[State] = frozenset({"edited", "changed", "failed", "nothing saved", "gone"})


NOTHING = "there is no cell with code in it: nothing was compared"


OPENING = re.compile(r"\btundra +incident +open\b")
"""From here on a notebook reads at a pin."""
DIED = "the kernel died before its end"
NOT_OPEN = "not run: the incident could not be opened, and the cell would have read the present"


class _NotOpenedError(Exception):
    """The incident that the rest of a notebook is about could not be opened."""


class CellVerdict(msgspec.Struct, frozen=True):
    """What became of one code cell. `number` counts code cells from 1; of one that is gone, those that there were."""

    number: int
    cell_id: str
    state: State
    detail: str = ""
    source: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """What became of one notebook."""

    notebook: str
    cells: list[CellVerdict]
    masked: dict[str, int] = {}
    """How often each kind of volatile text was left out of the comparison."""

    @property
    def is_same(self) -> bool:
        return not any(cell.state in WRONG for cell in self.cells)


def verify(
    file: Path, *, is_trusted: bool = False, update: bool = False, on_progress: Callable[[str], None] | None = None
) -> Verdict:
    """Run a notebook again and compare.

    Args:
        file: the notebook.
        is_trusted: run it although Jupyter does not trust it.
        update: write the new outputs into it.
        on_progress: told which cell runs; at last an empty text.

    Raises:
        UsageError: it is no notebook, or not trusted; nothing was run.
    """
    with telling(on_progress) as tell:
        tell("reading the notebook")
        notary = library("nbformat.sign").NotebookNotary()
        saved = _read(file)
    if not is_trusted and not notary.check_signature(saved):
        raise UsageError(
            problem=f"{file} is not trusted: whoever wrote it could have it do anything here",
            field="notebook",
            remedy="Read it; then give `--trust`, or `jupyter trust NOTEBOOK`.",
        )
    has_code = any(cell.source.strip() for cell in _code(saved))
    fresh, unreached = _run(saved, file, on_progress) if has_code else (saved, {})
    verdicts = [*_compare(saved, fresh, unreached), *_gone(saved)]
    if update and not unreached:
        if "cells" in _told(fresh):
            fresh.metadata.tundra.cells = sources(fresh)
        save(fresh, file)
        notary.sign(fresh)
    return Verdict(str(file), verdicts, _masks_in(fresh))


def _read(file: Path) -> Any:
    """A notebook of which every part is of the kind that it has to be.

    Raises:
        UsageError: it is none.
    """
    nbformat = library("nbformat")
    validator = library("nbformat.validator")

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ids that are there twice or missing, which it mends
            saved = nbformat.read(file, as_version=4)
            validator.validate(nbdict=saved, relax_add_props=True)
    except FileNotFoundError:
        raise UsageError(problem=f"there is no file {file}", field="notebook") from None
    except OSError as exc:
        raise UsageError(problem=f"{file} cannot be read: {exc.strerror}", field="notebook") from exc
    except validator.ValidationError as exc:
        where = "/".join(map(str, exc.absolute_path)) or "its top"
        raise UsageError(problem=f"{file} is no notebook: {where}: {exc.message[:200]}", field="notebook") from exc
    except (nbformat.reader.NotJSONError, RecursionError) as exc:
        raise UsageError(problem=f"{file} is no notebook: it is no JSON", field="notebook") from exc
    except Exception as exc:  # nbformat meets what is of another kind in its own words
        raise UsageError(problem=f"{file} is no notebook: it has not the form of one", field="notebook") from exc
    return saved


def _masks_in(book: Any) -> dict[str, int]:
    text = "\n".join(_stream(cell.outputs) for cell in _code(book))
    for cell in _code(book):
        for one in cell.outputs:
            if one.output_type in RICH and not _told(one).get("digest"):
                text += "\n" + _text(_data(one).get("text/plain"))
    found = {}
    for name, pattern in MASKS:
        text, found[name] = pattern.subn(f"<{name}>", text)
    return {name: count for name, count in found.items() if count}


def _run(saved: Any, file: Path, on_progress: Callable[[str], None] | None) -> tuple[Any, dict[int, str]]:
    """The notebook with the outputs of a new run, and the numbers of the code cells that it did not reach, with why."""
    with telling(on_progress) as tell:
        tell(STARTING)
        nbformat = library("nbformat")
        runner_of = library("nbclient").NotebookClient
        problems = library("nbclient.exceptions")
        kernels = library("jupyter_client.kernelspec")

    fresh = nbformat.reads(nbformat.writes(saved), as_version=4)
    for cell in _code(fresh):
        cell.outputs, cell.execution_count = [], None
    env = {name: value for name, value in os.environ.items() if not SECRET.search(name)} | {VERIFYING: "1"}
    if zone := _zone(saved):
        env["TZ"] = zone  # the times of then, on a machine of another zone
    finished: set[int] = set()

    def executed(cell: Any, cell_index: int, **_: Any) -> None:
        finished.add(cell_index)
        if OPENING.search(cell.source) and _fails(cell) and not _fails(saved.cells[cell_index]):
            raise _NotOpenedError

    runner = runner_of(
        fresh,
        timeout=CELL_SECONDS,
        record_timing=False,
        allow_errors=True,
        interrupt_on_timeout=True,
        resources={"metadata": {"path": str(file.parent.absolute())}},
        on_cell_executed=executed,
    )
    try:
        run_through(runner, env, on_progress)
    except kernels.NoSuchKernel as exc:
        raise UsageError(
            problem=f"{file} asks for the kernel {exc.name!r}, which is not installed here",
            field="notebook",
            remedy="`jupyter kernelspec list` shows those that are; choose one in JupyterLab and save it.",
        ) from exc
    except (problems.DeadKernelError, _NotOpenedError) as exc:
        why = NOT_OPEN if isinstance(exc, _NotOpenedError) else DIED
        code = (index for index, cell in enumerate(fresh.cells) if cell.cell_type == "code")
        left = {number: index for number, index in enumerate(code, 1) if index not in finished}
        return fresh, {number: why for number, index in left.items() if fresh.cells[index].source.strip()}
    return fresh, {}


def _fails(cell: Any) -> bool:
    return any(output.output_type == "error" for output in cell.outputs)


def _zone(saved: Any) -> str:
    """The zone that times are shown in, by the first output that tells; empty where none does."""
    zones = (_told(output).get("zone") for cell in _code(saved) for output in cell.outputs)
    return next((zone for zone in zones if isinstance(zone, str) and ZONE.fullmatch(zone)), "")


def _compare(saved: Any, fresh: Any, unreached: Mapping[int, str]) -> Iterator[CellVerdict]:
    reads_html = _mapping(_told(saved).get("made_by")).get("pandas") in (None, version("pandas"))
    for number, (cell, again) in enumerate(zip(_code(saved), _code(fresh), strict=True), 1):
        state, detail = _judge(cell, again, reads_html=reads_html)
        if number in unreached and state != "edited":
            state, detail = "failed", unreached[number]
        yield CellVerdict(number, str(cell.get("id")), state, detail, cell.source.strip().split("\n")[0][:80])


def _gone(saved: Any) -> Iterator[CellVerdict]:
    """Cells that the notebook was made with, of which it has neither the id nor the code any more."""
    there = {text for cell in _code(saved) for text in (str(cell.get("id")), cell.source)}
    made_with = _told(saved).get("cells")
    for number, pair in enumerate(made_with if isinstance(made_with, list) else (), 1):
        if not isinstance(pair, list) or len(pair) != 2 or there & {str(part) for part in pair}:
            continue
        identity, source = map(str, pair)
        yield CellVerdict(number, identity, "gone", "somebody took it out", source.strip().split("\n")[0][:80])


def _judge(saved: Any, fresh: Any, *, reads_html: bool) -> tuple[State, str]:
    for output in saved.outputs:
        for kind, sha in _shown(output).items():
            if sha_of(_text(_data(output).get(kind))) != sha:
                return "edited", f"the {kind} that is shown is not what was computed when it was saved"
    problem = next((output for output in fresh.outputs if output.output_type == "error"), None)
    refused = REFUSED in (str(problem.evalue) if problem else _stream(fresh.outputs))
    if refused:
        return "not repeated", "it acts, and verifying only reads"
    if problem is not None and not _fails(saved):
        return "failed", f"{problem.ename}: {problem.evalue}"[:300]
    if not saved.outputs and fresh.outputs:
        return "nothing saved", "there is no output to compare with"
    return _outputs(saved.outputs, fresh.outputs, reads_html=reads_html)


def _outputs(saved: Sequence[Any], fresh: Sequence[Any], *, reads_html: bool) -> tuple[State, str]:
    for read in (_stream, _errors):
        texts = [_lines(read(outputs)) for outputs in (saved, fresh)]
        if texts[0] != texts[1]:
            return "changed", _first_difference(*texts)
    rich = [[one for one in outputs if one.output_type in RICH] for outputs in (saved, fresh)]
    if len(rich[0]) != len(rich[1]):
        return "changed", f"{len(rich[0])} outputs then, {len(rich[1])} now"
    detail = ""
    for then, now in zip(*rich, strict=True):
        if found := _unproven(then, now):
            return "edited", found
        if found := _rich(then, now, reads_html=reads_html):
            return "changed", found
        if found := _forged(then, now):
            return "edited", found
        if _shown(now) and any(_told(then).get(name) != _told(now).get(name) for name in SAME_LOOK):
            detail = "its values; how they look was not compared: another store, zone or version shows them"
    return "same", detail


def _unproven(then: Any, now: Any) -> str:
    """What a saved output shows without a record that it was computed; empty where that is nothing."""
    proven, again = _shown(then), _shown(now)
    if not again:
        return ""
    if not proven:
        return "the record of what is shown is gone: it cannot be told whether it is what was computed"
    for kind in _data(then):
        if kind in again and kind not in proven:
            return f"the record of the {kind} is gone: it cannot be told whether it is what was computed"
        if kind not in proven and kind not in _data(now):
            return f"the {kind} was put in: the cell shows none"
    return ""


def _forged(then: Any, now: Any) -> str:
    """What is shown of the same values otherwise than they are, although its record fits: both were rewritten.

    Only the same versions in the same zone lay the same values out in the same way.
    """
    if not _shown(now) or any(_told(then).get(name) != _told(now).get(name) for name in SAME_LOOK):
        return ""
    for kind in sorted({*_shown(then), *_shown(now)}):
        if kind == "text/plain":
            continue  # columns are left out where dates take their room; what has no digest is read in `_rich`
        pair = [_lines(_seen(_text(_data(one).get(kind)))) for one in (then, now)]
        if pair[0] != pair[1]:
            return f"the {kind} that is shown is not that of these values, nor is its record"
    return ""


def _rich(then: Any, now: Any, *, reads_html: bool) -> str:
    """What differs between two outputs; empty where nothing does."""
    old, new = _told(then).get("digest"), _told(now).get("digest")
    if old and new:
        if old == new:
            return ""
        rows = [f"{_told(one).get('rows', '?')} rows" for one in (then, now)]
        return f"the query gives other data: {rows[0]} then, {rows[1]} now; {_differing(then, now)}"
    pair = [_lines(_text(_data(one).get("text/plain"))) for one in (then, now)]
    if pair[0] != pair[1]:
        return _first_difference(*pair)
    if _shown(now):
        return ""  # see `_forged`
    if reads_html:
        pair = [_lines(UNSEEN.sub("\n", _text(_data(one).get("text/html")))) for one in (then, now)]
        if pair[0] != pair[1]:
            return _first_difference(*pair)
    for kind in sorted({*_data(then), *_data(now)}):
        if kind not in _data(now):
            return f"{kind} then, which the cell does not show now"
        texts = [_text(_data(one).get(kind)) for one in (then, now)]
        if kind.startswith("image/") and len({"".join(text.split()) for text in texts}) > 1:
            return f"the picture ({kind}) is another one; what it was drawn from is not kept with it"
        if kind in READ and _lines(texts[0]) != _lines(texts[1]):
            return _first_difference(*map(_lines, texts))
    return ""


def _seen(text: str) -> str:
    """The words of HTML, those of its drawings too."""
    return UNSEEN.sub("\n", DRAWN.sub(lambda drawing: f'">{_drawing(drawing)}<i "', text))


def _drawing(found: re.Match[str]) -> str:
    if "base64" not in found[0].partition(",")[0]:
        return urllib.parse.unquote(found[1])
    try:
        return base64.b64decode(found[1]).decode(errors="replace")
    except ValueError:
        return found[1]


def _differing(then: Any, now: Any) -> str:
    return _first_difference(*(_lines(_text(_data(one).get("text/plain"))) for one in (then, now)))


def _first_difference(then: Sequence[str], now: Sequence[str]) -> str:
    for old, new in zip(then, now, strict=False):
        if old != new:
            return f"{old.strip()[:100]!r} then, {new.strip()[:100]!r} now"
    return f"{len(then)} lines then, {len(now)} now"


def _lines(text: str) -> list[str]:
    for name, pattern in MASKS:
        text = pattern.sub(f"<{name}>", text)
    return [re.sub(r"\s+", " ", line).strip() for line in text.splitlines() if line.strip()]


def _stream(outputs: Sequence[Any]) -> str:
    return "".join(_text(output.text) for output in outputs if output.output_type == "stream")


def _errors(outputs: Sequence[Any]) -> str:
    return "\n".join(f"{output.ename}: {output.evalue}" for output in outputs if output.output_type == "error")


def _told(holder: Any) -> Mapping[str, Any]:
    """What our part of the metadata of an output or a notebook says."""
    return _mapping(_mapping(holder.get("metadata")).get("tundra"))


def _shown(output: Any) -> Mapping[str, Any]:
    return _mapping(_told(output).get("shown"))


def _data(output: Any) -> Mapping[str, Any]:
    return _mapping(output.get("data"))


def _mapping(value: Any) -> Mapping[str, Any]:
    """What anyone may have edited by hand, read as what it should be."""
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return "".join(map(str, value)) if isinstance(value, list) else str(value or "")


def sha_of(text: str) -> str:
    """SHA-256 of one representation as a notebook's file keeps it."""
    return hashlib.sha256(text.encode()).hexdigest()


def _code(book: Any) -> Iterator[Any]:
    return (cell for cell in book.cells if cell.cell_type == "code")
