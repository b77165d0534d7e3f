"""The gateway: `/v1` in OpenAI's and Anthropic's own forms, for programs that know nothing of tundra.

`tokens` says who may come in, `doors` listens, `app` reads a request and writes the answer in the caller's dialect,
`openai` and `anthropic` name their paths. It decides nothing about providers: each call is an operation of the runtime,
as every `ask` is. Apart from `routes`, because a gateway token opens this room and no other.
"""
