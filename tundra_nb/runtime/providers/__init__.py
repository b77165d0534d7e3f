"""Providers: one adapter per wire format behind one contract, and the transport under them.

Wire formats (`openai`, `openrouter`, `anthropic`) and everything they share (`classify`, `usage`, `sse`, `headers`,
`check`) are pure; only `provider` and `transport` do I/O. The room knows nothing of limiter, breaker, router or
history: an attempt takes an `Ask` and gives pieces of text and one `Answer`, or raises one `TundraError`; what is done
about that is decided elsewhere. May import `errors`, `types`, `settings`; never a sibling room.
"""
