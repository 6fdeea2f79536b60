"""What Tunnels and TunnelBindings say of themselves: ``status`` and the Events of its transitions."""
