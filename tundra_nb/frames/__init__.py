"""Answers as DataFrames: fixed columns and dtypes, also when there are no rows.

It is separate so that pandas stays out of whoever only makes calls. May import `errors`, `types`, `settings`; pandas
and pyarrow are imported when a frame is made.
"""
