"""The connector as a program: `culvert tunnel run` and `culvert connector run` are this with another source.

Responsible for the process: signals, the limit of open files, exit codes, sentences for the person who started it.

Must not know: what a connector does once it runs.

Invariants: the first SIGTERM or SIGINT drains, the second ends the process at once; 0 is a clean stop, 1 anything
else; a failure at the start is a sentence on the log, never a traceback.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from culvert_connector.admin import DEFAULT_PORT, AdminError
from culvert_connector.connector import Connector
from culvert_connector.dialling.proxy import Proxies, ProxyError, of_environment
from culvert_connector.sources.cluster import ClusterSource, Names
from culvert_connector.sources.file import FileSource, Overrides
from culvert_connector.sources.kubernetes_api import APIServer
from culvert_connector.sources.port import ConfigSource, SourceError
from culvert_ingress.addresses import split_address
from culvert_transport.loop import run

log = logging.getLogger(__name__)

SUCCESS: Final = 0
FAILURE: Final = 1


def run_from_file(
    config: Path | None,
    name: str | None,
    *,
    url: str | None = None,
    relays: tuple[str, ...] = (),
    relay_ca: Path | None = None,
    credentials_file: Path | None = None,
    metrics: str | None = None,
) -> int:
    """Runs the tunnel of a `config.yml` until a signal; returns the exit code.

    `name` overrides the file's tunnel, the others what the file says of relays, credentials and the address of
    status and metrics. Without a file `url`
    is the service of every hostname that the credentials grant.
    """
    overrides = Overrides(name=name, url=url, relays=relays, relay_ca=relay_ca, credentials_file=credentials_file)
    source = FileSource(config, overrides=overrides, clock=time.time)
    try:
        reading = source.prime()
    except SourceError as error:
        return _sentences(error)
    if url is not None and (grant := reading.credentials.read_grant()) is not None:
        for granted in grant.names:
            log.info("Serving %s from %s.", granted.hostname, url)
    host, port = split_address(metrics or reading.config.metrics, port_zero=True)
    return _run(lambda: source, host=host, port=port, search=True)


def run_in_cluster(config_dir: Path, credentials_dir: Path) -> int:
    """Runs a connector from a mounted ConfigMap and Secret, followed at the API server; returns the exit code."""

    def source() -> ClusterSource:
        return ClusterSource(
            config_dir,
            credentials_dir,
            server=APIServer.of_pod(os.environ),
            names=Names.of_environment(os.environ),
            random=random.random,
        )

    # In a Pod the kubelet, Prometheus and the operator come from outside; the Pod's network policy is the fence.
    return _run(source, host="0.0.0.0", port=DEFAULT_PORT, search=False)  # noqa: S104


def _run(make_source: Callable[[], ConfigSource], *, host: str, port: int, search: bool) -> int:
    _raise_file_limit()
    try:
        proxies = of_environment(os.environ)
        run(_serve(make_source(), host=host, port=port, search=search, proxies=proxies))
    except (SourceError, AdminError, ProxyError) as error:
        return _sentences(error)
    return SUCCESS


async def _serve(source: ConfigSource, *, host: str, port: int, search: bool, proxies: Proxies) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            log.warning("A second signal: stopping at once.")
            logging.shutdown()
            os._exit(FAILURE)
        log.info("%s: draining; a second signal stops at once.", signal.Signals(number).name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    if proxies.https is not None:
        log.info("Relays are dialled through the proxy %s.", proxies.https)
    connector = Connector(proxies=proxies)
    try:
        admin = await connector.listen(host=host, port=port, search=search)
        log.info("Connector %s; status and metrics on http://%s.", connector.connector_id, admin.address)
        await connector.run(source, stop=stop)
        log.info("Stopped.")
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _raise_file_limit() -> None:
    """As many open files as the system allows: every request in flight may hold a connection to an origin."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _sentences(error: Exception) -> int:
    for sentence in str(error).splitlines():
        log.error("%s", sentence)
    return FAILURE
