"""`config.yml`: cloudflared's grammar, with every mistake in it named at once.

Responsible for: reading the file's text into a ConfigFile, and compiling that into the configuration document. Must
not open the files that it names: their paths are values here, and their contents are given to `compile`.

Invariant: a ConfigFile has no problem left in it except what only the other files can tell; nothing in the text was
accepted and ignored without a warning. Rules keep the file's order and are numbered from 1, as people count them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from culvert_ingress.certificates import CertificateError, check_certificates
from culvert_ingress.config_keys import TOP_LEVEL
from culvert_ingress.config_reading import ConfigErrors, Problem, Problems, Section
from culvert_ingress.config_rules import RuleFiles, read_rules
from culvert_ingress.document import AddressPolicy, ConnectorSettings, Document, RelayTarget
from culvert_ingress.proxy_url import ProxyURLError, check_proxy_url
from culvert_ingress.rules import Rule
from culvert_ingress.schemas import needed
from culvert_ingress.users import UsersError, digests_of
from culvert_ingress.yaml_text import YamlErrors, read_yaml

__all__ = ["ConfigErrors", "ConfigFile", "Problem", "load", "single"]

DEFAULT_METRICS = "127.0.0.1:20241"
MAX_SESSIONS = 64
MAX_TUNNEL = 253
MAX_GRACE_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a `config.yml` says. Paths are as written; `files` runs parallel to `rules`."""

    rules: tuple[Rule, ...]
    files: tuple[RuleFiles, ...]
    tunnel: str | None = None
    credentials_file: str | None = None
    relay: tuple[str, ...] = ()
    relay_ca: str | None = None
    relay_server_name: str | None = None
    relay_proxy: str | None = None
    metrics: str = DEFAULT_METRICS
    grace_period_seconds: int = 30
    sessions: int = 4
    warnings: tuple[str, ...] = ()

    @property
    def ca_paths(self) -> tuple[str, ...]:
        """The distinct paths whose contents `compile` needs in `ca_texts`, sorted."""
        return tuple(sorted({one.ca_pool for one in self.files if one.ca_pool is not None}))

    @property
    def basic_auth_paths(self) -> tuple[str, ...]:
        """The distinct paths whose contents `compile` needs in `basic_auth_texts`, sorted."""
        return tuple(sorted({one.basic_auth for one in self.files if one.basic_auth is not None}))

    def compile(
        self,
        *,
        version: int,
        grant: str,
        tunnel: str | None = None,
        relay_ca: str | None = None,
        ca_texts: Mapping[str, str] | None = None,
        basic_auth_texts: Mapping[str, str] | None = None,
        revocations: Sequence[str] = (),
    ) -> Document:
        """The configuration document. `relay_ca` is the PEM text of `relay-ca`, `ca_texts` and
        `basic_auth_texts` the text by path.

        `tunnel` overrides the file's name. Raises ConfigErrors for what the file lacks or the other files hold.
        """
        problems: list[Problem] = []
        name = tunnel or self.tunnel
        if not name:
            problems.append(
                Problem(
                    None,
                    "The file names no tunnel; add 'tunnel: NAME', with the name given to `culvert tunnel create`.",
                )
            )
        if not self.relay:
            problems.append(Problem(None, "The file names no relay; add 'relay: [relay.example.com:443]'."))
        if self.relay_ca is not None and relay_ca is None:
            problems.append(
                Problem(None, f"relay-ca: {self.relay_ca!r} has not been read; check that the file is there.")
            )
        if relay_ca is not None:
            problems.extend(_certificate_problems(None, "relay-ca", relay_ca))
        rules = tuple(
            _with_users(
                number,
                _with_ca(number, rule, files.ca_pool, ca_texts or {}, problems),
                files.basic_auth,
                basic_auth_texts or {},
                problems,
            )
            for number, (rule, files) in enumerate(zip(self.rules, self.files, strict=True), 1)
        )
        if problems:
            raise ConfigErrors(problems)
        assert name
        document = Document(
            version=version,
            tunnel=name,
            relay=RelayTarget(self.relay, self.relay_server_name, relay_ca, self.relay_proxy),
            connector=ConnectorSettings(self.sessions, self.grace_period_seconds),
            rules=rules,
            address_policy=AddressPolicy.ANY,
            grant=grant,
            revocations=tuple(revocations),
        )
        return replace(document, schema=needed(document))


def load(text: str) -> ConfigFile:
    """Reads the text of a `config.yml`. Raises ConfigErrors with every problem in it."""
    try:
        value = read_yaml(text)
    except YamlErrors as error:
        raise ConfigErrors([Problem(None, sentence) for sentence in error.sentences]) from None
    problems = Problems()
    if value is None:
        problems.add(None, "The file is empty; it needs at least 'tunnel', 'relay' and 'ingress'.")
        problems.check()
    top = Section(value, TOP_LEVEL, problems, rule=None, name="")
    grace_ms = top.duration("grace-period", default=30_000, most=MAX_GRACE_MS)
    rules, files = read_rules(top, problems)
    config = ConfigFile(
        rules=rules,
        files=files,
        tunnel=top.text("tunnel", longest=MAX_TUNNEL),
        credentials_file=top.text("credentials-file"),
        relay=top.addresses("relay"),
        relay_ca=top.text("relay-ca"),
        relay_server_name=top.server_name("relay-server-name"),
        relay_proxy=_proxy(top),
        metrics=top.listener("metrics", default=DEFAULT_METRICS),
        grace_period_seconds=-(-grace_ms // 1000),
        sessions=top.integer("ha-connections", default=4, low=1, high=MAX_SESSIONS),
    )
    problems.check()
    return replace(config, warnings=tuple(problems.warnings))


def single(service: str, *, relay: Sequence[str]) -> ConfigFile:
    """What a file would say that has no more than its relays and one service for every hostname of the tunnel.

    Raises ConfigErrors.
    """
    return load(json.dumps({"relay": list(relay), "ingress": [{"service": service}]}))


def _proxy(top: Section) -> str | None:
    value = top.text("relay-proxy", longest=300)
    try:
        return check_proxy_url(value) if value is not None else None
    except ProxyURLError as error:
        top.problem(f"relay-proxy: {error} Or set HTTPS_PROXY in the connector's environment.")
        return None


def _with_ca(number: int, rule: Rule, path: str | None, texts: Mapping[str, str], problems: list[Problem]) -> Rule:
    if path is None:
        return rule
    if path not in texts:
        problems.append(Problem(number, f"caPool: {path!r} has not been read; check that the file is there."))
        return rule
    problems.extend(_certificate_problems(number, f"caPool: {path!r}", texts[path]))
    return replace(rule, origin_request=replace(rule.origin_request, ca=texts[path]))


def _with_users(number: int, rule: Rule, path: str | None, texts: Mapping[str, str], problems: list[Problem]) -> Rule:
    if path is None:
        return rule
    if path not in texts:
        problems.append(Problem(number, f"basicAuth: {path!r} has not been read; check that the file is there."))
        return rule
    try:
        return replace(rule, basic_auth=digests_of(texts[path]))
    except UsersError as error:
        problems.append(Problem(number, f"basicAuth: {path!r}: {error}"))
        return rule


def _certificate_problems(number: int | None, place: str, pem: str) -> list[Problem]:
    try:
        check_certificates(pem)
    except CertificateError as error:
        return [Problem(number, f"{place}: {error}")]
    return []
