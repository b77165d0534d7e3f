"""Text of terminals as data: escape sequences, colours, the screen, recordings. Pure functions; no I/O.

It is separate because views, frames and widgets read terminal output alike. May import `errors` and `types` only.
"""
