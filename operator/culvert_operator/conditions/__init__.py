"""Conditions of Tunnels and TunnelBindings: their shape, and the one table of their reasons."""
