"""What culvert does with each key of cloudflared's `config.yml`, and with its own: one table.

Responsible for: the verdict on every key and the sentence that a person reads. `config_file` acts on it and
`docs/config.md` is made from it. A key that is not here is an error that names the nearest one that is.

Invariant: every refused key says what to do instead; every harmless key says why nothing is lost. A refused key whose
value is the one that switches it off (`inert`) is accepted, because it asks for what culvert does anyway.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["ORIGIN_REQUEST", "RULE", "TABLES", "TOP_LEVEL", "Key", "Verdict"]


class Verdict(enum.StrEnum):
    """What happens to a key."""

    HONOURED = "honoured"
    HARMLESS = "harmless"  # a warning
    REFUSED = "refused"  # an error


@dataclass(frozen=True, slots=True)
class Key:
    """One row: for honoured keys `text` describes the value, otherwise it says what to do instead or why not needed."""

    verdict: Verdict
    text: str
    inert: tuple[object, ...] = ()


def _honoured(text: str) -> Key:
    return Key(Verdict.HONOURED, text)


def _harmless(text: str) -> Key:
    return Key(Verdict.HARMLESS, text)


def _refused(text: str, *inert: object) -> Key:
    return Key(Verdict.REFUSED, text, inert)


def _moved(name: str) -> Key:
    return _refused(f"write it as {name} under originRequest")


_NO_SINGLE_ORIGIN = "write the service as a rule under ingress, such as '- service: http://localhost:8080'"
_NO_DNS_PROXY = "culvert is no DNS proxy; run a resolver of its own and remove this key"
_NO_QUIC = "sessions run over TLS on TCP"
_NO_SSH_SERVER = "culvert has no SSH server of its own; remove it"
_LOGS_ON_STDERR = (
    "logs go to standard error; set what is logged by --log-level and --log-format, and redirect it to a file"
)
_NO_UPDATES = "culvert never updates itself"

TOP_LEVEL: dict[str, Key] = {
    # culvert's own
    "relay": _honoured("address of a relay as host:port, or a list of them"),
    "relay-ca": _honoured(
        "path of PEM certificates that the relay's certificate is checked with; default: the system's"
    ),
    "relay-server-name": _honoured("the name that the relay's certificate must have; default: the host in relay"),
    "relay-proxy": _honoured(
        "URL of an HTTP proxy that relays are dialled through, as http://host:port without a user name; default: what "
        "HTTPS_PROXY and NO_PROXY say, where a proxy's user name and password belong"
    ),
    # cloudflared's
    "tunnel": _honoured("name of the tunnel, as in its credentials file"),
    "credentials-file": _honoured("path of the file that `culvert tunnel create` wrote"),
    "ingress": _honoured("list of rules; the first that matches a request answers it, the last must match everything"),
    "originRequest": _honoured("how origins are spoken to, for every rule that does not say otherwise"),
    "metrics": _honoured("address of status and metrics as host:port; default 127.0.0.1:20241. Other forms: a warning"),
    "grace-period": _honoured("time that requests in flight get when the connector stops; default 30s"),
    "ha-connections": _honoured("sessions that the connector keeps; default 4"),
    "warp-routing": _refused(
        "culvert publishes hostnames, not private networks; remove it, and use a VPN for whole networks",
        {"enabled": False},
    ),
    "url": _refused(_NO_SINGLE_ORIGIN),
    "hostname": _refused(_NO_SINGLE_ORIGIN),
    "unix-socket": _refused("write it as a rule under ingress, such as '- service: unix:/run/app.sock'"),
    "hello-world": _refused("write it as a rule under ingress: '- service: hello_world'", False),
    "bastion": _refused("jump hosts are not supported yet; remove it", False),
    "socks5": _refused("SOCKS proxies are not supported yet; remove it", False),
    "proxy-connect-timeout": _moved("connectTimeout"),
    "proxy-tls-timeout": _moved("tlsTimeout"),
    "proxy-tcp-keepalive": _moved("tcpKeepAlive"),
    "proxy-keepalive-connections": _moved("keepAliveConnections"),
    "proxy-keepalive-timeout": _moved("keepAliveTimeout"),
    "proxy-no-happy-eyeballs": _harmless("addresses of an origin are tried one after another in any case"),
    "http-host-header": _moved("httpHostHeader"),
    "origin-server-name": _moved("originServerName"),
    "origin-ca-pool": _moved("caPool"),
    "no-tls-verify": _moved("noTLSVerify"),
    "no-chunked-encoding": _moved("disableChunkedEncoding"),
    "http2-origin": _refused(
        "HTTP/2 to origins is not supported yet; remove it: origins are spoken to in HTTP/1.1", False
    ),
    "proxy-address": _refused(_NO_SINGLE_ORIGIN),
    "proxy-port": _refused(_NO_SINGLE_ORIGIN),
    "disable-path-normalization": _refused("paths are always normalised before they are matched; remove it", False),
    "token": _refused(
        "a token in a file that others read is a leak: use credentials-file, made by `culvert tunnel create`"
    ),
    "token-file": _refused("use credentials-file, made by `culvert tunnel create`"),
    "credentials-contents": _refused("put the credentials into a file of mode 0600 and name it in credentials-file"),
    "edge": _refused("write the relay's address in relay"),
    "cacert": _refused("write the path in relay-ca"),
    "edge-bind-address": _refused(
        "binding to one local address is not supported yet; choose the source address by routing"
    ),
    "post-quantum": _refused("sessions use the key exchange that TLS agrees on; remove it", False),
    "max-active-flows": _refused("a limit on flows is not supported yet; remove it"),
    "write-stream-timeout": _refused("a timeout for writes to the relay cannot be set; remove it", "0s", 0),
    "tag": _refused("tags are not sent to origins as headers; remove it"),
    "pidfile": _refused(
        "no PID file is written; let a service manager start the connector, such as systemd with Type=exec"
    ),
    "trace-output": _refused("execution traces are not written; remove it"),
    "allowed-mail": _refused("access control at the relay is not supported yet; put it in front of the service"),
    "proxy-dns": _refused(_NO_DNS_PROXY, False),
    "proxy-dns-port": _refused(_NO_DNS_PROXY),
    "proxy-dns-address": _refused(_NO_DNS_PROXY),
    "proxy-dns-upstream": _refused(_NO_DNS_PROXY),
    "proxy-dns-max-upstream-conns": _refused(_NO_DNS_PROXY),
    "proxy-dns-bootstrap": _refused(_NO_DNS_PROXY),
    "dns-resolver-addrs": _refused("the system's resolver finds origins; set it there and remove this key"),
    "icmpv4-src": _refused("ICMP is not tunnelled; remove it"),
    "icmpv6-src": _refused("ICMP is not tunnelled; remove it"),
    "local-ssh-port": _refused(_NO_SSH_SERVER),
    "ssh-server": _refused(_NO_SSH_SERVER, False),
    "ssh-idle-timeout": _refused(_NO_SSH_SERVER),
    "ssh-max-timeout": _refused(_NO_SSH_SERVER),
    "bucket-name": _refused(_NO_SSH_SERVER),
    "region-name": _refused(_NO_SSH_SERVER),
    "secret-id": _refused(_NO_SSH_SERVER),
    "access-key-id": _refused(_NO_SSH_SERVER),
    "session-token": _refused(_NO_SSH_SERVER),
    "s3-url-host": _refused(_NO_SSH_SERVER),
    "host-key-path": _refused(_NO_SSH_SERVER),
    "lb-pool": _refused("load balancing pools are Cloudflare's; run several connectors of one tunnel instead"),
    "name": _refused("write the tunnel's name in tunnel; make a new tunnel with `culvert tunnel create`"),
    "id": _refused("write the tunnel's name in tunnel"),
    "api-key": _refused("there is no account to log in to; remove it and revoke the key where it was made"),
    "api-email": _refused("there is no account to log in to; remove it"),
    "api-ca-key": _refused("there is no account to log in to; remove it and revoke the key where it was made"),
    "loglevel": _harmless("set the level by --log-level or CULVERT_LOG_LEVEL"),
    "transport-loglevel": _harmless("set the level by --log-level or CULVERT_LOG_LEVEL"),
    "proto-loglevel": _harmless("set the level by --log-level or CULVERT_LOG_LEVEL"),
    "log-level": _harmless("set the level by --log-level or CULVERT_LOG_LEVEL"),
    "logfile": _harmless(_LOGS_ON_STDERR),
    "log-directory": _harmless(_LOGS_ON_STDERR),
    "logDirectory": _harmless(_LOGS_ON_STDERR),
    "output": _harmless("set the format by --log-format or CULVERT_LOG_FORMAT"),
    "protocol": _harmless(_NO_QUIC),
    "quic-disable-pmtu-discovery": _harmless(_NO_QUIC),
    "quic-connection-level-flow-control-limit": _harmless(_NO_QUIC),
    "quic-stream-level-flow-control-limit": _harmless(_NO_QUIC),
    "edge-ip-version": _harmless("every address of the relay gets sessions; name the addresses wanted in relay"),
    "region": _harmless("the relays are those in relay"),
    "no-autoupdate": _harmless(_NO_UPDATES),
    "autoupdate-freq": _harmless(_NO_UPDATES),
    "is-autoupdated": _harmless(_NO_UPDATES),
    "retries": _harmless("sessions are dialled again for as long as the connector runs"),
    "max-edge-addr-retries": _harmless("sessions are dialled again for as long as the connector runs"),
    "use-reconnect-token": _harmless("every session is authenticated by the credential"),
    "dial-edge-timeout": _harmless("the time for dialling a relay is fixed"),
    "rpc-timeout": _harmless("there are no such calls to the relay"),
    "heartbeat-interval": _harmless("dead sessions are noticed within three seconds"),
    "heartbeat-count": _harmless("dead sessions are noticed within three seconds"),
    "compression-quality": _harmless("bodies are passed as they are"),
    "metrics-update-freq": _harmless("metrics are always current"),
    "no-prechecks": _harmless("nothing but the relay is contacted before the start"),
    "features": _harmless("there is nothing experimental to opt in to"),
    "label": _harmless("connectors are told apart by an id of their own"),
    "management-hostname": _harmless("nobody manages the connector from afar"),
    "management-diagnostics": _harmless("nobody manages the connector from afar"),
    "service-op-ip": _harmless("nobody manages the connector from afar"),
    "api-url": _harmless("there is no account to log in to"),
    "origincert": _harmless("tunnels are made with an issuer key, which the connector does not need"),
    "stdin-control": _harmless("the connector is stopped by SIGTERM"),
    "ui": _harmless("there is no terminal interface"),
    "force": _harmless("it belongs to commands, not to a running connector"),
    "overwrite-dns": _harmless("the connector touches no DNS records"),
    "auto-close": _harmless("there is no account to log in to"),
}

RULE: dict[str, Key] = {
    "hostname": _honoured("a name, or *.suffix for every name below it (not the suffix itself); none: every hostname"),
    "path": _honoured("RE2 expression, at most 256 characters, that may match anywhere in the path; none: every path"),
    "service": _honoured(
        "http://, https://, ws:// or wss:// with host and port, unix:PATH, unix+tls:PATH, http_status:N, hello_world; "
        "or tcp://, ssh://, rdp://, smb:// (bytes as they are, by relayPort or `culvert access tcp`) and tls:// "
        "(by TLS server name on the relay's HTTPS port, terminated by the service)"
    ),
    "relayPort": _honoured(
        "TCP port of the relay whose connections a tcp://, ssh://, rdp:// or smb:// service gets; granted with "
        "`culvert tunnel create --tcp-port`. A rule with relayPort and no hostname takes nothing else"
    ),
    "basicAuth": _honoured(
        "path of a file with lines `user:password`: visitors of this HTTP rule must give one of them; the origin does "
        "not see it"
    ),
    "originRequest": _honoured("how this rule's origin is spoken to"),
    "rewrite": _refused("write it as pathRewrite under originRequest"),
}

ORIGIN_REQUEST: dict[str, Key] = {
    "connectTimeout": _honoured("time for a TCP connection to the origin; default 30s"),
    "tlsTimeout": _honoured("time for the TLS handshake with the origin; default 10s"),
    "tcpKeepAlive": _honoured("idle time after which TCP asks whether the origin is alive; default 30s, 0s: never"),
    "keepAliveConnections": _honoured("idle connections kept to one origin; default 100"),
    "keepAliveTimeout": _honoured("time that an idle connection is kept; default 1m30s"),
    "responseTimeout": _honoured(
        "culvert's own: time from the end of a request to the head of its response, and for an origin that takes "
        "nothing of a body, then 504; default 1m40s, 0s: never"
    ),
    "httpHostHeader": _honoured("the Host header that the origin gets; default: the visitor's"),
    "originServerName": _honoured("the name that the origin's certificate must have; default: the host of the service"),
    "caPool": _honoured(
        "path of PEM certificates that the origin's certificate is checked with; default: the system's"
    ),
    "noTLSVerify": _honoured("true: the origin's certificate is not checked; default false"),
    "proxyProtocol": _honoured(
        "V1 or V2: a PROXY protocol header with the visitor's address goes first on every connection, which then "
        "serves one request; default None"
    ),
    "noHappyEyeballs": _harmless("addresses of an origin are tried one after another in any case"),
    "disableChunkedEncoding": _honoured(
        "true: a body that comes without a length is collected, at most 4 MiB of it, and sent with Content-Length, for "
        "services that cannot read chunks (many WSGI servers); default false"
    ),
    "matchSNItoHost": _honoured(
        "true: the host of the request (or httpHostHeader) is sent as TLS server name, and the origin's certificate "
        "must have it; default false"
    ),
    "requestHeaders": _honoured(
        "culvert's own: changes to the fields that the origin gets, each a list: `remove` of names, `set` and `add` of "
        "`{name: X-Team, value: shop}`; carried out in this order. Not for framing, hop-by-hop and forwarding fields, "
        "nor for Host"
    ),
    "responseHeaders": _honoured("culvert's own: the same for the fields of the origin's response"),
    "pathRewrite": _honoured(
        "culvert's own, only in a rule: `stripPrefix: /api` leaves these segments out of the path that the origin "
        "gets, `replacePrefix: /v2` replaces the prefix that the rule's path is. The path must begin with whole "
        "segments, as in `^/api/`; the query stays"
    ),
    "http2Origin": _refused(
        "HTTP/2 to origins is not supported yet; remove it: origins are spoken to in HTTP/1.1", False
    ),
    "access": _refused(
        "checks of access tokens are not supported yet; let the service check them", {"required": False}
    ),
    "bastionMode": _refused("jump hosts are not supported yet; remove it", False),
    "proxyType": _refused("SOCKS proxies are not supported yet; remove it", ""),
    "proxyAddress": _refused("SOCKS proxies are not supported yet; remove it", "", "127.0.0.1"),
    "proxyPort": _refused("SOCKS proxies are not supported yet; remove it", 0),
    "ipRules": _refused("SOCKS proxies are not supported yet; remove it", []),
}

TABLES: dict[str, dict[str, Key]] = {"": TOP_LEVEL, "ingress": RULE, "originRequest": ORIGIN_REQUEST}
"""Every table under the name of the place where its keys stand; "" is the top of the file."""
