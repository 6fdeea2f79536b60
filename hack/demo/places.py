"""Where the demo runs: the cluster of KUBECONFIG, kind where Docker runs, or hack/cluster's own node.

Responsible for starting a cluster when needed, putting images into it, and saying at which local addresses its
NodePorts can be reached. Invariant: `close` takes down exactly what was started here.
"""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "hack" / "cluster"))

from onenode import debian  # noqa: E402  (the line above makes it importable)
from onenode.progress import Progress  # noqa: E402
from onenode.refusal import Refusal  # noqa: E402

CLUSTER = REPOSITORY / "hack" / "cluster" / "cluster"
IMAGE = "localhost/culvert:dev"
HTTP_PORT, HTTPS_PORT, DNS_PORT = 30080, 30443, 30053


class DemoError(Exception):
    """A step did not hold; the message is a sentence."""


def run(*command: str, stdin: str | None = None, timeout: float = 600, check: bool = True) -> str:
    """Runs a command and returns its standard output; raises DemoError with both streams when it fails."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode != 0:
        raise DemoError(f"`{' '.join(command[:8])}` failed:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return done.stdout


def stream(*command: str) -> None:
    """Runs a command with its output shown as it comes; raises DemoError when it fails."""
    if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode != 0:
        raise DemoError(f"`{' '.join(command)}` failed; its own lines above say why.")


@dataclass
class Place:
    """A cluster, and how to talk to it from here."""

    name: str
    kubeconfig: str
    coredns_image: str
    started: bool = False
    forwards: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 300, check: bool = True) -> str:
        """kubectl with this cluster's kubeconfig."""
        return run(*self.kubectl_command(), *arguments, stdin=stdin, timeout=timeout, check=check)

    def kubectl_command(self) -> tuple[str, ...]:
        """The command in front of kubectl's own arguments."""
        if shutil.which("kubectl"):
            return ("kubectl", f"--kubeconfig={self.kubeconfig}")
        return (str(CLUSTER), "kubectl", f"--kubeconfig={self.kubeconfig}")

    def load(self, archive: Path) -> None:
        """Makes the built image known to the cluster's nodes."""
        if self.name == "hack/cluster":
            run(str(CLUSTER), "load-image", str(archive))
        elif self.name == "kind":
            run("kind", "load", "image-archive", str(archive), "--name", "culvert")

    def open_ports(self) -> None:
        """Where NodePorts are not on this machine's loopback, kubectl port-forward stands in for them."""
        if self.name != "current cluster":
            return
        for service, ports in (
            ("culvert-relay", (f"{HTTP_PORT}:80", f"{HTTPS_PORT}:443")),
            ("demo-dns", (f"{DNS_PORT}:53",)),
        ):
            command = [*self.kubectl_command(), "-n", "culvert-system", "port-forward", f"service/{service}", *ports]
            self.forwards.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def close(self) -> None:
        """Ends what was started here."""
        for process in self.forwards:
            process.terminate()
            process.wait(timeout=10)
        self.forwards.clear()
        if not self.started:
            return
        if self.name == "hack/cluster":
            run(str(CLUSTER), "down", timeout=120)
        elif self.name == "kind":
            run("kind", "delete", "cluster", "--name", "culvert")
        self.started = False


def find_place() -> Place:
    """Chooses and, where needed, starts the cluster. Raises DemoError when none can be had."""
    if os.environ.get("DEMO_CLUSTER") == "current":
        kubeconfig = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
        return Place("current cluster", kubeconfig, "registry.k8s.io/coredns/coredns:v1.12.0")
    docker = shutil.which("docker") and shutil.which("kind")
    if docker and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
        kubeconfig = str(REPOSITORY / ".demo" / "kubeconfig")
        existing = run("kind", "get", "clusters").split()
        if "culvert" not in existing:
            config = str(REPOSITORY / "kind-config.yaml")
            stream("kind", "create", "cluster", "--name", "culvert", "--config", config, "--kubeconfig", kubeconfig)
        else:
            run("kind", "export", "kubeconfig", "--name", "culvert", "--kubeconfig", kubeconfig)
        return Place("kind", kubeconfig, "registry.k8s.io/coredns/coredns:v1.12.0", started="culvert" not in existing)
    running = subprocess.run([str(CLUSTER), "status"], capture_output=True, check=False).returncode == 0
    stream(str(CLUSTER), "up")
    kubeconfig = run(str(CLUSTER), "kubeconfig").strip()
    return Place("hack/cluster", kubeconfig, "localhost/coredns:1", started=not running)


def find_visitors_tools() -> None:
    """curl and dig, which a person repeats the demo's commands with: installed like the cluster's own programs."""
    tools = (
        debian.Tool("curl", "curl", "a visitor's requests"),
        debian.Tool("dig", "bind9-dnsutils", "asks the zone"),
    )
    try:
        debian.require(tools, Progress())
    except Refusal as refusal:
        raise DemoError(str(refusal)) from None


def find_helm() -> str:
    """helm from PATH, else the one that hack/cluster builds."""
    found = shutil.which("helm")
    if found:
        return found
    built = run(str(CLUSTER), "path", "helm", check=False).strip()
    if not built:
        print("      building helm from its pinned Go module (once)", flush=True)
        stream(str(CLUSTER), "build", "helm")
        built = run(str(CLUSTER), "path", "helm").strip()
    return built


class Steps:
    """Prints what happens as it happens, with the time since the start."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.facts: list[str] = []

    def step(self, text: str) -> None:
        """Begins a step."""
        print(f"\n[{time.monotonic() - self.start:6.1f} s] {text}", flush=True)

    def show(self, command: str, output: str) -> None:
        """A command that a person can repeat, and what it printed."""
        print(f"      $ {command}", flush=True)
        for line in output.strip().splitlines():
            print(f"        {line}", flush=True)

    def fact(self, text: str) -> None:
        """A figure that the closing summary repeats."""
        self.facts.append(text)
        print(f"      {text}", flush=True)


def complain(text: str) -> None:
    """An error, on standard error."""
    print(f"\ndemo: {text}", file=sys.stderr, flush=True)
