"""The relay: visitors on one side, sessions of connectors on the other, hostnames between them.

It knows listeners, certificates, strict HTTP/1.1 and which tunnel may serve which hostname. It must not know rules,
origins or Kubernetes, and keeps no state that it cannot rebuild from live sessions and its own files.
"""
