"""Revocation: which credentials are to be void, where that is remembered, and how relays hear of it."""
