"""The command `hack/cluster/cluster`.

Responsible for arguments, what is printed, and exit codes: 0 success (for `status`: ready), 1 failure, 2 usage. Must
not decide anything about clusters. Results go to standard output, progress and errors to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from onenode import building, clusters, debian, guard, images, layout, modules, whole_node
from onenode.clusters import Status
from onenode.layout import StateLayout
from onenode.progress import Progress
from onenode.refusal import Refusal

_EXAMPLES: Final = """\
examples:
  cluster up                                   a whole node on this machine (needs root); cold, it is built from source
  cluster up --control-plane-only              a real API server with its controllers, no root needed
  cluster up --control-plane-only --state DIR  another one, beside the first
  cluster status --json                        kubeconfig, audit log, programs
  cluster kubectl get pods -A
  cluster build helm kubeconform               build further programs into the cache
  cluster path helm                            where a built program lies
  cluster load-image image.tar                 give the node an image: an OCI or docker archive,
  cluster load-image localhost/culvert:dev     or an image of buildah's or Docker's storage
  cluster remove-image localhost/culvert:dev   take it out of the node again
  cluster down                                 take it away, and everything that it left on the machine

environment:
  CULVERT_CLUSTER_DIR  state folder of the node (default: ~/.cache/culvert/cluster)
  XDG_CACHE_HOME       built programs are cached in its folder culvert (default: ~/.cache)
  NO_INSTALL=1         name missing Debian packages instead of installing them

exit codes: 0 success (status: ready), 1 failure, 2 usage
"""


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cluster",
        description="A real single-node Kubernetes on this machine, built from pinned sources.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, about: str, *, state: bool = True) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=about, description=about)
        if state:
            added.add_argument("--control-plane-only", action="store_true", help="no node: no root needed")
            added.add_argument("--state", type=Path, metavar="DIR", help="the cluster's folder")
        return added

    for name, about in (
        ("up", "Start it, building what is missing; nothing to do when it runs."),
        ("status", "Say whether it runs and is ready."),
    ):
        verb(name, about).add_argument("--json", action="store_true", help="print the status as JSON")
    verbs.choices["up"].add_argument(
        "--until-exit-of", type=int, metavar="PID", help="with --control-plane-only: goes down when PID ends"
    )
    verb("check", "Say what `up` would have to build or install first; exit 1 if anything.")
    guard_verb = verbs.add_parser("guard")  # internal: started by --until-exit-of
    guard_verb.add_argument("--state", type=Path, required=True)
    guard_verb.add_argument("pid", type=int)
    verb("down", "Stop it and remove everything that it left behind.")
    verb("kubeconfig", "Print the path of the administrator's kubeconfig.")
    verb("load-image", "Give the node an image.").add_argument("image", metavar="FILE|NAME")
    verb("remove-image", "Take an image out of the node; no Pod may need it.").add_argument("image", metavar="NAME")
    build = verb("build", "Build programs into the cache.", state=False)
    build.add_argument("modules", nargs="*", metavar="MODULE", help="default: everything that a node needs")
    build.add_argument("--check", action="store_true", help="build nothing; exit 1 and list what is missing")
    build.add_argument("--list", action="store_true", help="list what can be built")
    verb("path", "Print the path of a built program.", state=False).add_argument("program")
    verb("kubectl", "Run kubectl against it.").add_argument("arguments", nargs=argparse.REMAINDER)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Runs one command; returns its exit code."""
    parsed = _arguments().parse_args(_separate_kubectl(arguments))
    try:
        code = _VERBS[parsed.verb](parsed)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `cluster status | head`: the reader had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Refusal as refusal:
        print(f"cluster: {refusal}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cluster: interrupted", file=sys.stderr)
        return 1


def _separate_kubectl(arguments: Sequence[str]) -> list[str]:
    """What follows `kubectl` is kubectl's, options included; our own two options may come first."""
    words = list(arguments)
    if not words or words[0] != "kubectl":
        return words
    own = ["kubectl"]
    rest = words[1:]
    while rest and rest[0] in ("--control-plane-only", "--state"):
        take = 2 if rest[0] == "--state" else 1
        own, rest = own + rest[:take], rest[take:]
    return [*own, "--", *rest]


def _root(parsed: argparse.Namespace) -> Path:
    chosen: Path | None = parsed.state
    return chosen.absolute() if chosen else layout.default_state(with_node=not parsed.control_plane_only)


def _up(parsed: argparse.Namespace) -> int:
    progress, root, cache = Progress(), _root(parsed), layout.cache_root()
    if parsed.control_plane_only:
        programs = building.build(modules.needed_for("control-plane"), cache, progress)
        status = clusters.up_control_plane(root, programs, progress)
        if parsed.until_exit_of is not None:
            guard.watch(root, parsed.until_exit_of)
    else:
        whole_node.check_rights(root)
        debian.require(debian.NODE, progress)
        programs = building.build(modules.needed_for("node"), cache, progress)
        status = whole_node.up(root, programs, progress)
    _print_status(status, as_json=parsed.json)
    return 0


def _check(parsed: argparse.Namespace) -> int:
    purpose = "control-plane" if parsed.control_plane_only else "node"
    if not parsed.control_plane_only:
        whole_node.check_rights(_root(parsed))
        if absent := debian.missing(debian.NODE):
            raise Refusal(f"Debian packages are missing: {' '.join(sorted({tool.package for tool in absent}))}.")
    if unbuilt := building.missing(modules.needed_for(purpose), layout.cache_root()):
        names = " ".join(module.name for module in unbuilt)
        raise Refusal(f"Not built yet: {names}. Build once: hack/cluster/cluster build {names}")
    return 0


def _guard(parsed: argparse.Namespace) -> int:
    guard.wait_and_take_down(parsed.state, parsed.pid)
    return 0


def _print_status(status: Status, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(status.document(), indent=2))
        return
    if status.kind is None:
        print(f"no cluster in {status.layout.root}; start one: hack/cluster/cluster up")
        return
    print(f"{status.kind} {'ready' if status.ready else 'NOT READY'}  {status.server}")
    for name, alive in status.programs.items():
        print(f"  {name:24} {'running' if alive else f'ended; see {status.layout.log(name)}'}")
    print(f"  audit log  {status.layout.audit_log}")
    print(f"  export KUBECONFIG={shlex.quote(str(status.layout.kubeconfig))}")


def _status(parsed: argparse.Namespace) -> int:
    status = clusters.status(StateLayout(_root(parsed)))
    _print_status(status, as_json=parsed.json)
    return 0 if status.ready else 1


def _down(parsed: argparse.Namespace) -> int:
    progress, root = Progress(), _root(parsed)
    if whole_node.is_node(root):
        whole_node.check_rights(root)
        whole_node.down(root)
    else:
        clusters.down_control_plane(root)
    progress.say(f"nothing is left of the cluster in {root}")
    return 0


def _kubeconfig(parsed: argparse.Namespace) -> int:
    print(_existing(_root(parsed)).kubeconfig)
    return 0


def _existing(root: Path) -> StateLayout:
    found = StateLayout(root)
    if clusters.read_record(found) is None:
        raise Refusal(f"There is no cluster in {root}. Start one: hack/cluster/cluster up")
    return found


def _load_image(parsed: argparse.Namespace) -> int:
    found = _existing(_root(parsed))
    ctr = building.programs(modules.needed_for("node"), layout.cache_root())["ctr"]
    if Path(parsed.image).is_file():
        images.import_archive(Path(parsed.image), found, ctr=ctr)
    else:
        images.import_named(parsed.image, found, ctr=ctr)
    return 0


def _remove_image(parsed: argparse.Namespace) -> int:
    found = _existing(_root(parsed))
    ctr = building.programs(modules.needed_for("node"), layout.cache_root())["ctr"]
    images.remove(parsed.image, found, ctr=ctr)
    return 0


def _build(parsed: argparse.Namespace) -> int:
    cache = layout.cache_root()
    if parsed.list:
        for module in modules.GO_MODULES.values():
            state = "to build" if building.missing((module,), cache) else "built"
            print(f"{module.name:14} {state:9} {module.about}")
        return 0
    wanted = modules.named(parsed.modules) if parsed.modules else modules.needed_for("node")
    if parsed.check:
        absent = building.missing(wanted, cache)
        for module in absent:
            print(module.name)
        return 1 if absent else 0
    building.build(wanted, cache, Progress())
    return 0


def _path(parsed: argparse.Namespace) -> int:
    for module in modules.GO_MODULES.values():
        if parsed.program in module.programs:
            if building.missing((module,), layout.cache_root()):
                raise Refusal(f"{parsed.program} is not built yet: hack/cluster/cluster build {module.name}")
            print(building.programs((module,), layout.cache_root())[parsed.program])
            return 0
    known = ", ".join(name for module in modules.GO_MODULES.values() for name in module.programs)
    raise Refusal(f'There is no program "{parsed.program}". Programs: {known}.')


def _kubectl(parsed: argparse.Namespace) -> int:
    found = _existing(_root(parsed))
    kubelite = building.programs(modules.named(["controlplane"]), layout.cache_root())["kubelite"]
    words = parsed.arguments[1:] if parsed.arguments[:1] == ["--"] else parsed.arguments
    environment = {**os.environ, "KUBECONFIG": str(found.kubeconfig)}
    return subprocess.run([kubelite, "kubectl", *words], env=environment, check=False).returncode


_VERBS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "up": _up,
    "check": _check,
    "guard": _guard,
    "status": _status,
    "down": _down,
    "kubeconfig": _kubeconfig,
    "load-image": _load_image,
    "remove-image": _remove_image,
    "build": _build,
    "path": _path,
    "kubectl": _kubectl,
}
