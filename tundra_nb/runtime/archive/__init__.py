"""Archive: old days of the history, copied as Parquet files, and read together with it through DuckDB.

What stands in the archive stands in the history too: nothing is deleted, and nothing is counted twice. It makes
questions over months cheap that a versioned store answers row by row.

Copying and reading happen in a worker process of its own, which the store worker hands the rows to, and which DuckDB
is imported in, when it is installed. The daemon imports `service` and `place` only. May import `runtime.history` and
`runtime.sources.tables` (Parquet files with our columns). Never: the rest of the runtime, a web framework, pandas.
"""
