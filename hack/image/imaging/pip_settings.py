"""How pip inside the build finds packages: as pip does on this machine.

Responsible for turning the machine's pip settings and trusted authorities into a pip.conf and a bundle, which the
Dockerfile mounts as secrets. Must not let credentials of an index land in arguments, layers or output.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

# Where the Dockerfile mounts the bundle.
CA_TARGET: Final = "/run/pip-ca.crt"
_CARRIED: Final = ("index-url", "extra-index-url", "trusted-host", "timeout", "proxy")
_BUNDLES: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


def parse_listing(listing: str) -> dict[str, str]:
    """Settings in the output of `pip config list` ("global.index-url='…'", ":env:.cert='…'"); later lines win."""
    settings: dict[str, str] = {}
    for line in listing.splitlines():
        name, separator, value = line.partition("=")
        if separator:
            settings[name.rpartition(".")[2]] = value.strip().strip("'\"").replace("\\n", " ")
    return settings


def configuration(settings: Mapping[str, str], environ: Mapping[str, str], *, has_bundle: bool) -> str:
    """The text of a pip.conf for the build; variables PIP_… win over files, as pip has it."""
    lines = ["[global]"]
    for name in _CARRIED:
        value = environ.get(f"PIP_{name.upper().replace('-', '_')}") or settings.get(name)
        if value:
            lines.append(f"{name} = {value.replace('%', '%%') if '%' in value else value}")
    if has_bundle:
        lines.append(f"cert = {CA_TARGET}")
    return "\n".join(lines) + "\n"


def machine_settings() -> dict[str, str]:
    """What pip's configuration files say here; nothing when there is no pip."""
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    return parse_listing(done.stdout) if done.returncode == 0 else {}


def bundle(settings: Mapping[str, str], environ: Mapping[str, str]) -> Path | None:
    """The file with the authorities that this machine trusts (a company's proxy may have added its own)."""
    candidates = (
        *(environ.get("PIP_CERT"), settings.get("cert"), environ.get("SSL_CERT_FILE")),
        *_BUNDLES,
    )
    for candidate in candidates:
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    return None
