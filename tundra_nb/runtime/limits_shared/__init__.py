"""Limits that several daemons share: their buckets live on a Valkey (or Redis) server.

What lives here: the script that decides on the server (`script.lua`), the way to it (`server`), and the limiter that
asks it (`limiter`). It is separate because it needs a server and a package that most do without (`tundra-nb[shared]`).
May import `resilience`, whose buckets are the rule that the script follows and whose limiter is the share that is used
while the server is away; `resilience` never imports this. Breakers are not shared: a breaker often measures this
machine's own network or key.
"""
