"""The daemon: one process per data directory that holds the runtime and serves it on a Unix socket.

- `__main__`, `guard`: `python -m tundra_nb.daemon`, and the tiny parent that leaves no process behind.
- `lock`, `connection`: what makes it the only one, and how others find it.
- `serve`, `life`: its life from start to stop, and who keeps it alive.
- `upkeep`, `dolt_upkeep`: looks after the files it is found by, and a Dolt server of its own.
- `app`, `routes`: what it answers.

It is a process of its own because the runtime must neither block a notebook nor share one's interpreter (doltlite has
to come before sqlite3), and because several Jupyter servers of one user need one writer. May import everything below
(`runtime`, `local`, `settings`, `paths`, `types`, `errors`); never `client`, `server`, `commands`, `kernel`. The file
locks and signals of the project live here. Modules that run before the lock is held import the standard library only,
so that the loser of a race is gone in a moment.
"""
