"""The visitor's end of TCP over WebSocket: a local connection, or standard input and output, carried to a relay.

`main` runs it; `client` opens the far side, `carrying` moves the bytes, `standard_io` makes a connection of a process's
own input and output.
"""
