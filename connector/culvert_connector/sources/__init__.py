"""Where configuration and credentials come from: one port, a watched file and a watched ConfigMap and Secret."""
