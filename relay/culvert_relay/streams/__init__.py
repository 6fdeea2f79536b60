"""Visitors' connections that are passed on as bytes: by TCP port, or by TLS server name without decryption."""
