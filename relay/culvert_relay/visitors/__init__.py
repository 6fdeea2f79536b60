"""The visitors' side of the relay: connections, requests, responses, and the answers that are the relay's own."""
