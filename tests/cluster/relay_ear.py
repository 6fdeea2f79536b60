"""What a relay hears: an address that takes revocations as a relay's tunnel address does, if a test lets it."""

from __future__ import annotations

import ssl
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from culvert_operator.certificates import make_authority, make_server
from culvert_protocol.revocation_post import REVOCATIONS_PATH

NAME = "relay.example.net"


class RelayEar:
    """One relay's. ``answers`` False: it refuses what it is told. ``told`` is what it has confirmed."""

    def __init__(self) -> None:
        self.answers = True
        self.told: list[str] = []
        authority = make_authority("relays", now=time.time())
        self.authority = authority.certificate.decode()
        pair = make_server([NAME], authority, now=time.time())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            chain = Path(folder) / "pair.pem"
            chain.touch(mode=0o600)
            chain.write_bytes(pair.certificate + pair.key)
            context.load_cert_chain(chain)
        ear = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                token = self.rfile.read(int(self.headers["Content-Length"])).decode()
                answered = ear.answers and self.path == REVOCATIONS_PATH
                if answered:
                    ear.told.append(token)
                self.send_response(204 if answered else 503)
                self.end_headers()

            def log_message(self, *what: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # The handshake belongs to the connection's own thread: one that says nothing holds up no other.
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def relay(self, ca: str) -> dict[str, Any]:
        """`spec.relay` of a Tunnel with this relay, whose CA is in the ConfigMap ``ca``."""
        reference = {"name": ca, "key": "ca.crt"}
        return {"addresses": [self.address], "serverName": NAME, "caConfigMapRef": reference}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
