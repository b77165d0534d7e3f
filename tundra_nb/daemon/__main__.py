"""`python -m tundra_nb.daemon [run] [options]`: the guard, which starts the daemon proper (`serve`) as its child."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    if argv[:1] == ["serve"]:
        from tundra_nb.daemon import serve

        return serve.main(argv[1:])
    from tundra_nb import environment
    from tundra_nb.daemon import guard

    environment.hide()
    rest = argv[1:] if argv[:1] == ["run"] else argv
    # -P: the working directory must not be searched for modules; a cloned repository could bring its own
    return guard.run([sys.executable, "-P", "-m", "tundra_nb.daemon", "serve", *rest])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
