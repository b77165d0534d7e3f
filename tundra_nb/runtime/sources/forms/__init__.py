"""The forms that a source's file may have: each reads one kind of line or record and hands its rows to a `Taker`."""
