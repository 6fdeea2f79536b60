"""The fence before writes."""

from __future__ import annotations

import time

import pytest

from culvert_operator.leadership.fence import Fence, NotLeader, always, boot_time


def test_a_fence_is_closed_until_it_is_extended_and_closes_by_time_alone() -> None:
    now, refused = [100.0], []
    fence = Fence(lambda: now[0], refused=lambda: refused.append(now[0]))
    with pytest.raises(NotLeader):
        fence.left()
    fence.extend(110.0)
    assert fence.left() == 10.0
    now[0] = 110.0
    with pytest.raises(NotLeader, match="does not lead"):
        fence.left()
    fence.extend(120.0)
    fence.close()
    with pytest.raises(NotLeader):
        fence.left()
    assert refused == [100.0, 110.0, 110.0]


def test_without_an_election_nothing_is_held_back() -> None:
    assert always().left() > 1e9


def test_the_clock_is_one_that_counts_while_the_machine_sleeps() -> None:
    assert abs(boot_time() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60
