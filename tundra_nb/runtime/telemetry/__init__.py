"""What can be seen of the runtime from outside: the event bus, log lines, and the redactor that masks secrets in both.

May import `settings`, `types`, `errors` and `clock`; never another room of the runtime, so that every room may use it.
"""
