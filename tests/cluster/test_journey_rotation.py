"""A credential is rotated under load, and a Tunnel goes: old ones are void at the relay, and nobody is cut off."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .test_journey_rollout import under_load

if TYPE_CHECKING:
    from .installation import Installation


def sessions(installation: Installation) -> list[Any]:
    """The sessions that the relay holds, by its own word."""
    name = installation.pods("relay")[0]["metadata"]["name"]
    uri = f"/api/v1/namespaces/{installation.system}/pods/{name}:9901/proxy/v1/sessions"
    return list(json.loads(installation.kubectl("get", "--raw", uri).stdout)["sessions"])


def ledger(installation: Installation) -> dict[str, Any]:
    """What the operator tells relays, by Tunnel."""
    found = installation.get("configmap", "culvert-revocations") or {}
    entries = [json.loads(text) for text in found.get("data", {}).values()]
    return {entry["tunnel"]: entry for entry in entries}


def test_d21_a_credential_is_rotated_and_the_old_one_revoked_without_losing_a_request(
    installation: Installation, tmp_path: Path, record_property: Any
) -> None:
    main, where = f"{installation.system}/main", f"--namespace={installation.system}"
    installation.wait_ready("tunnel/main", installation.system)
    before = installation.get("tunnel", "main")["status"]["credential"]["keyId"]
    held = len(sessions(installation))
    assert held == 8
    lives = installation.lives("connector")
    with under_load(installation, tmp_path, record_property, "rotation of the credential under load"):
        started = time.monotonic()
        installation.kubectl(
            "annotate", "tunnel", "main", where, f"culvert.dev/rotate=at-{time.time_ns()}", "--overwrite"
        )
        installation.until(lambda: ledger(installation).get(main, {}).get("told"), every=0.2)
        record_property("rotation: annotation → old credential revoked", f"{time.monotonic() - started:.1f} s")
        after = installation.get("tunnel", "main")["status"]["credential"]["keyId"]
        assert after != before
        assert {one["keyId"] for one in sessions(installation)} == {after}
    assert len(sessions(installation)) == held
    assert installation.lives("connector") == lives, "no Pod was restarted for it"
    entry = ledger(installation)[main]
    assert entry["told"] == entry["addresses"]
    assert entry["revocation"] in installation.document()["revocations"]  # beside those of other Tunnels
    installation.until(
        lambda: installation.condition("tunnel", "main", installation.system, "CredentialsReady")[1] == "Issued"
    )
    logs = "\n".join(text for name, text in installation.logs().items() if name.startswith("culvert-relay"))
    (*_, told) = [json.loads(line) for line in logs.splitlines() if '"revocation learned"' in line]
    assert told["sessions_ended"] == 0, "every session had the new credential"


def test_d22_the_sessions_of_a_tunnel_that_goes_end_within_five_seconds(
    installation: Installation, record_property: Any
) -> None:
    where = f"--namespace={installation.system}"
    extra = installation.get("tunnel", "main")
    spec = {k: v for k, v in extra["spec"].items() if k != "dns"} | {"connector": {"replicas": 1, "sessions": 2}}
    metadata = {"name": "extra", "namespace": installation.system}
    installation.apply({"apiVersion": extra["apiVersion"], "kind": "Tunnel", "metadata": metadata, "spec": spec})
    installation.wait_ready("tunnel/extra", installation.system)

    def held() -> int:
        return sum(one["tunnel"].endswith("/extra") for one in sessions(installation))

    installation.until(lambda: held() == 2)
    # Its Pods are orphaned: whoever keeps a connector, or a copy of the credential, is cut off all the same.
    started = time.monotonic()
    installation.kubectl("delete", "tunnel", "extra", where, "--cascade=orphan", "--timeout=60s")
    try:
        installation.until(lambda: held() == 0, every=0.1)
        took = time.monotonic() - started
        record_property("a Tunnel is deleted → its sessions have ended", f"{took:.1f} s")
        assert took < 5
        assert installation.visit(installation.first).status == 200
        assert f"{installation.system}/extra" in ledger(installation)
    finally:
        kinds = "deployment,poddisruptionbudget,serviceaccount,role,rolebinding,secret,configmap"
        installation.kubectl("delete", kinds, "--selector=culvert.dev/tunnel=extra", where, "--timeout=120s")
