"""Where `tundra`, `jupyter tundra` and `python -m tundra_nb` begin: the door for agents at once, all else in `cli`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Entry point of the scripts; ends the process."""
    if _is_door(sys.argv):
        from tundra_nb.agents import door

        try:
            if door.serve(sys.argv[2:]):
                sys.exit(0)
        except KeyboardInterrupt:
            sys.stderr.write("interrupted\n")
            sys.exit(130)  # as `cli` has it, which is not imported here
    from tundra_nb import cli

    cli.main()


def _is_door(argv: list[str]) -> bool:
    """Whether it is `tundra mcp …`, not a shell that completes that line, with streams to tell and fail on."""
    return (
        argv[1:2] == ["mcp"]
        and "_TUNDRA_COMPLETE" not in os.environ
        and None not in (sys.stdin, sys.stdout, sys.stderr)
    )


if __name__ == "__main__":
    main()
