"""A Realtime-compatible voice server on loopback that needs no key.

It speaks the GA events of the OpenAI Realtime API, so that a client cannot tell the
difference. `session` is the conversation as a machine without sockets, `scripted` and
`demo` are its two minds, `server` is the websocket, `speech` the process that hears
and speaks. docs/scripts.md is the language of the scripted mind.
"""
