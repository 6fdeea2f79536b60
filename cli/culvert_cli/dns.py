"""``culvert dns``: what culvert would write, what it owns and what it left behind, for any DNS provider.

Also ``culvert tunnel route dns``, which publishes one hostname of a tunnel outside a cluster.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from culvert_cli.arguments import Subparsers, add_command, add_group
from culvert_cli.outcome import FAILURE, SUCCESS, CommandError, UsageError, load_role

if TYPE_CHECKING:
    from culvert_operator.dns.console import Console
    from culvert_operator.dns.plan import DNSPlan

RESOURCE = "tunnel/standalone/{}"


def add(commands: Subparsers) -> None:
    """Adds the group to the command line."""
    _, group = add_group(
        commands,
        "dns",
        about=(
            "Look at DNS as culvert does, and clean up.\n\nFor any provider: the file is what a Tunnel has under "
            "spec.dns, or a whole Tunnel."
        ),
        examples=(
            "culvert dns records --dns dns.yml --secret-file tsig.txt\n"
            "culvert dns plan --dns dns.yml --secret-file tsig.txt app.example.com\n"
            "culvert dns cleanup --dns dns.yml --secret-file tsig.txt --owner old-cluster"
        ),
    )
    records = add_command(
        group,
        "records",
        about="List the records that an owner id has.\n\nOne a line: name, type, TTL, targets, and whose it is.",
        examples="culvert dns records --dns dns.yml --owner 2f6c0a5e",
        run=lambda arguments: _run(arguments, _records, ()),
    )
    _add_provider(records)
    _add_names(records)
    plan = add_command(
        group,
        "plan",
        about="Show what publishing hostnames would change.\n\nNothing is written. Exits 1 when a name is refused.",
        examples="culvert dns plan --dns dns.yml app.example.com '*.dev.example.com'",
        run=lambda arguments: _run(arguments, _plan, arguments.hostname),
    )
    _add_provider(plan)
    _add_resource(plan)
    plan.add_argument("hostname", metavar="HOSTNAME", nargs="+", help="a name to be published")
    cleanup = add_command(
        group,
        "cleanup",
        about=(
            "Delete the records that an owner id left behind.\n\nShows what would be deleted; --yes deletes it. Never "
            "an owner id whose operator still runs: it would publish them again."
        ),
        examples=(
            "culvert dns cleanup --dns dns.yml --owner old-cluster\n"
            "culvert dns cleanup --dns dns.yml --owner old-cluster --resource tunnelbinding/shop/shop --yes"
        ),
        run=lambda arguments: _run(arguments, _cleanup, ()),
    )
    _add_provider(cleanup)
    _add_names(cleanup)
    cleanup.add_argument(
        "--resource", metavar="R", action="append", default=[], help="only records of this object; may be repeated"
    )
    what = cleanup.add_mutually_exclusive_group()
    what.add_argument("--yes", action="store_true", help="delete them")
    what.add_argument("--dry-run", action="store_true", help="only show them (the default)")


def add_route(tunnel: Subparsers) -> None:
    """Adds ``culvert tunnel route dns``."""
    _, group = add_group(
        tunnel,
        "route",
        about="Publish where a tunnel is reached.",
        examples="culvert tunnel route dns home app.example.com --dns dns.yml --secret-file tsig.txt",
    )
    parser = add_command(
        group,
        "dns",
        about=(
            "Publish a hostname of a tunnel.\n\nWrites the record and culvert's mark beside it. A record that is not "
            "culvert's is never overwritten."
        ),
        examples="culvert tunnel route dns home app.example.com --dns dns.yml --secret-file tsig.txt",
        run=_route,
    )
    parser.add_argument("name", metavar="NAME", help="the tunnel, as in its credentials")
    parser.add_argument("hostname", metavar="HOSTNAME", nargs=1, help="the name to be published")
    _add_provider(parser)


def _add_provider(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dns", metavar="FILE", type=Path, required=True, help="the dns block, YAML")
    parser.add_argument("--owner", metavar="ID", help="whose records, instead of the block's ownerId")
    parser.add_argument("--secret-file", metavar="FILE", type=Path, help="holds the TSIG key or API token")
    parser.add_argument("--zone-file", metavar="FILE", type=Path, help="holds the zone, for the zonefile provider")
    parser.add_argument(
        "--namespace",
        metavar="NS",
        help="has the DNSEndpoint objects, for the endpoints provider, in the cluster of KUBECONFIG",
    )


def _add_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--name",
        metavar="H",
        dest="names",
        action="append",
        default=[],
        help="a name whose zone to look into, where the block lists no zones; may be repeated",
    )


def _add_resource(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resource", metavar="R", default=RESOURCE.format("plan"), help="whose the records would be")


Doing = Callable[["Console", argparse.Namespace, Any], Awaitable[int]]


def _run(arguments: argparse.Namespace, doing: Doing, names: Any) -> int:
    import asyncio

    console_module = load_role("culvert_operator.dns.console", extra="operator")

    async def whole() -> int:
        async with contextlib.AsyncExitStack() as stack:
            objects = None
            if arguments.namespace is not None:
                cluster = load_role("culvert_operator.cluster.dns_endpoints", extra="operator")
                objects = await stack.enter_async_context(cluster.opened(arguments.namespace))
            console: Console = console_module.open_console(
                arguments.dns,
                owner=arguments.owner,
                secret_file=arguments.secret_file,
                zone_file=arguments.zone_file,
                objects=objects,
            )
            stack.push_async_callback(console.close)
            view = await console.view([*names, *getattr(arguments, "names", ())])
            return await doing(console, arguments, view)

    try:
        return asyncio.run(whole())
    except console_module.ConsoleError as error:
        raise CommandError(str(error)) from None


async def _records(console: Console, arguments: argparse.Namespace, view: Any) -> int:
    owned = console.owned(view)
    for e in owned:
        targets = ",".join(e.targets) or "(no record, only the mark)"
        print(f"{e.name}\t{e.type}\t{e.ttl}\t{targets}\t{e.resource}")
    if not owned:
        print(f"The owner id {console.owner} has no records in {', '.join(z.zone for z in view.zones) or 'no zone'}.")
    return SUCCESS


async def _plan(console: Console, arguments: argparse.Namespace, view: Any) -> int:
    return _show(console.plan(view, console.wanted(arguments.hostname, arguments.resource)))


def _show(plan: DNSPlan) -> int:
    """Print a plan, one name a line; FAILURE when a name is refused."""
    from culvert_operator.dns.plan import REFUSED

    told = set()
    for zone in plan.changes:
        for change in zone.changes:
            told.add(change.name)
            after = "; ".join(f"{e.type} {','.join(e.targets)}" for e in change.after)
            print(f"{change.action}\t{change.name}\t{after}".rstrip())
    refused = False
    for (name, _), verdict in sorted(plan.verdicts.items()):
        if name in told:
            continue
        told.add(name)
        refused = refused or verdict.state in REFUSED
        print(f"{'refused' if verdict.state in REFUSED else 'keep'}\t{name}\t{verdict.message}".rstrip())
    return FAILURE if refused else SUCCESS


async def _cleanup(console: Console, arguments: argparse.Namespace, view: Any) -> int:
    owned = console.owned(view, arguments.resource)
    plan = console.removal(view, owned)
    _show(plan)
    count = sum(len(zone.changes) for zone in plan.changes)
    if not arguments.yes:
        names = "1 name" if count == 1 else f"{count} names"
        print(f"{names} of the owner id {console.owner} would be deleted; say --yes to delete them.")
        return SUCCESS
    return await _carry_out(console, plan)


async def _carry_out(console: Console, plan: DNSPlan) -> int:
    from culvert_operator.dns.provider import Result

    results = await console.carry_out(plan)
    failed = [r for r in results if r.result is not Result.DONE]
    if failed:
        raise CommandError(*(f"{r.name} was not changed: {r.message}" for r in failed))
    return SUCCESS


def _route(arguments: argparse.Namespace) -> int:
    if "/" in arguments.name or not arguments.name.isprintable() or "," in arguments.name or not arguments.name:
        raise UsageError("A tunnel's name in DNS marks has no '/' and no ','; choose another one.")
    return _run(arguments, _publish, arguments.hostname)


async def _publish(console: Console, arguments: argparse.Namespace, view: Any) -> int:
    plan = console.plan(view, console.wanted(arguments.hostname, RESOURCE.format(arguments.name)))
    code = _show(plan)
    return code if code != SUCCESS else await _carry_out(console, plan)
