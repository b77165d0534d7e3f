"""Checks of everything that tundra stands on; they also run when the daemon is dead.

`run` runs them in parallel, each with a deadline; `checks` is the table of them, one module per group; `fixes` are the
remedies that are safe to carry out; `bundle` packs what a report needs, masked.

It may import `local`, `settings`, `guide` and `errors`, and asks the daemon by `local.running`; never `runtime` or
`daemon`, which must not be loaded where everything else is broken. It lies below `client` and not above `views`,
because `t.doctor()` is one of the client's methods.
"""
