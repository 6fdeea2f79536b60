"""Real clusters for tests, from hack/cluster.

`control_plane`  a real API server with its controllers, one per test process, gone when the process is
`node`           the machine's whole node, shared by all test processes; one that ran before is left running
`installation`   culvert on that node: chart, sample application, name server, a Tunnel (see installation.py)

The first two are `Cluster`s. What they need is not built behind a person's back: without it tests skip, with one line
that says what to do. `REQUIRE_CLUSTER=1` makes that a failure instead, and builds and installs;
`CULVERT_BUILD_CLUSTER=1` only builds and installs.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import subprocess
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

from .installation import ARCHIVE, Installation, build_image, in_the_way, installation_on, is_left_over
from .operators import CRDS, World
from .ways import Ways, ways

REPOSITORY = Path(__file__).resolve().parent.parent.parent
CLUSTER = REPOSITORY / "hack" / "cluster" / "cluster"
REQUIRED = os.environ.get("REQUIRE_CLUSTER") == "1"
MAY_BUILD = REQUIRED or os.environ.get("CULVERT_BUILD_CLUSTER") == "1"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster. `server` is its URL; `node_address` is where NodePorts answer (None without a node)."""

    kubeconfig: Path
    audit_log: Path
    server: str
    state: Path
    node_address: str | None

    def kubectl(
        self,
        *arguments: str,
        input: str | None = None,  # noqa: A002  (subprocess.run's name for it)
        check: bool = True,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl as the administrator. With `check`, a failure fails the test with what kubectl said."""
        done = subprocess.run(
            self.kubectl_command(*arguments),
            input=input,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            pytest.fail(f"kubectl {' '.join(arguments)} failed:\n{done.stderr}{done.stdout}")
        return done

    def kubectl_command(self, *arguments: str) -> list[str]:
        """The command line of kubectl as the administrator."""
        return [program("kubelite"), "kubectl", f"--kubeconfig={self.kubeconfig}", *arguments]

    def get(self, *arguments: str) -> Any:
        """`kubectl get ARGUMENTS`, parsed."""
        return json.loads(self.kubectl("get", *arguments, "--output=json").stdout)

    def apply(self, manifest: str) -> None:
        """`kubectl apply` of a YAML text."""
        self.kubectl("apply", "--filename=-", input=manifest)

    def audit(self) -> list[dict[str, Any]]:
        """The audit log so far: one `audit.k8s.io/v1` Event per answered request, oldest first."""
        lines = self.audit_log.read_text().splitlines(keepends=True)
        events = [json.loads(line) for line in lines if line.endswith("\n")]  # the last may be half-written
        for event in events:
            event["user"].setdefault("username", "")  # whose token is no longer valid is nobody
        return events

    def load_image(self, image: Path | str) -> None:
        """Gives the node an archive, or an image of buildah's or Docker's storage."""
        done = run_cluster("load-image", "--state", str(self.state), str(image))
        if done.returncode != 0:
            pytest.fail(done.stderr)

    def remove_image(self, name: str) -> None:
        """Takes an image out of the node again."""
        done = run_cluster("remove-image", "--state", str(self.state), name)
        if done.returncode != 0:
            pytest.fail(done.stderr)


def run_cluster(*arguments: str, quiet: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs hack/cluster/cluster. Not `quiet`: its progress goes to this process's standard error."""
    return subprocess.run(
        [str(CLUSTER), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        check=False,
    )


@functools.cache
def program(name: str) -> str:
    """The path of a built program ("helm", "kubeconform"); skips, or fails, when it is not built."""
    done = run_cluster("path", name)
    if done.returncode != 0:
        unavailable(done.stderr.strip())
    return done.stdout.strip()


def unavailable(why: str) -> NoReturn:
    """Skips, unless clusters are required."""
    if REQUIRED:
        pytest.fail(f"REQUIRE_CLUSTER=1 is set, but: {why}")
    pytest.skip(f"{why.removeprefix('cluster: ')} (or run `make cluster` once)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        needed = NEEDS.keys() & set(getattr(item, "fixturenames", ()))
        if not needed:
            continue
        item.add_marker(pytest.mark.cluster)
        if "installation" in needed:
            item.add_marker(pytest.mark.timeout(900))  # the first one installs, in front of its own work


# Fixture → what `hack/cluster/cluster build` must have built for it.
NEEDS = {
    "control_plane": ("localtools", "controlplane"),
    "node": ("localtools", "controlplane", "node", "containerd", "cni", "coredns"),
    "installation": ("localtools", "controlplane", "node", "containerd", "cni", "coredns", "helm"),
    "helm": ("helm",),
    "kubeconform": ("kubeconform",),
}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Builds before the first test starts, as a build may take longer than any test is allowed to."""
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())} & NEEDS.keys()
    modules = dict.fromkeys(module for name in NEEDS if name in wanted for module in NEEDS[name])
    if MAY_BUILD and modules and not session.config.option.collectonly:
        run_cluster("build", *modules, quiet=False)  # a failure shows up, with its reason, in `check`
        if "installation" in wanted:
            build_image()  # likewise in the fixture


def _demand(*options: str) -> None:
    done = run_cluster("check", *options)
    # Missing packages `up` may install by itself where building is allowed; rights and programs it cannot.
    if done.returncode != 0 and not (MAY_BUILD and "Debian packages are missing" in done.stderr):
        unavailable(done.stderr.strip())


def _up(*options: str) -> Cluster:
    done = run_cluster("up", "--json", *options)
    if done.returncode != 0:
        pytest.fail(done.stderr)
    status = json.loads(done.stdout)
    return Cluster(
        kubeconfig=Path(status["kubeconfig"]),
        audit_log=Path(status["auditLog"]),
        server=status["server"],
        state=Path(status["state"]),
        node_address=status["nodeAddress"],
    )


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane of this test process's own."""
    _demand("--control-plane-only")
    state = tmp_path_factory.mktemp("control-plane") / "state"
    options = ("--control-plane-only", "--state", str(state))
    try:
        yield _up(*options, "--until-exit-of", str(os.getpid()))
    finally:
        run_cluster("down", *options)


@pytest.fixture(scope="session")
def cluster(control_plane: Cluster) -> Cluster:
    """A control plane with culvert's CRDs."""
    control_plane.kubectl("apply", "--filename", str(CRDS))
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", "--filename", str(CRDS))
    return control_plane


@pytest.fixture
def world(cluster: Cluster, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """Namespaces and an operator of the test's own."""
    names = [item.name for item in request.session.items]
    made = World(cluster, f"t{names.index(request.node.name)}", tmp_path)
    try:
        yield made
        made.close()
    finally:
        made.kill()
        print(made.log.read_text() if made.log.exists() else "")


@pytest.fixture(scope="session")
def to_the_server(cluster: Cluster) -> Ways:
    """Ways to that control plane: the administrator's, and that of an account with all that the operator may do."""
    return ways(cluster)


@pytest.fixture(scope="session")
def node() -> Iterator[Cluster]:
    """The machine's node. Whoever uses it holds a shared lock; the last one out takes it down, if a test began it."""
    _demand()
    state = Path(json.loads(run_cluster("status", "--json").stdout)["state"])
    state.parent.mkdir(parents=True, exist_ok=True)
    began = state.with_name(f"{state.name}.begun-by-tests")
    with state.with_name(f"{state.name}.users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        if run_cluster("status").returncode != 0:
            began.touch()
        try:
            yield _up()
        finally:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # others still use it
            else:
                if began.exists():
                    run_cluster("down")
                    began.unlink()


@pytest.fixture(scope="session")
def helm() -> str:
    """Path of helm."""
    return program("helm")


@pytest.fixture(scope="session")
def kubeconform() -> str:
    """Path of kubeconform."""
    return program("kubeconform")


@pytest.fixture(scope="session")
def _installation(node: Cluster, helm: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One installation for all tests of this run; another run on this machine waits for its end."""
    if not MAY_BUILD and not ARCHIVE.exists():
        unavailable("culvert's image was never built on this machine: run `make image` once")
    if failure := build_image():
        pytest.fail(f"culvert's image cannot be built:\n{failure}")
    made = installation_on(node, helm, tmp_path_factory.mktemp("installation"))
    with node.state.with_name(f"{node.state.name}.installation").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        if reason := in_the_way(node):
            unavailable(reason)
        if is_left_over(node):
            made.remove()
        node.load_image(ARCHIVE)
        try:
            yield made
            refused = made.refused()
        finally:
            made.remove()
    assert refused == [], "requests of culvert that its RBAC does not allow"


@pytest.fixture
def installation(_installation: Installation) -> Installation:
    """culvert on the node, with a Tunnel `main` of two connectors and a binding `first`, both Ready."""
    _installation.ensure()
    return _installation


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure of a test on the node shows the logs and objects that matter."""
    report = yield
    values = getattr(item, "funcargs", {})
    if report.failed and report.when != "teardown" and "installation" in getattr(item, "fixturenames", ()):
        found = values.get("_installation") or values.get("installation")
        if found is not None:
            report.sections.append(("what the installation says", found.what_matters()))
    return report
