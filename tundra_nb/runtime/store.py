"""The history as the settings want it, with the logins that belong to it.

Apart from the composition root because it imports little: the daemon opens the history before it imports the rest, so
that the store worker starts meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping

from tundra_nb.paths import Paths
from tundra_nb.runtime.clock import Clock, Ids
from tundra_nb.runtime.history.service import History
from tundra_nb.runtime.telemetry.redact import Redactor
from tundra_nb.settings import StoreSettings, store_login


def history_of(
    store: StoreSettings, paths: Paths, environ: Mapping[str, str], *, redactor: Redactor, ids: Ids, clock: Clock
) -> History:
    """Make the history, not open yet. For a server that we manage, with its logins, which are masked from now on."""
    password = environ.get(store.password_env, "") if store.password_env else ""
    login = store_login.load(paths.dolt) if store.engine == "dolt" and not password else None
    if login is None or not login.fits(store.host, store.port, store.user):
        reader = (store.reader_user, environ.get(store.reader_password_env, "") if store.reader_user else "")
        return History(paths, store, ids, clock, password=password, reader=reader, environ=environ, mask=redactor.text)
    for name, value in (("dolt password", login.password), ("dolt reader", login.reader_password)):
        redactor.register(name, value)
    reader = (login.reader, login.reader_password) if login.database == store.database else ("", "")
    return History(
        paths,
        store,
        ids,
        clock,
        password=login.password,
        reader=reader,
        environ=environ,
        mask=redactor.text,
    )
