"""The one command, ``culvert``: arguments in, calls into the roles, sentences and exit codes out.

Each command group is a module that describes its arguments and, only when its command runs, imports what the
command needs: ``culvert keys`` must not load a web server, nor ``culvert tunnel`` a Kubernetes client.
"""
