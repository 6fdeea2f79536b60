"""external-dns's webhook protocol, version 1: its providers for culvert (client), culvert's for it (server)."""
