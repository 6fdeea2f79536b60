"""Property mutations on a real API server: any changes to any fields come to the same as applying the result afresh.

Each trial makes one to ten random changes to the Tunnel's and a binding's spec, by the CRDs' own schemas. Invalid ones
are refused by the API server with a sentence, or show in conditions; after the others the state equals that of a new
world in which the last specs were applied at once, and reverting restores the first state. Fields whose history is
meant to show are left alone: `dns` (records of a former zone or owner stay), `deletionPolicy`, and
`tunnelRef` (there is only one Tunnel here).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from culvert_operator.cluster import kinds
from culvert_operator.cluster.client import APIError

from .differing import differences
from .fault_world import Story
from .mutations import mutated
from .ways import Ways

TRIALS = int(os.environ.get("CULVERT_MUTATIONS", "3"))
FIRST = int(os.environ.get("CULVERT_MUTATION_FIRST", "0"))
AT_ONCE = 2
SEED = int(os.environ.get("CULVERT_MUTATION_SEED", "1"))
TRIAL_SECONDS = 120.0
CRDS = Path(__file__).resolve().parents[2] / "crds"
# Without a connector nothing is published anew, but what is published stays: history shows, too.
LEAVE = (("dns",), ("deletionPolicy",), ("tunnelRef",), ("connector", "replicas"))

pytestmark = pytest.mark.timeout(300 if TRIALS < 10 else 0)


def schema(plural: str) -> Any:
    crd = yaml.safe_load((CRDS / f"{plural}.yaml").read_text())
    return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]


SCHEMAS = {kinds.TUNNEL: schema("tunnels"), kinds.BINDING: schema("tunnelbindings")}
NAMES = {kinds.TUNNEL: "main", kinds.BINDING: "first"}


class Trial:
    """One trial: a world that is changed, and one that is laid out afresh."""

    def __init__(self, make: Callable[[], Story], seed: int) -> None:
        self.make = make
        self.chance = random.Random(seed)
        self.changes: list[str] = []
        self.accepted = 0
        self.refused = 0
        self.alarms: list[str] = []

    async def run(self) -> None:
        story = self.make()
        specs = {kinds.TUNNEL: story.tunnel_spec(), kinds.BINDING: story.rules("old")}
        async with story.living(), asyncio.timeout(TRIAL_SECONDS):
            await story.lay_out(*specs.values())
            await story.rest()
            before = await story.state()
            first = {kind: await self._spec(story, kind) for kind in specs}
            for _ in range(self.chance.randint(1, 10)):
                await self._change(story, self.chance.choice(list(specs)))
            await story.rest()
            after = await story.state()
            last = {kind: await self._spec(story, kind) for kind in specs}
            for kind, spec in first.items():
                await self._write(story, kind, spec)
            await story.rest()
            self.alarms += [f"reverted: {d}" for d in differences(before, await story.state())]
            self.alarms += [*story.failures, *story.proxy.refused]
        again = self.make()
        async with again.living(), asyncio.timeout(TRIAL_SECONDS):
            await again.lay_out(*(_renamed(spec, story.name, again.name) for spec in last.values()))
            await again.rest()
            self.alarms += [f"afresh: {d}" for d in differences(*_comparable(await again.state(), after))]

    async def _change(self, story: Story, kind: Any) -> None:
        spec, what = mutated(SCHEMAS[kind], await self._spec(story, kind), self.chance, zone=story.zone, leave=LEAVE)
        try:
            await self._write(story, kind, spec)
        except APIError as error:
            assert error.status in (400, 422), error
            self.refused += 1
            if not str(error):
                self.alarms.append(f"refused without a sentence: {what}")
            return
        self.accepted += 1
        self.changes.append(f"{kind.name} {what}")
        if self.chance.random() < 0.5:
            await story.rest(0.2)

    async def _spec(self, story: Story, kind: Any) -> Any:
        raw = await story.client.get(kind, story.name, NAMES[kind])
        assert raw is not None
        return raw["spec"]

    async def _write(self, story: Story, kind: Any, spec: Any) -> None:
        while True:
            raw = await story.client.get(kind, story.name, NAMES[kind])
            assert raw is not None
            try:
                await story.client.replace(kind, story.name, NAMES[kind], {**raw, "spec": spec})
            except APIError as error:
                if not error.conflict:
                    raise
            else:
                return


def _comparable(fresh: Any, changed: Any) -> tuple[Any, Any]:
    """Two states that must be equal. What a Tunnel's own problem keeps from being written stays as it was, on
    purpose, where something was written before: then only the problem itself is compared."""
    conditions = {c["type"]: (c["status"], c["reason"]) for c in changed["tunnel"][0]["conditions"]}
    if conditions["Accepted"][0] == "True" and conditions["ConnectorsAvailable"][1] != "WriteRefused":
        return fresh, changed
    kept = [[c for c in state["tunnel"][0]["conditions"] if c["type"] == "Accepted"] for state in (fresh, changed)]
    return kept[0], kept[1]


def _renamed(spec: Any, before: str, after: str) -> Any:
    return yaml.safe_load(yaml.safe_dump(spec).replace(before, after))


def test_d28_random_changes_come_to_what_a_fresh_apply_does_and_reverting_restores(
    to_the_server: Ways, record_property: Callable[[str, object], None]
) -> None:
    numbers = itertools.count(5001)
    alarmed: dict[str, Any] = {}
    outcome: Counter[str] = Counter()
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        seed = SEED * 1000 + number
        trial = Trial(lambda: Story(to_the_server, next(numbers)), seed)
        async with slots:
            try:
                await trial.run()
            except TimeoutError:
                trial.alarms.append("did not come to rest")
        outcome["alarmed" if trial.alarms else "passed"] += 1
        outcome["changes accepted"] += trial.accepted
        outcome["changes refused"] += trial.refused
        print(f"seed {seed} {trial.changes} {trial.refused} refused: {trial.alarms}", flush=True)
        if trial.alarms:
            alarmed[f"seed {seed}: {trial.changes}"] = trial.alarms

    async def run() -> None:
        await asyncio.gather(*map(one, range(FIRST, FIRST + TRIALS)))

    asyncio.run(run())
    told = ", ".join(f"{count} {what}" for what, count in sorted(outcome.items()))
    record_property("summary", f"property mutations: {TRIALS} trials: {told}")
    assert alarmed == {}
    assert outcome["changes accepted"]
