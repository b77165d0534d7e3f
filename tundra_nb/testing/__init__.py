"""Shipped parts for tests, demos and drills: things that behave like the world outside, only on command.

What lives here: a real local model (`local_model`), a provider that answers by script (`scripted_provider`), a CONNECT
proxy (`connect_proxy`), and clocks that tests drive (`clock`). The proxy that injects faults is `tundra_nb.faults`.
They are shipped because users test their own notebooks and failover with them, as the project does.

Each server listens on loopback only, runs inside an event loop or as a child process of its own, and ends with whoever
started it, also after `kill -9`. This room may import anything; nothing outside it and `tests` imports it.
"""
