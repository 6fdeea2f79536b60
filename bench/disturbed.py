"""Rows about trouble: a peer that takes nothing beside bulk transfers, sessions that are reset under load.

Called by `bench.rows`.
"""

import argparse
import asyncio
import socket
import struct
import subprocess
import threading
import time

from bench.contenders import HOST, nginx, start_culvert, start_origin
from bench.open_loop import poisson
from bench.processes import Started, free_port, resident_kib

Row = dict[str, float]
GIB = 1 << 30


class Sink:
    """An origin that takes uploads and answers with how many body bytes came; in threads of this process."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        buffer = bytearray(1 << 20)
        data = b""
        with sock:
            while b"\r\n\r\n" not in data:
                piece = sock.recv(65_536)
                if not piece:
                    return
                data += piece
            head, _, rest = data.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            taken = len(rest)
            while taken < length and (size := sock.recv_into(buffer)):
                taken += size
            answer = b"%d" % taken
            sock.sendall(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer)
            )

    def close(self) -> None:
        """Takes no more."""
        self._socket.close()


def stalled_row(started: Started, given: argparse.Namespace) -> Row:
    """1 GiB each way while one peer of the same kind takes nothing."""
    port = free_port()
    started.folder.chmod(0o755)  # nginx's workers are another user's
    (started.folder / "files").mkdir()
    with (started.folder / "files" / "bulk").open("wb") as file:
        file.truncate(GIB)
    silent = socket.create_server(("127.0.0.1", 0))
    sink = Sink()
    common = "client_max_body_size 0; proxy_request_buffering off; proxy_http_version 1.1;"
    nginx(
        started,
        "files",
        f"server {{ listen 127.0.0.1:{port}; root {started.folder}/files; {common}\nlocation / {{ }}\n"
        f"location /sink {{ proxy_pass http://127.0.0.1:{sink.port}; }}\n"
        f"location /silent {{ proxy_pass http://127.0.0.1:{silent.getsockname()[1]}; }}\n"
        f"location /ok {{ return 200 'ok'; }} }}",
    )
    ours = start_culvert(started, port, path="ok")
    before = [resident_kib(pid) for pid in ours.pids]
    most = list(before)

    def watch(client: "subprocess.Popen[bytes]") -> None:
        end = time.monotonic() + 300
        while client.poll() is None and time.monotonic() < end:
            for index, pid in enumerate(ours.pids):
                most[index] = max(most[index], resident_kib(pid))
            time.sleep(0.05)
        if client.poll() != 0:
            client.kill()
            raise SystemExit(f"curl ended with {client.returncode}")

    front = ours.port
    row: Row = {}
    curl = ["curl", "-sf", "-H", f"Host: {HOST}", "-H", "Expect:"]
    for way, opening, command in (
        ("down", "GET /bulk HTTP/1.1", [*curl, "-o", "/dev/null", ours.url + "bulk"]),
        (
            "up",
            f"PUT /silent HTTP/1.1\r\nContent-Length: {GIB}",
            [*curl, "-T", str(started.folder / "files" / "bulk"), "-o", "/dev/null", ours.url + "sink"],
        ),
    ):
        begin = [resident_kib(pid) for pid in ours.pids]
        most[:] = begin
        with socket.create_connection(("127.0.0.1", front)) as stalled:
            stalled.sendall(f"{opening}\r\nHost: {HOST}\r\n\r\n".encode())
            if way == "up":
                stalled.setblocking(False)
                end = time.monotonic() + 1.0
                while time.monotonic() < end:
                    try:
                        stalled.send(bytes(65_536))
                    except BlockingIOError:
                        time.sleep(0.01)
            else:
                stalled.recv(65_536)
            clock = time.monotonic()
            watch(subprocess.Popen(command))
            row[f"{way}: MB/s"] = GIB / (time.monotonic() - clock) / 1e6
        for name, peak, first in zip(("relay", "connector"), most, begin, strict=True):
            row[f"{way}: {name} MiB"] = (peak - first) / 1024
    silent.close()
    sink.close()
    return row


class Forwarder:
    """A TCP hop that can reset one of its connections."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.target = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes one connection."""
        task = asyncio.create_task(self.serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection there and back."""
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        self.writers.append(far_writer)
        await asyncio.gather(self.pump(reader, far_writer), self.pump(far_reader, writer))

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Bytes one way until either end is gone."""
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    def reset(self) -> None:
        """RST towards the relay on the connection that was made first and still stands."""
        writer = next(one for one in self.writers if not one.is_closing())
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


async def kill_under_load(started: Started, origin: int, given: argparse.Namespace) -> Row:
    """Resets the first session once a second."""
    forwarder = Forwarder()
    server = await asyncio.start_server(forwarder.accept, "127.0.0.1", 0)
    dialled = server.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    starting = loop.run_in_executor(None, lambda: start_culvert(started, origin, dialled=dialled))
    port_file = started.folder / "tunnel-port"
    while not port_file.exists() or not port_file.read_text():
        await asyncio.sleep(0.01)
    forwarder.target = int(port_file.read_text())
    contender = await starting
    await asyncio.sleep(2)
    asking = asyncio.create_task(poisson(contender.port, rate=500, seconds=given.kills + 2))
    for _ in range(given.kills):
        await asyncio.sleep(1)
        forwarder.reset()
    outcome = await asking
    server.close()
    return {
        "sessions killed": given.kills,
        "requests": outcome.sent,
        "failed": outcome.failed,
        "p99 ms": outcome.percentile(0.99),
        "slowest ms": max(outcome.latencies) * 1e3,
    }


def killed_row(started: Started, given: argparse.Namespace) -> Row:
    """Safe requests at 500/s through a hop that resets sessions."""
    origin = start_origin(started)
    return asyncio.run(kill_under_load(started, origin, given))
