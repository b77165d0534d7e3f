"""The contract between the processes: endpoints with their queries, bodies and answers; headers, media types, words.

One module per route family (as in `daemon/routes`) holds the structs of its queries, bodies and answers and its
`Endpoint`s; `table.ENDPOINTS` is all of them. The daemon's routes, both clients, `guide/http-api.md` and
`guide/openapi.json` read it, and a test proves that they pair up. A leaf: it may import `errors` and `types` only, does
no I/O, and knows neither HTTP library nor database.
"""
