"""Sessions on real sockets: the asyncio side that relay and connector share.

Knows event loops, TLS transports and socket options; knows neither HTTP, routing nor Kubernetes. What a session
means is `culvert_protocol`'s; this package only pumps its bytes and keeps its time.
"""
