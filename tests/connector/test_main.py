"""The connector as a process: started from files, stopped by signals, its exit codes and its words."""

import asyncio
import os
import signal
import sys

import pytest

PROGRAM = """
import sys
from pathlib import Path
from culvert_transport.logs import configure
from culvert_connector.main import run_from_file, run_in_cluster
configure("info", "text")
if sys.argv[1] == "file":
    sys.exit(run_from_file(Path(sys.argv[2]), None))
sys.exit(run_in_cluster(Path(sys.argv[2]), Path(sys.argv[3])))
"""


async def start(*arguments):
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("KUBERNETES_", "CULVERT_"))}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", PROGRAM, *map(str, arguments), stderr=asyncio.subprocess.PIPE,
        env=environment,
    )  # fmt: skip


async def ended(process, *, within=20):
    """Exit code and log."""
    try:
        _, log = await asyncio.wait_for(process.communicate(), within)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return process.returncode, log.decode()


def write_files(folder, issuer, certificates, relay, port):
    (folder / "ca.pem").write_text(certificates.ca)
    (folder / "demo.json").write_text(issuer.credentials(grant=issuer.grant("app.example.com")).dumps())
    (folder / "demo.json").chmod(0o600)
    (folder / "config.yml").write_text(
        f"""\
tunnel: demo
credentials-file: demo.json
relay: ["{relay.address}"]
relay-ca: ca.pem
relay-server-name: relay.test
metrics: 127.0.0.1:0
grace-period: 20s
ingress:
  - hostname: app.example.com
    service: http://127.0.0.1:{port}
  - service: http_status:404
"""
    )


async def hold(client):
    await client.head()
    await client.send(b"HTTP/1.1 200 OK\r\n\r\nbegin")
    await client.reader.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_connector_cleanly(tools, tmp_path, number):
    async def main():
        relay = await tools.Relay(tools.issuer, tools.certificates).start()
        write_files(tmp_path, tools.issuer, tools.certificates, relay, 1)
        process = await start("file", tmp_path / "config.yml")
        try:
            await relay.connected(4)
            process.send_signal(number)
            code, log = await ended(process)
            assert code == 0, log
            assert "Traceback" not in log
            assert "Stopped." in log
            assert all(end.drained for end in relay.ever)
            secret = tools.issuer.credentials().credential[:20]
            assert secret not in log
        finally:
            await relay.stop()

    tools.run(main())


def test_a_second_signal_ends_it_at_once(tools, tmp_path):
    async def main():
        relay = await tools.Relay(tools.issuer, tools.certificates).start()
        origin = await tools.Origin(hold).start()
        write_files(tmp_path, tools.issuer, tools.certificates, relay, origin.port)
        process = await start("file", tmp_path / "config.yml")
        try:
            await relay.connected(4)
            call = relay.request()
            await tools.until(lambda: call.body == b"begin", "the response's begin")
            process.send_signal(signal.SIGTERM)
            await tools.until(lambda: all(end.drained for end in relay.ever), "the drain")
            assert process.returncode is None
            began = asyncio.get_running_loop().time()
            process.send_signal(signal.SIGTERM)
            code, log = await ended(process)
            assert asyncio.get_running_loop().time() - began < 3
            assert code == 1
            assert "at once" in log
        finally:
            await relay.stop()
            await origin.stop()

    tools.run(main())


def test_what_cannot_start_says_so_and_exits_1(tools, tmp_path):
    async def main():
        process = await start("file", tmp_path / "config.yml")
        code, log = await ended(process)
        assert code == 1
        assert "config.yml does not exist" in log
        assert "Traceback" not in log

    tools.run(main())


def test_a_taken_status_address_says_so_and_exits_1(tools, tmp_path):
    async def main():
        relay = await tools.Relay(tools.issuer, tools.certificates).start()
        write_files(tmp_path, tools.issuer, tools.certificates, relay, 1)
        config = tmp_path / "config.yml"
        config.write_text(config.read_text().replace("metrics: 127.0.0.1:0", f"metrics: {relay.address}"))
        process = await start("file", config)
        try:
            code, log = await ended(process)
            assert code == 1
            assert f"{relay.address} cannot be listened on" in log
            assert "Traceback" not in log
        finally:
            await relay.stop()

    tools.run(main())
