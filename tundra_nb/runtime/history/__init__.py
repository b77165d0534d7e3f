"""History: what happened, kept under version control.

Here live the spool (the daemon's append-only log of events), the store worker (a process that follows the spool into
the database), the two engines behind one `EventStore` contract, and the daemon's face of it all, `service.History`.

It is a room of its own, and the worker a process of its own, because the embedded engine replaces `sqlite3` in the
whole process it is loaded into, and because reading a million rows must not stall the daemon's loop. The daemon imports
`service`, `spool`, `protocol` and `query` only; doltlite, PyMySQL and pyarrow are imported in the worker alone.

May import `tundra_nb.errors`, `tundra_nb.types`, `tundra_nb.settings`, `tundra_nb.paths` and `tundra_nb.runtime.clock`.
Never: another room of the runtime, a web framework, pandas. Nothing here, nor in the packages above it, may import
`sqlite3` before `worker` has loaded doltlite.
"""
