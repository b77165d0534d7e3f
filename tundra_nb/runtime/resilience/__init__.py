"""Resilience: what keeps calls to providers safe, as pure state machines.

- `bucket.py`: one token bucket, and the places booked in it.
- `limiter.py`: buckets over tiers and resources, all or nothing; FIFO waiters; refund, settle, penalise.
- `breaker.py`: Closed, Open, HalfOpen of one profile, as a function of time.
- `retry.py`: how long to pause before trying the same profile again.
- `router.py`: which profiles, in which order, and what to do after an error.

They are apart from everything that does I/O so that every rule is tested on a virtual clock, and so that recorded
traffic can be run through them again. Time comes from an injected clock; the only awaitable is `Limiter.reserve`, which
waits on a future. May import `tundra_nb.errors`, `types`, `settings` and `runtime.clock`; never a transport, a provider
or the history.
"""
