"""Export a session as an asciicast v2 recording, which asciinema and its web player show.

https://docs.asciinema.org/manual/asciicast/v2/: a header line, then one line per event. A pure function of what the
daemon keeps: the transcript's bytes, and its index of times and window sizes.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def asciicast(head: Mapping[str, Any], marks: Iterable[Mapping[str, Any]], output: bytes) -> Iterator[str]:
    """The lines of the recording, each with its line end.

    Args:
        head: the index's first line: `command`, `columns`, `rows`, `at_us`.
        marks: the other lines: `{"t", "end"}` for output up to an offset, `{"t", "columns", "rows"}` for a new size.
        output: all output from offset 0. Invalid UTF-8 is replaced, since the format is text.
    """
    header = {
        "version": 2,
        "width": head["columns"],
        "height": head["rows"],
        "timestamp": head["at_us"] // 1_000_000,
        "command": head["command"],
        "env": {"TERM": "xterm-256color"},
    }
    yield _line(header)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    done, seconds = 0, 0.0
    for mark in marks:
        seconds = max(seconds, mark["t"])
        if "columns" in mark:
            yield _line([seconds, "r", f"{mark['columns']}x{mark['rows']}"])
            continue
        text = decoder.decode(output[done : mark["end"]])
        done = max(done, mark["end"])
        if text:
            yield _line([seconds, "o", text])
    rest = decoder.decode(output[done:], final=True)
    if rest:
        yield _line([seconds, "o", rest])


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
