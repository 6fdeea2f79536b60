"""`Culvert-Error: <source>; <reason>`: every answer of culvert's own, who is to blame and what to do.

Responsible for the table: what a visitor can be told by relay and connector, in words for the reference page. The code
that answers names the reasons itself; a test holds both against each other. Must not know how an answer comes about.

Invariant: (source, reason) is unique; sources are those of `codes.SOURCE`.
"""

from typing import Final, NamedTuple

# ruff: noqa: E501


class ErrorCode(NamedTuple):
    """One row. `status` is what a visitor gets; 0: whatever the rule says."""

    source: str
    reason: str
    status: int
    when: str
    remedy: str


_FIX_CLIENT: Final = "Fix the client."
_ORIGIN_LOG: Final = "Look into the service's log."
_REPORT: Final = "This is a fault of culvert's: please report it."
_AGAIN: Final = "Nothing, if it passes by itself; the `Retry-After` field says when to try again."

ERROR_CODES: Final = (
    # -- the relay, about the visitor's request ------------------------------------------------------------------
    ErrorCode("relay", "bad_request", 400, "The head holds bytes that no head may hold, or is not one at all.", _FIX_CLIENT),
    ErrorCode("relay", "bad_request_line", 400, "The request line is not `METHOD target HTTP/1.1`.", _FIX_CLIENT),
    ErrorCode("relay", "bad_target", 400, "The request target is not a path in visible ASCII.", "Percent-encode the URL."),
    ErrorCode("relay", "bad_host", 400, "`Host` is missing, doubled, not a host name, or differs from the target's.", _FIX_CLIENT),
    ErrorCode("relay", "bad_field", 400, "A header field is malformed.", _FIX_CLIENT),
    ErrorCode("relay", "bad_framing", 400, "It is not certain where the body ends: Content-Length and Transfer-Encoding "
              "contradict each other or are malformed.", _FIX_CLIENT),
    ErrorCode("relay", "bad_chunk", 400, "The chunked coding of the body is broken.", _FIX_CLIENT),
    ErrorCode("relay", "trailers_too_large", 400, "The trailers behind a chunked body are too large.", "Send fewer."),
    ErrorCode("relay", "unknown_host", 404, "No tunnel serves this host here, and no issuer may have one for it.",
              "Check the name, its DNS record, and `issuers[].hostnames` in relay.yml."),
    ErrorCode("relay", "not_found", 404, "The relay's own name was asked for something that is not there.", "Use a tunnel's host."),
    ErrorCode("relay", "source_not_allowed", 403, "The visitor's address is outside the `allowedSources` of this host.",
              "Come from an allowed address, or widen the list. Behind a proxy: `trustedProxies` in relay.yml."),
    ErrorCode("relay", "not_http", 404, "This name is passed through as TLS; nothing answers HTTP under it.",
              "Speak the service's own protocol over TLS."),
    ErrorCode("relay", "method_not_allowed", 405, "CONNECT and TRACE are not passed on.", "Use another method."),
    ErrorCode("relay", "head_timeout", 408, "The head took too long to arrive.", "Look at the visitor's network."),
    ErrorCode("relay", "body_timeout", 408, "The body arrived too slowly.", "Look at the visitor's network."),
    ErrorCode("relay", "body_too_large", 413, "The body is over `limits.bodyBytes`.", "Send less, or raise the limit in relay.yml."),
    ErrorCode("relay", "target_too_long", 414, "The request target is too long.", "Shorten the URL; send data in the body."),
    ErrorCode("relay", "unknown_expectation", 417, "`Expect` asks for something other than 100-continue.", _FIX_CLIENT),
    ErrorCode("relay", "misdirected", 421, "The TLS server name and `Host` belong to different tunnels.",
              "Let the client open a connection of its own for each host."),
    ErrorCode("relay", "too_many_from_address", 429, "The visitor's address has as many connections as it may "
              "(`limits.connectionsPerAddress`).", "Raise the limit, or list the proxy behind it in `trustedProxies`."),
    ErrorCode("relay", "head_too_large", 431, "The head is too large, or has too many fields.", "Send fewer or shorter cookies and fields."),
    ErrorCode("relay", "unknown_coding", 501, "`Transfer-Encoding` names a coding other than chunked.", _FIX_CLIENT),
    ErrorCode("relay", "unknown_method", 501, "The method is longer than any that is known.", _FIX_CLIENT),
    ErrorCode("relay", "unknown_version", 505, "The request is not HTTP/1.0 or HTTP/1.1.", _FIX_CLIENT),
    # -- the relay, about itself ---------------------------------------------------------------------------------
    ErrorCode("relay", "no_session", 503, "No connector of this host's tunnel is connected now.",
              "Start the connector, or see in its log and status why it has no session."),
    ErrorCode("relay", "sessions_busy", 503, "Every session of the tunnel has as many streams as it may.",
              "Run more connectors; look for requests that never end (`culvert_relay_streams`)."),
    ErrorCode("relay", "too_many_connections", 503, "The relay has as many visitors' connections as it takes.", "Run more relays."),
    ErrorCode("relay", "request_timeout", 504, "The request and its response took longer than `timeouts.request`.",
              "Raise the timeout, or look why the service takes so long."),
    ErrorCode("relay", "relay_error", 502, "The relay failed at this request; its log has the trace.", _REPORT),
    ErrorCode("relay", "draining", 503, "This relay is shutting down.", _AGAIN),
    # -- the session between them --------------------------------------------------------------------------------
    ErrorCode("session", "session_lost", 502, "The session ended while the request was under way, and the request could not "
              "be sent again (its method is not safe, or its body is not kept).", "Look at the network between connector and relay."),
    ErrorCode("session", "no_response", 502, "The connector ended the request without a response.", _REPORT),
    ErrorCode("session", "cancelled", 502, "The connector gave the request up.", _REPORT),
    ErrorCode("session", "protocol_error", 502, "Relay and connector did not understand each other.", "Update the older of the two."),
    ErrorCode("session", "flow_control", 502, "Relay and connector did not understand each other.", "Update the older of the two."),
    ErrorCode("session", "reset", 502, "The connector ended the request for a reason that this relay does not know.", "Update the relay."),
    ErrorCode("session", "unexpected_head", 502, "The relay sent a response's head to the connector.", _REPORT),
    ErrorCode("session", "body_longer_than_declared", 502, "More body bytes came to the connector than the head announced.", _REPORT),
    ErrorCode("session", "body_shorter_than_declared", 502, "Fewer body bytes came to the connector than the head announced.", _REPORT),
    # -- the connector -------------------------------------------------------------------------------------------
    ErrorCode("connector", "no_rule", 404, "The connector has no rule for this host and path.",
              "Look whether the configuration is applied (`appliedVersion` in its status), and at the rule's path. The status "
              "is the configuration's fallback."),
    ErrorCode("connector", "unauthorized", 401, "The rule asks for a user name and password, and these are missing or wrong.",
              "Send those that the rule's file names."),
    ErrorCode("connector", "http_status", 0, "A rule answers with this status: `service: http_status:N`.", "Nothing: it is meant so."),
    ErrorCode("connector", "service_unavailable", 503, "The rule's Service cannot be served; the body says why.",
              "See the TunnelBinding's conditions."),
    ErrorCode("connector", "no_configuration", 503, "No connector has a configuration yet.", "See the connector's log and status."),
    ErrorCode("connector", "refused", 503, "No connector takes this request now.", _AGAIN),
    ErrorCode("connector", "unavailable", 503, "The service is not available, and the connector did not say why.", _REPORT),
    ErrorCode("connector", "connector_stops", 503, "The connector is stopping.", _AGAIN),
    ErrorCode("connector", "connector_exhausted", 503, "The connector has run out of descriptors, ports or memory.",
              "Raise its limit of open files, or run more connectors."),
    ErrorCode("connector", "not_http", 400, "The rule's service is not HTTP.", "Reach it by its TCP port, or with `culvert access tcp`."),
    ErrorCode("connector", "connector_error", 502, "The connector failed in an unforeseen way; its log has the trace.", _REPORT),
    ErrorCode("connector", "internal", 502, "The connector failed, and did not say why.", _REPORT),
    ErrorCode("connector", "nobody_listens", 502, "The connector had no use for the request.", _REPORT),
    ErrorCode("connector", "unexpected_head", 502, "The origin's connection was used against its order.", _REPORT),
    ErrorCode("connector", "bad_response", 502, "The connector sent a response that is not well-formed; its session has been ended.",
              "A connector is not what it should be: look who runs it."),
    ErrorCode("connector", "body_too_large", 413, "The rule has `disableChunkedEncoding`, and a body without a length is over "
              "what the connector collects.", "Send it with Content-Length."),
    ErrorCode("connector", "collecting_full", 503, "The rule has `disableChunkedEncoding`, and the connector collects as many "
              "bodies without a length as it may.", _AGAIN),
    ErrorCode("connector", "bad_websocket_key", 400, "A TCP rule was asked for by WebSocket, with a handshake that is none.", _FIX_CLIENT),
    ErrorCode("connector", "unknown_websocket_version", 400, "The same, with a version other than 13.", _FIX_CLIENT),
    ErrorCode("connector", "bad_request", 400, "The connector refused the request as malformed.", _FIX_CLIENT),
    ErrorCode("connector", "bad_host", 400, "The host is not ASCII.", _FIX_CLIENT),
    ErrorCode("connector", "bad_method", 400, "The method cannot be passed on.", _FIX_CLIENT),
    ErrorCode("connector", "bad_target", 400, "The request target cannot be passed on.", _FIX_CLIENT),
    ErrorCode("connector", "bad_authority", 400, "The `Host` cannot be passed on.", _FIX_CLIENT),
    ErrorCode("connector", "bad_fields", 400, "The fields cannot be passed on.", _FIX_CLIENT),
    ErrorCode("connector", "not_absolute", 400, "The path does not begin with `/`, and the host has rules by path.", _FIX_CLIENT),
    ErrorCode("connector", "backslash", 400, "The path holds a backslash, and the host has rules by path.", _FIX_CLIENT),
    ErrorCode("connector", "nul", 400, "The path holds a NUL byte, and the host has rules by path.", _FIX_CLIENT),
    ErrorCode("connector", "escapes_root", 400, "The path leads out of the root, and the host has rules by path.", _FIX_CLIENT),
    ErrorCode("connector", "dot_parameters", 400, "The path holds `/..;` or `/.;`, and the host has rules by path.", _FIX_CLIENT),
    ErrorCode("connector", "bad_escape", 400, "The path holds a broken percent-escape, and the host has rules by path.", _FIX_CLIENT),
    # -- the origin: the service behind the rule -----------------------------------------------------------------
    ErrorCode("origin", "connection_refused", 502, "Nothing listens at the service's address and port.", "Start it, or correct the rule."),
    ErrorCode("origin", "connection_reset", 502, "The service reset the connection before it was ready.", _ORIGIN_LOG),
    ErrorCode("origin", "connection_failed", 502, "The service cannot be reached; the connector's log says why.",
              "Look at routes and network policies between the connector and the service."),
    ErrorCode("origin", "connect_timeout", 504, "The service took no connection within `connectTimeout`.",
              "Look at network policies and at the service's load."),
    ErrorCode("origin", "response_timeout", 504, "The service took the request and did not begin its response within `responseTimeout`.",
              "Look why it takes so long, or raise `responseTimeout`."),
    ErrorCode("origin", "upload_timeout", 504, "The service took nothing of the request's body for `responseTimeout`.",
              "Look why it does not read, or raise `responseTimeout`."),
    ErrorCode("origin", "name_not_found", 502, "The service's name was not found in DNS.", "Correct the rule's host name."),
    ErrorCode("origin", "address_not_allowed", 502, "The service's name leads to addresses that connectors may not use.",
              "Name a service that is inside; see `originRequest` and the address policy."),
    ErrorCode("origin", "certificate_not_trusted", 502, "The service's certificate was not accepted.", "Set `originServerName` or `caPool`."),
    ErrorCode("origin", "tls_failed", 502, "The TLS handshake with the service failed.", "Look whether it speaks TLS on this port at all."),
    ErrorCode("origin", "bad_ca", 502, "The rule's `caPool` cannot be used.", "Put PEM certificates into it."),
    ErrorCode("origin", "origin_unreachable", 502, "The service could not be reached, and the connector did not say why.", _REPORT),
    ErrorCode("origin", "origin_timeout", 504, "The service did not answer in time, and the connector did not say how.", _REPORT),
    ErrorCode("origin", "origin_protocol", 502, "The service sent no valid response, and the connector did not say how.", _REPORT),
    ErrorCode("origin", "origin_closed_early", 502, "The service closed the connection before its response was complete.", _ORIGIN_LOG),
    ErrorCode("origin", "origin_reset", 502, "The service's connection broke before its response was complete.", _ORIGIN_LOG),
    ErrorCode("origin", "kept_connection_closed", 502, "The service closed a kept-alive connection as a request was on its way that "
              "may not be sent twice.", "Make `keepAliveTimeout` shorter than the service's own."),
    ErrorCode("origin", "bad_response", 502, "The service's response is not valid HTTP/1.1.", _ORIGIN_LOG),
    ErrorCode("origin", "response_head_too_large", 502, "The response's head is too large with what the rule's `responseHeaders` "
              "add to it.", "Let the service, or the rule, send fewer or shorter fields."),
    ErrorCode("origin", "too_many_informational_responses", 502, "The service sent 1xx responses without end.", _ORIGIN_LOG),
    ErrorCode("origin", "unexpected_switch", 502, "The service switched protocols (101) unasked.", _ORIGIN_LOG),
    ErrorCode("origin", "switched_to_another_protocol", 502, "The service switched to a protocol other than WebSocket.", _ORIGIN_LOG),
    ErrorCode("origin", "wrong_websocket_accept", 502, "The service's `Sec-WebSocket-Accept` does not fit the handshake.", _ORIGIN_LOG),
    ErrorCode("origin", "wrong_websocket_protocol", 502, "The service chose a WebSocket subprotocol that was not offered.", _ORIGIN_LOG),
)  # fmt: skip
"""In the order of the reference page."""

_SOURCES: Final = (
    ("relay", "the relay", "Statuses below 500 are the visitor's doing: metrics and the access log blame `visitor`."),
    (
        "session",
        "the session between relay and connector",
        "Safe requests have been tried again elsewhere before this.",
    ),
    ("connector", "the connector", "Statuses 400 are requests that the relay let through and the connector did not."),
    ("origin", "the origin", "The service that a rule leads to. The connector's log names rule and reason."),
)


def reference() -> str:
    """The table as the page docs/errors.md."""
    lines = [
        "# Errors: what `Culvert-Error` says",
        "",
        "<!-- Made from protocol/culvert_protocol/attribution.py by `python hack/docs/generate.py`. -->",
        "",
        "Every answer that no origin gave carries `Culvert-Error: <source>; <reason>`. An answer without it is the "
        "origin's own, whatever its status. The [metrics](metrics.md) count by source, the access log shows both.",
    ]
    for source, name, note in _SOURCES:
        lines += [
            "",
            f"## Source `{source}`: {name}",
            "",
            note,
            "",
            "| reason | status | when | what to do |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| `{row.reason}` | {row.status or 'any'} | {row.when} | {row.remedy} |"
            for row in ERROR_CODES
            if row.source == source
        ]
    return "\n".join(lines) + "\n"
