"""Agents at the workbench: the tools they read with, the door by which other agents come in, and our own triage.

What lives here: tools made from the table of commands (`tools`), their answers as short text (`answers`), the MCP
server (`rpc`, `calling`, `approval`, `stdio`, `http`; hosts come by `door`), the triage with its rules (`triage`,
`rules`) and its loop over a model (`loop`), and the commands of both. It is separate because everything that a model
reads or asks for passes through here: the history holds text of strangers, so tools take no URL and no path, acting is
bound in code, and claims without rows are struck. May import `commands`, `views` and what is below them; never
`kernel`, `runtime` or `daemon`. There is no SDK: a host starts one such process per session and waits for it.
"""
