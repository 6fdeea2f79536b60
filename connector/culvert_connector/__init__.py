"""The connector: sessions outward to relays, and requests from them to the services behind it.

Knows relays, rules and origins. Does not know how rules came to be, and knows Kubernetes only inside one small
configuration source.
"""
