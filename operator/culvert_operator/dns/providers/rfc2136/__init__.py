"""Any authoritative server by dynamic update (RFC 2136), read by transfer (RFC 5936), signed by TSIG (RFC 8945)."""
