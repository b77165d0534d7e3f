"""The runtime: provider calls, terminals and history, with no web framework, Jupyter or pandas in it.

May import `errors`, `types`, `settings`; reads no environment and no configuration file: both are passed in.
`runtime.runtime` is the only place where its parts are put together.
"""
