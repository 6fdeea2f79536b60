"""The connectors' side of the relay: their handshakes, their sessions, what they may serve."""
