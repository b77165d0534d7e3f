"""Injected faults: a proxy before a real provider that makes it fail in chosen ways, for drills and for tests.

It is separate because a drill is part of the product (`tundra fault`), and runs as a process of its own. May import
`errors` and the transport of `runtime.providers`.
"""
