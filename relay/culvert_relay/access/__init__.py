"""What the relay writes down of each request, and the names by which a request is found again."""
