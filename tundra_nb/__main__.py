"""Where `tundra`, `jupyter tundra` and `python -m tundra_nb` begin: the door for agents at once, all else in `cli`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Entry point of the scripts; ends the process."""
    try:
        if _is_door(sys.argv):
            from tundra_nb.agents import door

            if door.serve(sys.argv[2:]):
                sys.exit(0)
        from tundra_nb import cli

        cli.main()
    except KeyboardInterrupt:  # of the door, or while `cli`, which has its own words, is imported
        if sys.stderr is not None:
            sys.stderr.write("interrupted\n")
        sys.exit(130)


def _is_door(argv: list[str]) -> bool:
    """Whether it is `tundra mcp …`, not a shell that completes that line, with streams to tell and fail on."""
    return (
        argv[1:2] == ["mcp"]
        and "_TUNDRA_COMPLETE" not in os.environ
        and None not in (sys.stdin, sys.stdout, sys.stderr)
    )


if __name__ == "__main__":
    main()
