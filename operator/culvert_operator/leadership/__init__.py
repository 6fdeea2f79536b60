"""Leadership: which of several operators writes, decided by a Lease, and kept from the one that no longer may."""
