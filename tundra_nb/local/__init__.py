"""The daemon on this machine: find it, start it, stop it, and the same for a Dolt server of our own.

It is separate from `client` because the Jupyter extension and `doctor` need it without any call on the API. May import
`errors`, `types`, `settings`, `paths`, `sse`; never `client`, `runtime` or `daemon`.
"""
