"""Bytes as the tools of a terminal show them, many lines long."""

from __future__ import annotations


def dumped(raw: bytes) -> dict[str, str]:
    """By the command that writes it so."""
    rows = [raw[at : at + 16] for at in range(0, len(raw), 16)]
    seen = ["".join(chr(byte) if 32 <= byte < 127 else "." for byte in row) for row in rows]
    words = [[row[at : at + 2].ljust(2, b"\0") for at in range(0, len(row), 2)] for row in rows]

    def lines(form: str, *columns: list[str]) -> str:
        body = (form.format(16 * at, *cells) for at, cells in enumerate(zip(*columns, strict=True)))
        return "\n" + "\n".join(body) + "\n"

    def cells(form: str, sign: str = "") -> list[str]:
        return [sign.join(form.format(byte) for byte in row) for row in rows]

    def numbers(form: str) -> list[str]:
        return ["".join(form.format(int.from_bytes(word, "little")) for word in row) for row in words]

    letters = {10: r"\n", **{code: chr(code) for code in range(32, 127)}}
    halves = [f"{row[:8].hex(' ')}  {row[8:].hex(' ')}" for row in rows]
    return {
        "xxd": lines("{:08x}: {:39}  {}", [row.hex(" ", -2) for row in rows], seen),
        "xxd -g 1 -u": lines("{:08x}: {:47}  {}", cells("{:02X}", " "), seen),
        "hexdump -C": lines("{:08x}  {:48}  |{}|", halves, seen),
        "hexdump": lines("{:07x}{}", numbers(" {:04x}")),
        "hexdump -x": lines("{:07x}{}", numbers("    {:04x}")),
        "hexdump -d": lines("{:07x}{}", numbers("   {:05}")),
        "od": lines("{:07o}{}", numbers(" {:06o}")),
        "od -b": lines("{:07o}{}", cells(" {:03o}")),
        "od -c": lines(
            "{:07o}{}", ["".join(letters.get(byte, f"{byte:03o}").rjust(4) for byte in row) for row in rows]
        ),
        "od -t x1": lines("{:07o}{}", cells(" {:02x}")),
        "od -t x1z": lines("{:07o}{:48}  >{}<", cells(" {:02x}"), seen),
        "od -A n -t u1": lines("{1}", cells("{:4}")),
        "od -A n -t x1z": lines("{1:48}  >{2}<", cells(" {:02x}"), seen),
        "Format-Hex": lines("{:08X}   {:47}  {}", cells("{:02X}", " "), seen),
        "gdb": lines("0x7fff{:08x}:{}", cells("\t0x{:02x}")),
    }
