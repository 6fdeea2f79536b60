"""The objects that run a Tunnel's connectors, in the Tunnel's namespace.

Responsible for: what the children look like, and whether those that exist still look like it.
Must not know: how they are applied. Invariant: rendering is deterministic, and holds owned fields only.
"""
