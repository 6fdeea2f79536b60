"""The operator's flags become settings, or a sentence."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from culvert_operator.flags import Settings, SettingsError, add_arguments, from_args
from culvert_operator.keys import ObjectKey

ENOUGH = ("--namespace=culvert", "--connector-image=image:1")


def settings(*flags: str, environment: dict[str, str] | None = None) -> Settings:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return from_args(parser.parse_args(flags), environment or {})


def test_every_flag_arrives() -> None:
    made = settings(
        *ENOUGH,
        "--tunnel-namespaces=one,two",
        "--tunnel-namespaces=three",
        "--watch-namespaces=shop,one",
        "--allowed-hostnames=*.Example.com,shop.example.org.",
        "--default-tunnel=one/main",
        "--cluster-domain=corp.local",
        "--connector-image-pull-policy=Never",
        "--issuer-secret=mine",
        "--relay-service=relay",
        "--relay-server-names=relay.example.com",
        "--listen=[::1]:9000",
        environment={"CULVERT_LOG_LEVEL": "debug", "CULVERT_LOG_FORMAT": "json"},
    )
    options = made.options
    assert (options.namespace, options.image) == ("culvert", "image:1")
    assert options.tunnel_namespaces == ("one", "two", "three")
    assert options.scopes == ("one", "shop", "three", "two")
    assert options.tunnel_scopes == ("one", "three", "two")
    assert options.allowed_hostnames == ("*.example.com", "shop.example.org")
    assert options.default_tunnel == ObjectKey("one", "main")
    assert (options.cluster_domain, options.image_pull_policy) == ("corp.local", "Never")
    assert (made.issuer_secret, made.relay_services) == ("mine", ("relay",))
    assert made.relay_server_names == ("relay.example.com",)
    assert made.listen == ("::1", 9000)
    assert (made.log_level, made.log_format) == ("debug", "json")


def test_the_environment_fills_in_what_a_pod_knows() -> None:
    made = settings(environment={"POD_NAMESPACE": "from-pod", "CULVERT_IMAGE": "image:2"})
    assert (made.options.namespace, made.options.image) == ("from-pod", "image:2")
    assert made.listen == ("0.0.0.0", 9902)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (ENOUGH[:1], "--connector-image"),
        ((*ENOUGH, "--default-tunnel=main"), "namespace/name"),
        ((*ENOUGH, "--allowed-hostnames=*foo.com"), "foo.com"),
        ((*ENOUGH, "--allowed-hostnames=192.0.2.1"), "192.0.2.1"),
        ((*ENOUGH, "--listen=9902"), "HOST:PORT"),
        ((*ENOUGH, "--tunnel-namespaces=*,one"), "alone"),
        ((*ENOUGH, "--watch-namespaces=*"), "leave it out"),
        ((*ENOUGH, "--watch-namespaces=shop", "--tunnel-namespaces=*"), "leave it out"),
    ],
)
def test_what_cannot_work_is_refused_with_a_sentence(flags: tuple[str, ...], said: str) -> None:
    with pytest.raises(SettingsError, match=said.replace("*", r"\*")):
        settings(*flags)


def test_outside_a_cluster_a_namespace_is_asked_for(monkeypatch: Any, tmp_path: Any) -> None:
    monkeypatch.setattr("culvert_operator.flags.NAMESPACE_FILE", tmp_path / "none")
    with pytest.raises(SettingsError, match="--namespace"):
        settings("--connector-image=x")
    (tmp_path / "namespace").write_text("mounted\n")
    monkeypatch.setattr("culvert_operator.flags.NAMESPACE_FILE", tmp_path / "namespace")
    assert settings("--connector-image=x").options.namespace == "mounted"
