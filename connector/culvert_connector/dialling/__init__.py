"""Where and when to dial a relay: pure decisions (backoff, pacing, addresses) and the one adapter that dials."""
