"""One click command per sub-command, shared by the command line and the `%tundra` magics.

What lives here: a file per sub-command (a click command → a call on the client → a result), the table that registers
them, the options they share, and the views that show their results as text, HTML or JSON. It is separate so that both
faces say the same, complete the same and fail the same. May import `client` and what is below it, click and rich; never
IPython: a face (`face.Face`) brings what differs.
"""
