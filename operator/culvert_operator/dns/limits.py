"""What the administrator lets Tunnels' ``dns`` blocks reach.

Responsible for: refusing what would give whoever writes a Tunnel a request from the operator's network.
Must not know: how flags are written, providers.
Invariant: nothing is reached that the administrator did not name; the default is nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping


def refusal(provider: str, settings: Mapping[str, str], *, webhook_urls: Collection[str]) -> str | None:
    """A sentence that says why a provider may not be used with these settings, or None."""
    if provider != "webhook":
        return None
    url = settings.get("url", "").rstrip("/")
    if url in {allowed.rstrip("/") for allowed in webhook_urls}:
        return None
    return f"the operator may not call the webhook {url}; have it started with --dns-webhook-urls={url}."
