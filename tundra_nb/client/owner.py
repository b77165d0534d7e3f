"""Who a persistent shell belongs to."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def owner_name(caller: str) -> str:
    """The id of this kernel, which it keeps when it is restarted; elsewhere a name for this process.

    On the command line the terminal's shell counts: each command is a process of its own.
    """
    kernel = sys.modules.get("ipykernel.kernelapp")
    app = kernel.IPKernelApp if kernel is not None else None
    if app is not None and app.initialized():
        return Path(app.instance().connection_file).stem.removeprefix("kernel-")
    return f"{caller}-{os.getppid() if caller == 'cli' else os.getpid()}"
