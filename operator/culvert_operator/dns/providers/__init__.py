"""DNS providers, found through the entry point group ``culvert.dns_providers``."""
