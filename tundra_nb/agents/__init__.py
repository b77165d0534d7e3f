"""Agents at the workbench: the tools they read with, the door by which other agents come in, and our own triage.

What lives here: tools made from the table of commands (`tools`), their answers as short text (`answers`), the MCP
server (`rpc`, `approval`, `stdio`, `http`). It is separate because everything that a model reads or asks for passes
through here: the history holds text of strangers, so tools take no URL and no path, and acting is bound in code. May
import `commands`, `views` and what is below them; never `kernel`, `runtime` or `daemon`. There is no SDK: a host starts
one such process per session and waits for it.
"""
