"""The bridge: the Jupyter server extension that hosts the daemon for the server's users.

What lives here: the extension (`app`: start, traits, end), the proxy (`proxy`: authenticate, authorise, pass on) and
the supervisor (`supervisor`: start, watch, restart, stop). It is separate because it runs in somebody else's process:
no business rules, no work of its own on the server's loop, nothing that can break the server's start. May import
`errors`, `paths`, `local.launch`, tornado and jupyter_server; never `runtime` or `daemon`.
"""
