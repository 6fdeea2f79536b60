"""culvert's ingress core: hostnames, rules, matching, the configuration document and `config.yml`.

Everything here is pure: text and bytes in, values out. Nothing opens a file or a socket, asks a clock or knows
Kubernetes. The relay uses `hostnames` only; the connector, the operator and the command line use the rest.
"""
