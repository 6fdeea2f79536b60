"""Which sessions may serve a hostname, and which of them gets the next request. Pure: no sockets, no clock."""
