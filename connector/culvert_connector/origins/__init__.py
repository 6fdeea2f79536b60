"""The services behind the connector: pooled connections to them and the exchanges that run on these."""
