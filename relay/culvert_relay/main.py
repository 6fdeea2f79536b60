"""`culvert relay run` and `culvert relay validate`: from a path to an exit code.

Responsible for signals, limits of the process and sentences on standard error. Must not know how a relay works.
Exit codes: 0 after an orderly end (also when the deadline cut requests off), 1 when the relay could not start,
128 + the signal's number when a second signal ended it at once.
"""

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Final

from culvert_relay.config import ConfigError, config_path, read_config
from culvert_relay.relay import Materials, Relay, read_materials
from culvert_transport import logs
from culvert_transport.loop import run as run_loop

MAX_DESCRIPTORS: Final = 1 << 20
logger = logging.getLogger(__name__)


def run(path: Path | None = None) -> int:
    """Runs a relay until SIGTERM or SIGINT; `path` None takes CULVERT_CONFIG's. Returns the exit code."""
    try:
        found = config_path(path, os.environ)
        materials = read_materials(read_config(found), path=found)
    except ConfigError as error:
        return _failed(error)
    if not logging.getLogger().handlers:
        logs.configure(os.environ.get("CULVERT_LOG_LEVEL", "info"), os.environ.get("CULVERT_LOG_FORMAT", "text"))
    _raise_descriptor_limit()
    try:
        return run_loop(serve(materials))
    except ConfigError as error:
        return _failed(error)


def validate(path: Path | None = None) -> int:
    """Checks a configuration with everything that it names, without listening. Returns the exit code."""
    try:
        found = config_path(path, os.environ)
        materials = read_materials(read_config(found))
    except ConfigError as error:
        return _failed(error)
    config = materials.config
    print(
        f"{found} is valid: relay {config.id}, {len(config.issuers)} issuer(s), "
        f"{len(materials.certificates.pairs)} certificate(s)."
    )
    return 0


async def serve(materials: Materials) -> int:
    """Runs a relay until a signal, then drains it. Returns the exit code; raises ConfigError if it cannot listen."""
    loop = asyncio.get_running_loop()
    stop, force = asyncio.Event(), asyncio.Event()
    code = 0

    def on_signal(number: int) -> None:
        nonlocal code
        if stop.is_set():
            code = 128 + number
            force.set()
        stop.set()

    relay = Relay(materials)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    loop.add_signal_handler(signal.SIGHUP, relay.watch.ask)
    try:
        await relay.start()
        await stop.wait()
        logger.info("draining")
        await relay.drain(force=force)
        await relay.close()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
    logger.info("stopped", extra={"fields": {"exit": code}})
    return code


def _failed(error: ConfigError) -> int:
    print(f"culvert relay: {error}", file=sys.stderr)
    return 1


def _raise_descriptor_limit() -> None:
    """Every visitor and session is a descriptor: take as many as the system allows this process."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError) as error:
            logger.warning("the limit of open files stays at %d: %s", soft, error)
