"""A real single-node Kubernetes on a bare Linux machine, built from pinned Go modules.

Standard library only: it runs before any virtual environment exists. Pure pieces (what to build, what to start with
which arguments, what to clean) are values and functions; `node`, `control_plane_run` and `building` do what they say.
"""
