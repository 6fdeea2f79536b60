"""The session between connector and relay, without I/O: frames, flow control, session state, statements.

Bytes go in, callbacks and bytes come out. Nothing here knows a socket, a clock, an event loop, Kubernetes or
how HTTP requests are routed; time and randomness arrive as arguments. docs/protocol.md is the prose of it.
"""
