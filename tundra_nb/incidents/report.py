"""What verifying found, as one HTML page that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from .notebook import not_written
from .verify import NOTHING, WRONG, CellVerdict, Verdict

STYLE = """
:root { color-scheme: light dark; --ink: #24292f; --ground: #fff; --line: #d8dee4; --bad: #c22c2c; --good: #1f7a43;
        --dim: #636c76; }
@media (prefers-color-scheme: dark) { :root { --ink: #e2e8ee; --ground: #1c2128; --line: #3a424c; --bad: #f0605a;
        --good: #3fb566; --dim: #9aa5b1; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 2rem auto;
       max-width: 70rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid var(--line); }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
code, pre { font: 13px/1.45 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
.same { color: var(--good); } .wrong { color: var(--bad); font-weight: 600; } .dim { color: var(--dim); }
"""


def page(verdicts: Sequence[Verdict]) -> str:
    """The whole page."""
    wrong = sum(cell.state in WRONG for verdict in verdicts for cell in verdict.cells)
    cells = sum(len(verdict.cells) for verdict in verdicts)
    head = (
        f"{cells - wrong} of {cells} cells are as they were saved"
        if wrong
        else f"All {cells} cells are the same"
        if cells
        else NOTHING
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(head)}</title>'
        '<meta name="viewport" content="width=device-width"><meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<style>{STYLE}</style><h1>{html.escape(head)}</h1>{''.join(map(_notebook, verdicts))}</html>\n"
    )


def write(verdicts: Sequence[Verdict], file: Path) -> None:
    """Write the page.

    Raises:
        UsageError: it cannot be written.
    """
    draft = file.with_name(f".{file.name}.new")
    try:
        draft.write_text(page(verdicts))
        draft.replace(file)
    except OSError as exc:
        draft.unlink(missing_ok=True)
        raise not_written(file, exc) from exc


def _notebook(verdict: Verdict) -> str:
    masked = ", ".join(f"{name} × {count:,}" for name, count in sorted(verdict.masked.items()))
    told = f'<p class="dim">Left out of the comparison of text: {html.escape(masked)}.</p>' if masked else ""
    rows = "".join(map(_row, verdict.cells))
    return (
        f"<h2>{html.escape(verdict.notebook)}</h2>{told}<table><thead><tr><th>Cell<th>State<th>Command<th>What differs"
        f"<tbody>{rows}</table>"
    )


def _row(cell: CellVerdict) -> str:
    style = "wrong" if cell.state in WRONG else "same" if cell.state == "same" else "dim"
    return (
        f'<tr><td class="n">{cell.number}<td class="{style}">{html.escape(cell.state)}'
        f"<td><code>{html.escape(cell.source)}</code><td><pre>{html.escape(cell.detail)}</pre>"
    )
