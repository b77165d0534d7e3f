"""What hides in text and what is no text, in every form in which a frame is printed."""

from __future__ import annotations

import json

import pandas as pd
import pyarrow as pa
import pytest

from tundra_nb.errors import UsageError
from tundra_nb.frames import frames
from tundra_nb.protocol import sources, versions
from tundra_nb.views import data, frame
from tundra_nb.views.blocks import clean

EVIL = "a\x1b]0;title\x07b\u202ec\u2066d\x9be\x7f"


def arrow(**columns: pa.Array) -> pa.Table:
    return pa.table(columns)


def test_a_pipe_gets_nothing_that_a_terminal_obeys() -> None:
    made = pd.DataFrame({f"head\x1b[2J{EVIL}": [EVIL]})
    head, row = frame.plain_lines(made)
    assert head.isprintable()
    assert row == clean(EVIL)
    assert row.isprintable()


@pytest.mark.parametrize("form", ["csv", "tsv"])
def test_data_for_programs_shows_controls_as_escapes(form: str) -> None:
    made = pd.DataFrame({"text": [EVIL, "two\r\nlines", "back\rover"]})
    text = data.printed(made, form)  # type: ignore[arg-type]
    assert r"a\x1b]0;title\x07b\u202ec\u2066d\x9be\x7f" in text
    assert "two\r\nlines" in text
    assert r"back\rover" in text


def test_json_escapes_what_a_terminal_obeys_and_loses_nothing() -> None:
    text = data.printed({"text": EVIL}, "json")
    assert text.replace("\n", "").isascii()
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == {"text": EVIL}


def test_text_for_people_keeps_its_order() -> None:
    assert clean("pay \u202eeve\u202c \u2067x\u2069 \u05d0\u05d1") == "pay eve x \u05d0\u05d1"


def test_a_blob_is_bytes_in_a_frame_and_a_literal_in_print() -> None:
    made = frames.from_arrow(arrow(b=pa.array([b"\x00\xff", None], pa.binary())))
    assert made["b"].tolist()[0] == b"\x00\xff"
    assert data.printed(made, "csv") == "b\nx'00ff'\n\"\""
    assert json.loads(data.printed(made, "json")) == [{"b": "x'00ff'"}, {"b": None}]
    assert "x'00ff'" in "\n".join(frame.plain_lines(made))
    assert any("x'00ff'" in str(block) for block in frame.blocks(made))
    assert frames.from_arrow(arrow(b=pa.array([b"abc"], pa.binary())))["b"].tolist() == ["abc"]


@pytest.mark.parametrize("name", ["", ".", "..", "../../d"])
def test_no_name_leads_to_another_path(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        sources.ONE.at(name=name)
    assert caught.value.field == "name"
    assert versions.UNTAG.at(name="a/b c") == "/api/tags/a%2Fb%20c"
