"""DNS records of published hostnames: endpoints, a pure planner, ownership in TXT, providers."""
