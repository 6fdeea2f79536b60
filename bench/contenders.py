"""The two ways from a visitor to the origin that are compared, each as real processes on loopback.

Both do the same work: plain HTTP in, routing by Host, one TLS hop (P-256), keep-alive everywhere, the same origin.
"""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bench.processes import Started, children, free_port, wait_until_ok

HOST = "app.example.com"
BODY = "x" * 99 + "\n"
CULVERT = str(Path(sys.executable).with_name("culvert"))


@dataclass(frozen=True)
class Contender:
    """Where to send requests, and the processes whose CPU counts."""

    name: str
    url: str
    pids: tuple[int, ...]
    https: int = 0
    """The port with TLS, where one was asked for."""

    @property
    def port(self) -> int:
        """Where visitors connect on 127.0.0.1."""
        return int(self.url.rstrip("/").rpartition(":")[2])


def make_certificate(folder: Path) -> None:
    """certs/localhost.{crt,key} for both contenders' TLS hop."""
    (folder / "certs").mkdir()
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,DNS:*.example.com",
            "-keyout",
            "certs/localhost.key",
            "-out",
            "certs/localhost.crt",
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )


def nginx(started: Started, name: str, http: str) -> int:
    """An nginx of one worker with this `http` block; returns the master's pid."""
    config = started.folder / f"{name}.conf"
    config.write_text(
        f"daemon off; worker_processes 1; pid {started.folder}/{name}.pid; error_log stderr error;\n"
        f"events {{ worker_connections 4096; }}\n"
        f"http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {started.folder}/{name}.body;\n"
        f"proxy_temp_path {started.folder}/{name}.proxy; fastcgi_temp_path {started.folder}/{name}.f;\n"
        f"uwsgi_temp_path {started.folder}/{name}.u; scgi_temp_path {started.folder}/{name}.s;\n{http}\n}}\n"
    )
    return started.start(name, "nginx", "-c", str(config), "-e", "stderr")


def start_origin(started: Started) -> int:
    """An nginx that answers 100 bytes; returns its port."""
    port = free_port()
    answer = BODY.replace("\n", "\\n")
    nginx(
        started, "origin", f"server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200 '{answer}'; }} }}"
    )
    wait_until_ok(f"http://127.0.0.1:{port}/", HOST)
    return port


def start_nginx(started: Started, origin: int) -> Contender:
    """nginx at the edge, nginx beside the origin, TLS with kept-alive connections between them."""
    front, hop = free_port(), free_port()
    reuse = "proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host $host;"
    near = nginx(
        started,
        "nginx-near",
        f"upstream o {{ server 127.0.0.1:{origin}; keepalive 64; keepalive_requests 1000000000; }}\n"
        f"server {{ listen 127.0.0.1:{hop} ssl backlog=4096; server_name {HOST};\n"
        f"ssl_certificate {started.folder}/certs/localhost.crt;\n"
        f"ssl_certificate_key {started.folder}/certs/localhost.key;\n"
        f"location / {{ proxy_pass http://o; {reuse} }} }}",
    )
    edge = nginx(
        started,
        "nginx-edge",
        f"upstream t {{ server 127.0.0.1:{hop}; keepalive 64; keepalive_requests 1000000000; }}\n"
        f"server {{ listen 127.0.0.1:{front} backlog=4096; server_name {HOST};\n"
        f"location / {{ proxy_pass https://t; {reuse}\n"
        f"proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme; }} }}",
    )
    wait_until_ok(f"http://127.0.0.1:{front}/", HOST)
    return Contender("nginx two hops", f"http://127.0.0.1:{front}/", (*children(near), *children(edge)))


@dataclass(frozen=True)
class RelayProcess:
    """A running relay and its ports; `https` is 0 when it has none."""

    pid: int
    http: int
    https: int
    tunnel: int
    admin: int


def write_relay(started: Started, hostnames: tuple[str, ...], *, https: bool = False) -> RelayProcess:
    """A relay's file and its issuer's keys; `pid` is 0 until `run_relay`."""
    front, tunnel, admin, encrypted = (free_port() for _ in range(4))
    names = ", ".join(f'"{name}"' for name in hostnames)
    doors = f', https: ["127.0.0.1:{encrypted}"]' if https else ""
    (started.folder / "relay.yml").write_text(
        f'id: bench\nserverNames: ["localhost"]\n'
        f'listen: {{http: ["127.0.0.1:{front}"]{doors}, tunnel: ["127.0.0.1:{tunnel}"], admin: "127.0.0.1:{admin}"}}\n'
        f"tls: {{certificateDir: ./certs}}\n"
        f"limits: {{connections: 20000, connectionsPerAddress: 20000}}\n"
        f"issuers:\n  - {{id: bench, publicKeyFile: ./keys/issuer.pub, hostnames: [{names}]}}\n"
    )
    subprocess.run([CULVERT, "keys", "create", "--out", "keys"], cwd=started.folder, check=True, capture_output=True)
    return RelayProcess(0, front, encrypted if https else 0, tunnel, admin)


def run_relay(started: Started, relay: RelayProcess) -> RelayProcess:
    """Starts it, for the first time or once more."""
    return replace(relay, pid=started.start("relay", CULVERT, "relay", "run", "--config", "relay.yml"))


def start_culvert(
    started: Started,
    origin: int,
    *,
    path: str = "",
    dialled: int = 0,
    https: bool = False,
    elsewhere: Mapping[str, int] | None = None,
) -> Contender:
    """culvert's relay and connector from the command line, as a person would start them; `path` answers 200.

    `dialled`: a port of 127.0.0.1 that leads to the relay's tunnel port, which is written to `tunnel-port`.
    `elsewhere`: paths (regular expressions) that another origin's port serves.
    """
    folder = started.folder
    relay = write_relay(started, (HOST,), https=https)
    (folder / "tunnel-port").write_text(str(relay.tunnel))
    others = "".join(
        f"  - {{hostname: {HOST}, path: '{pattern}', service: 'http://127.0.0.1:{port}'}}\n"
        for pattern, port in (elsewhere or {}).items()
    )
    (folder / "config.yml").write_text(
        f"tunnel: bench\ncredentials-file: ./bench.json\nrelay: ['localhost:{dialled or relay.tunnel}']\n"
        f"relay-ca: ./certs/localhost.crt\nmetrics: 127.0.0.1:{free_port()}\n"
        f"ingress:\n{others}"
        f"  - hostname: {HOST}\n    service: http://127.0.0.1:{origin}\n  - service: http_status:404\n"
    )
    create = ("tunnel", "create", "bench", "--issuer-key", "keys/issuer.key", "--hostname", HOST)
    subprocess.run([CULVERT, *create, "--credentials-file", "bench.json"], cwd=folder, check=True, capture_output=True)
    relay = run_relay(started, relay)
    connector = started.start("connector", CULVERT, "tunnel", "run", "--config", "config.yml")
    try:
        wait_until_ok(f"http://127.0.0.1:{relay.http}/{path}", HOST)
    except TimeoutError as error:
        raise SystemExit(f"{error}\n{started.log('relay')}\n{started.log('connector')}") from None
    return Contender("culvert", f"http://127.0.0.1:{relay.http}/", (relay.pid, connector), relay.https)
