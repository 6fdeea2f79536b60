"""The main job from end to end on a real cluster: what `make demo` runs.

Environment: DEMO_CLUSTER=current uses KUBECONFIG's cluster; DEMO=once exits after the last step even on a terminal;
DEMO_KEEP=1 leaves the cluster and everything in it. Exit code 0 only when every step held.
"""

import json
import os
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from places import (
    DNS_PORT,
    HTTP_PORT,
    HTTPS_PORT,
    IMAGE,
    REPOSITORY,
    DemoError,
    Place,
    Steps,
    complain,
    find_helm,
    find_place,
    find_visitors_tools,
    run,
)

HERE = Path(__file__).resolve().parent
WORK = REPOSITORY / ".demo"
HTTP = f"http://127.0.0.1:{HTTP_PORT}"
SHOP, API = "shop.demo.example.com", "api.demo.example.com"
SYSTEM = "culvert-system"


def manifest(name: str, place: Place) -> str:
    """A manifest with its images filled in."""
    text = (HERE / "manifests" / name).read_text()
    return string.Template(text).safe_substitute(IMAGE=IMAGE, COREDNS_IMAGE=place.coredns_image)


def wait_for(what: str, check: Callable[[], bool], *, seconds: float = 60, every: float = 0.1) -> float:
    """Seconds until `check` held; raises DemoError when it does not in time."""
    start = time.monotonic()
    while not check():
        if time.monotonic() - start > seconds:
            raise DemoError(f"{what} did not happen within {seconds:g} s.")
        time.sleep(every)
    return time.monotonic() - start


def curl(*arguments: str) -> str:
    """curl, quietly, never for longer than 15 seconds."""
    return run("curl", "-sS", "--max-time", "15", *arguments, check=False)


def status_of(host: str) -> str:
    """The status code that a visitor of `host` gets."""
    return curl("-o", os.devnull, "-w", "%{http_code}", "-H", f"Host: {host}", f"{HTTP}/")


def dig(name: str) -> str:
    """The zone's answer for a name, asked over TCP so that it also works through a port-forward."""
    command = ["dig", "+tcp", "+short", "+time=3", "+tries=1", "@127.0.0.1", "-p", str(DNS_PORT), name]
    return run(*command, check=False).strip()


def certificate(place: Place) -> None:
    """A certificate for the demo's visitors, as a Secret; its CA is itself and stands in .demo/visitors.crt."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "*.demo.example.com")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("*.demo.example.com")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    public = made.public_bytes(serialization.Encoding.PEM).decode()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    (WORK / "visitors.crt").write_text(public)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "demo-tls", "namespace": SYSTEM},
        "stringData": {"tls.crt": public, "tls.key": private},
    }
    place.kubectl("apply", "-f", "-", stdin=json.dumps(secret))


def namespaces(place: Place) -> None:
    """The two namespaces, both under Pod Security "restricted"."""
    for name in (SYSTEM, "shop"):
        place.kubectl("create", "namespace", name, check=False)
        place.kubectl("label", "--overwrite", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")


def install(place: Place, steps: Steps, helm: str) -> None:
    """helm install, and the sample application beside it."""
    settings = {
        "image.repository": IMAGE.rpartition(":")[0],
        "image.tag": IMAGE.rpartition(":")[2],
        "relay.enabled": "true",
        "relay.hostnames": "{*.demo.example.com}",
        "relay.tls.secretNames": "{demo-tls}",
        "relay.service.type": "NodePort",
        "relay.service.httpNodePort": str(HTTP_PORT),
        "relay.service.httpsNodePort": str(HTTPS_PORT),
    }
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    chart = str(REPOSITORY / "charts" / "culvert")
    command = [helm, "--kubeconfig", place.kubeconfig, "upgrade", "--install", "culvert", chart, "-n", SYSTEM]
    run(*command, *options)
    steps.show("helm upgrade --install culvert charts/culvert -n culvert-system --set relay.enabled=true …", "")
    program = (HERE / "app.py").read_text()
    app = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web-app", "namespace": "shop"}}
    place.kubectl("apply", "-f", "-", stdin=json.dumps({**app, "data": {"app.py": program}}))
    place.kubectl("apply", "-f", "-", stdin=manifest("app.yaml", place))
    place.kubectl("apply", "-f", "-", stdin=manifest("dns.yaml", place))
    place.kubectl("-n", SYSTEM, "rollout", "status", "deployment/culvert-operator", "--timeout=180s")
    place.kubectl("-n", SYSTEM, "rollout", "status", "statefulset/culvert-relay", "--timeout=180s")
    place.kubectl("-n", SYSTEM, "rollout", "status", "deployment/demo-dns", "--timeout=120s")
    place.kubectl("-n", "shop", "rollout", "status", "deployment/web", "--timeout=120s")
    place.open_ports()


def publish(place: Place, steps: Steps) -> None:
    """A Tunnel and a TunnelBinding, until both are Ready."""
    start = time.monotonic()
    place.kubectl("apply", "-f", "-", stdin=manifest("tunnel.yaml", place))
    place.kubectl("apply", "-f", "-", stdin=manifest("binding.yaml", place))
    place.kubectl("-n", SYSTEM, "wait", "--for=condition=Ready", "tunnel/main", "--timeout=180s")
    place.kubectl("-n", "shop", "wait", "--for=condition=Ready", "tunnelbinding/shop", "--timeout=180s")
    steps.fact(f"apply → Ready (connectors started, name published): {time.monotonic() - start:.1f} s")
    for kind in ("tunnels", "tunnelbindings"):
        steps.show(f"kubectl get {kind} -A", place.kubectl("get", kind, "-A"))
    steps.show("kubectl get hostnameclaims", place.kubectl("get", "hostnameclaims"))


def visit(place: Place, steps: Steps) -> None:
    """HTTP, HTTPS, a WebSocket and the DNS record."""
    wait_for("the first 200", lambda: status_of(SHOP) == "200", seconds=30)
    answer = curl("-H", f"Host: {SHOP}", f"{HTTP}/hello")
    steps.show(f"curl -H 'Host: {SHOP}' {HTTP}/hello", answer)
    if "without a public address" not in answer:
        raise DemoError("The visitor's request over HTTP did not reach the application.")
    resolve = f"{SHOP}:{HTTPS_PORT}:127.0.0.1"
    secure = curl("--cacert", str(WORK / "visitors.crt"), "--resolve", resolve, f"https://{SHOP}:{HTTPS_PORT}/hello")
    steps.show(f"curl --cacert .demo/visitors.crt --resolve {resolve} https://{SHOP}:{HTTPS_PORT}/hello", secure)
    if '"X-Forwarded-Proto": "https"' not in secure:
        raise DemoError("The visitor's request over HTTPS did not reach the application.")
    echo = run(sys.executable, str(HERE / "websocket.py"), f"{HTTP}/echo", SHOP, "hello websocket").strip()
    steps.show(f".venv/bin/python hack/demo/websocket.py {HTTP}/echo {SHOP} 'hello websocket'", echo)
    if echo != "hello websocket":
        raise DemoError("The WebSocket did not echo.")
    wait_for("the DNS record", lambda: bool(dig(SHOP)), seconds=30)
    answer = dig(SHOP)
    steps.show(f"dig +tcp +short @127.0.0.1 -p {DNS_PORT} {SHOP}", answer)
    if not answer.startswith("relay.demo.example.com."):
        raise DemoError(f"The record of {SHOP} is {answer!r}, not the relay.")


def metrics(place: Place, steps: Steps) -> None:
    """A few of the relay's and the operator's metrics."""
    path = f"/api/v1/namespaces/{SYSTEM}/pods/culvert-relay-0:9901/proxy/metrics"
    wanted = ("culvert_relay_sessions", "culvert_relay_requests_total")
    shown = "\n".join(line for line in place.kubectl("get", "--raw", path).splitlines() if line.startswith(wanted))
    steps.show(f"kubectl get --raw {path} | grep -E '^({'|'.join(wanted)})'", shown)
    if "culvert_relay_sessions" not in shown:
        raise DemoError("The relay shows no session metric.")


def connectors(place: Place) -> list[str]:
    """The connectors' Pods by name and start of their containers."""
    template = "{range .items[*]}{.metadata.name} {.status.containerStatuses[0].restartCount}{'\\n'}{end}"
    selector = "app.kubernetes.io/component=connector"
    return sorted(place.kubectl("-n", SYSTEM, "get", "pods", "-l", selector, "-o", f"jsonpath={template}").split("\n"))


def second_binding(place: Place, steps: Steps) -> None:
    """Another hostname goes live on the running connectors."""
    before = connectors(place)
    start = time.monotonic()
    place.kubectl("apply", "-f", "-", stdin=manifest("second-binding.yaml", place))
    applied = time.monotonic()
    wait_for("the first 200 of the second binding", lambda: status_of(API) == "200", every=0.01)
    done = time.monotonic()
    steps.fact(
        f"apply → first 200 on a running tunnel: {(done - applied) * 1000:.0f} ms after kubectl returned "
        f"({(done - start) * 1000:.0f} ms with kubectl itself)"
    )
    if connectors(place) != before:
        raise DemoError("A connector Pod was replaced or restarted for a configuration change.")


def rollout(place: Place, steps: Steps) -> None:
    """An open-loop stream of GET and POST while every connector is replaced."""
    with tempfile.TemporaryDirectory() as folder:
        stop = Path(folder) / "stop"
        command = [sys.executable, str(HERE / "load.py"), HTTP, SHOP, f"r{int(time.time())}", "--until", str(stop)]
        client = subprocess.Popen([*command, "--rate", "100", "--seconds", "170"], stdout=subprocess.PIPE, text=True)
        try:
            prefix = command[4]
            count = f"{HTTP}/delivered?prefix={prefix}"
            wait_for("the load", lambda: '"ids": 0' not in curl("-H", f"Host: {SHOP}", count), seconds=30)
            place.kubectl("-n", SYSTEM, "rollout", "restart", "deployment/main-connector")
            place.kubectl("-n", SYSTEM, "rollout", "status", "deployment/main-connector", "--timeout=150s")
            gone = "app.kubernetes.io/component=connector"
            wait_for(
                "the old connectors' end",
                lambda: place.kubectl("-n", SYSTEM, "get", "pods", "-l", gone, "-o", "name").count("pod/") == 2,
                seconds=90,
                every=1,
            )
            stop.touch()
            output, _ = client.communicate(timeout=60)
        finally:
            if client.poll() is None:
                client.kill()
                client.wait()
        result = json.loads(output)
        delivered = json.loads(curl("-H", f"Host: {SHOP}", count))
    steps.show(f"python hack/demo/load.py {HTTP} {SHOP} … & kubectl rollout restart deployment/main-connector", output)
    steps.fact(
        f"requests during the rollout: {result['sent']} sent, {result['failed']} failed, "
        f"{len(delivered['twice'])} delivered twice, {result['sent'] - delivered['ids']} lost"
    )
    if result["failed"] or delivered["twice"] or delivered["ids"] != result["sent"]:
        raise DemoError("A rolling update of the connectors cost requests.")


def withdraw(place: Place, steps: Steps) -> None:
    """Deleting a binding takes its record and its route away, and nobody else's."""
    place.kubectl("-n", "shop", "delete", "tunnelbinding", "shop", "--timeout=90s")
    wait_for("the record's end", lambda: dig(SHOP) == "", seconds=30)
    steps.show(f"dig +tcp +short @127.0.0.1 -p {DNS_PORT} {SHOP}", "(no answer)")
    wait_for("the route's end", lambda: status_of(SHOP) in ("404", "503"), seconds=30)
    steps.show(f"curl -o /dev/null -w '%{{http_code}}' -H 'Host: {SHOP}' {HTTP}/", status_of(SHOP))
    if status_of(API) != "200":
        raise DemoError("Deleting one binding broke the other.")


def clean_up(place: Place, helm: str) -> None:
    """Takes away what the demo made, in the order that leaves no record behind."""
    place.kubectl("-n", "shop", "delete", "tunnelbinding", "--all", "--timeout=60s", check=False)
    place.kubectl("-n", SYSTEM, "delete", "tunnel", "--all", "--timeout=60s", check=False)
    run(helm, "--kubeconfig", place.kubeconfig, "uninstall", "culvert", "-n", SYSTEM, check=False)
    for name in ("shop", SYSTEM):
        place.kubectl("delete", "namespace", name, "--timeout=90s", check=False)


def what_matters(place: Place) -> str:
    """The logs and objects that tell why a step failed."""
    parts = []
    for arguments in (
        ("get", "pods", "-A", "-o", "wide"),
        ("get", "tunnels,tunnelbindings", "-A", "-o", "yaml"),
        ("-n", SYSTEM, "get", "events", "--sort-by=.lastTimestamp"),
        ("-n", SYSTEM, "logs", "deployment/culvert-operator", "--tail=60"),
        ("-n", SYSTEM, "logs", "statefulset/culvert-relay", "--tail=40"),
        ("-n", SYSTEM, "logs", "-l", "app.kubernetes.io/component=connector", "--tail=40", "--prefix"),
    ):
        output = place.kubectl(*arguments, check=False, timeout=60)
        parts.append(f"$ kubectl {' '.join(arguments)}\n{output[-6000:]}")
    return "\n".join(parts)


def main() -> int:
    """Runs every step; 0 when all held."""
    WORK.mkdir(exist_ok=True)
    steps = Steps()
    place: Place | None = None
    helm = ""
    code = 1
    try:
        steps.step("a cluster")
        find_visitors_tools()
        place = find_place()
        helm = find_helm()
        steps.step(f"the image {IMAGE}")
        archive = WORK / "culvert.tar"
        run(str(REPOSITORY / "hack" / "image" / "build"), "--tag", IMAGE, "--archive", str(archive), timeout=1500)
        place.load(archive)
        steps.step("helm install: operator and relay; a sample application without a public address")
        namespaces(place)
        certificate(place)
        install(place, steps, helm)
        for title, act in (
            ("kubectl apply: a Tunnel and a TunnelBinding", publish),
            ("a visitor's requests", visit),
            ("metrics", metrics),
            ("a second binding goes live without a Pod restart", second_binding),
            ("a rolling update of the connectors under load", rollout),
            ("deletion: the record first, then the route", withdraw),
        ):
            steps.step(title)
            act(place, steps)
        steps.step("every step held")
        for fact in steps.facts:
            print(f"      {fact}")
        code = 0
        if sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("DEMO") != "once":
            place.kubectl("apply", "-f", "-", stdin=manifest("binding.yaml", place))
            print(f"\nStill up. Try: curl -H 'Host: {SHOP}' {HTTP}/    KUBECONFIG={place.kubeconfig}")
            print("Ctrl-C takes everything down.", flush=True)
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        print("\ntaking everything down", flush=True)
    except (DemoError, subprocess.TimeoutExpired, OSError, ValueError) as error:
        complain(str(error))
        if place is not None:
            print(what_matters(place), file=sys.stderr, flush=True)
    finally:
        if place is not None and os.environ.get("DEMO_KEEP") != "1":
            if helm and not (place.started and place.name != "current cluster"):
                clean_up(place, helm)
            place.close()
    return code


if __name__ == "__main__":
    sys.exit(main())
