"""What is obeyed instead of shown: escape sequences and control characters, as patterns for text and bytes."""

from __future__ import annotations

import re

CSI = r"\x1b\[[0-?]*[ -/]*[@-~]"
"""Control sequences: colours, moves of the cursor, modes."""
STRINGS = r"\x1b[]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"
"""Strings for the terminal: its title, links, marks, pictures; also one without an end."""
OTHERS = r"\x1b[ -/]*[0-~]?"
"""Every other escape sequence, and an ESC alone."""
CONTROLS = r"[\x00-\x08\x0b-\x1f\x7f]"
"""C0 without tab and newline, and DEL."""
C1 = r"[\x80-\x9f]"
"""C1 as characters; in bytes these are parts of UTF-8."""
BIDI = r"[\u202a-\u202e\u2066-\u2069]"
"""Controls that reorder the text after them: what is read is not what stands there."""

SEQUENCE = f"{CSI}|{STRINGS}|{OTHERS}"
IN_TEXT = re.compile(f"{SEQUENCE}|{CONTROLS}|{C1}|{BIDI}")
IN_BYTES = re.compile(f"{SEQUENCE}|{CONTROLS}".encode())
UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[]PX^_][^\x07\x1b]*\x1b?|[ -/]*)?\Z")
"""The beginning of a sequence at the end of a piece of text: the next piece decides."""
