"""`culvert access tcp`: TCP over WebSocket through the relay's HTTPS port, with real processes and a real ssh."""

import asyncio
import contextlib
import getpass
import hashlib
import os
import random
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest

WAIT = 60.0
CULVERT = Path(sys.executable).with_name("culvert")
HOST = "tcp.example.com"


def arguments(tunnel: Any, *more: str, hostname: str = HOST) -> list[str]:
    relay = f"127.0.0.1:{tunnel.relay.https}"
    return [
        str(CULVERT),
        "access",
        "tcp",
        "--hostname",
        hostname,
        "--relay",
        relay,
        "--relay-ca",
        str(tunnel.ca),
        *more,
    ]


@contextlib.asynccontextmanager
async def listening(tunnel: Any) -> AsyncIterator[int]:
    """`culvert access tcp --listen`; gives its port."""
    process = await asyncio.create_subprocess_exec(
        *arguments(tunnel, "--listen", "127.0.0.1:0"), stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        line = (await asyncio.wait_for(process.stderr.readline(), WAIT)).decode()
        assert line.startswith("Listening on 127.0.0.1:"), line
        yield int(line.split(":")[1].split(" ")[0])
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), WAIT)
        assert process.returncode == 0
        assert b"Traceback" not in errors


async def within(awaitable: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaitable, WAIT)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def test_c04_standard_input_and_output_are_carried_to_their_ends(shared: Any) -> None:
    async def scenario() -> None:
        async with shared.tcp_origin(echo):
            process = await asyncio.create_subprocess_exec(
                *arguments(shared), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            data = random.Random(3).randbytes(3_000_000)
            out, _ = await within(process.communicate(data))
            assert hashlib.sha256(out).hexdigest() == hashlib.sha256(data).hexdigest()
            assert process.returncode == 0

    asyncio.run(scenario())


def test_c04_plain_files_may_be_standard_input_and_output(shared: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "in").write_bytes(random.Random(4).randbytes(300_000))
        async with shared.tcp_origin(echo):
            with (tmp_path / "in").open("rb") as given, (tmp_path / "out").open("wb") as taken:
                process = await asyncio.create_subprocess_exec(*arguments(shared), stdin=given, stdout=taken)
                assert await within(process.wait()) == 0
        assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()

    asyncio.run(scenario())


def test_c04_half_closes_travel_both_ways_over_websocket(shared: Any) -> None:
    async def scenario() -> None:
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"heard " + await reader.read(-1))

        async def last(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"that was all")
            writer.write_eof()
            heard.put_nowait(await reader.read(-1))

        async with listening(shared) as port:
            async with shared.tcp_origin(first):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"all of it")
                writer.write_eof()
                assert await within(reader.read(-1)) == b"heard all of it"
                await shared.hang_up(writer.transport)
            async with shared.tcp_origin(last):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                assert await within(reader.read(-1)) == b"that was all"
                writer.write(b"but not from here")
                writer.write_eof()
                assert await within(heard.get()) == b"but not from here"
                await shared.hang_up(writer.transport)

    asyncio.run(scenario())


def test_c04_resets_travel_both_ways_over_websocket(shared: Any) -> None:
    def reset(writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def scenario() -> None:
        heard: asyncio.Queue[object] = asyncio.Queue()

        async def leaves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(5)
            reset(writer)

        async def listens(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readexactly(5))
            try:
                heard.put_nowait(await reader.read(-1))
            except ConnectionResetError as error:
                heard.put_nowait(type(error))

        async with listening(shared) as port:
            async with shared.tcp_origin(leaves):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"hello")
                with pytest.raises(ConnectionResetError):
                    await within(reader.read(-1))
                await shared.hang_up(writer.transport)
            async with shared.tcp_origin(listens):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"hello")
                assert await within(reader.readexactly(5)) == b"hello"
                reset(writer)
                assert await within(heard.get()) is ConnectionResetError

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("hostname", "sentence"),
    [
        (HOST, "502 (origin; connection_refused): the connector cannot reach the service"),
        ("page.example.com", "refuses: 404"),
        ("nobody.test", "is not valid for nobody.test"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(shared: Any, hostname: str, sentence: str) -> None:
    done = subprocess.run(
        arguments(shared, hostname=hostname), input=b"", capture_output=True, timeout=WAIT, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"")
    text = done.stderr.decode()
    assert sentence in text
    assert "Traceback" not in text


@pytest.mark.skipif(os.geteuid() != 0, reason="sshd needs root to let somebody log in")
@pytest.mark.parametrize("way", ["ProxyCommand", "relayPort"])
def test_c04_a_real_ssh_client_logs_in(shared: Any, tmp_path: Path, way: str, program: Any) -> None:
    sshd, ssh = program("sshd"), program("ssh")
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True, timeout=WAIT
        )
    (tmp_path / "authorized").write_bytes((tmp_path / "user.pub").read_bytes())
    port = shared.port("tcp")
    (tmp_path / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/authorized\n"
        f"PidFile none\nStrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
        f"KbdInteractiveAuthentication no\nUsePAM no\n"
    )
    host_key = (tmp_path / "host.pub").read_text().split()[:2]
    (tmp_path / "known").write_text(f"{HOST} {' '.join(host_key)}\n")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd drops its rights; Debian's service makes it
    log = (tmp_path / "sshd.log").open("wb")
    server = subprocess.Popen([sshd, "-D", "-e", "-f", str(tmp_path / "sshd_config")], stdout=log, stderr=log)
    command = [ssh, "-F", "none", "-i", str(tmp_path / "user"), "-o", f"UserKnownHostsFile={tmp_path / 'known'}"]
    command += ["-o", "BatchMode=yes", "-o", f"HostKeyAlias={HOST}", "-o", "ConnectTimeout=20"]
    if way == "ProxyCommand":
        command += ["-o", f"ProxyCommand={' '.join(arguments(shared))}"]
    else:
        command += ["-o", "HostName=127.0.0.1", "-p", str(shared.tcp_port)]
    command += [f"{getpass.getuser()}@{HOST}", "cat; echo done >&2; exit 7"]
    data = random.Random(5).randbytes(2_000_000)

    async def listens() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            assert server.poll() is None, (tmp_path / "sshd.log").read_text()
            await asyncio.sleep(0.02)

    try:
        asyncio.run(asyncio.wait_for(listens(), WAIT))
        done = subprocess.run(command, input=data, capture_output=True, timeout=WAIT, check=False)
    finally:
        server.terminate()
        server.wait(timeout=WAIT)
        log.close()
    assert (done.returncode, done.stderr) == (7, b"done\n"), (done.stderr, (tmp_path / "sshd.log").read_text())
    assert done.stdout == data
