"""Sources: records of other programs and other machines, read beside the own history and never mixed into it.

A source is a folder of Parquet tables with the history's own columns, made once from a file and never changed. Reading
and making them happens in a worker process of its own that starts when it is first needed and ends when it is idle, so
that a hostile or huge file harms neither the daemon nor the history.

The daemon imports `service` only; pyarrow is imported in the worker. May import `runtime.history` and
`runtime.telemetry.redact`. Never: the rest of the runtime, a web framework, pandas.
"""
