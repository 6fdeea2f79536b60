"""The cluster: a client of its API server, a store per kind, and the carrying out of plans."""
