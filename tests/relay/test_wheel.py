"""Coarse deadlines: never early, at most a tick late, and nothing kept of what was cancelled."""

from hypothesis import given
from hypothesis import strategies as st

from culvert_relay.wheel import TICK_SECONDS, Wheel, ticks


class Timer:
    def __init__(self, wheel: Wheel) -> None:
        self.wheel = wheel
        self.deadline = 0
        self.scheduled = 0
        self.fired: list[int] = []

    def on_deadline(self) -> None:
        self.fired.append(self.wheel.now)


def test_a_deadline_comes_once_at_its_tick() -> None:
    wheel = Wheel()
    timer = Timer(wheel)
    wheel.arm(timer, 5)
    wheel.advance(4)
    assert timer.fired == []
    wheel.advance(20)
    assert timer.fired == [5]
    assert len(wheel) == 0


def test_putting_off_needs_nothing_but_the_number() -> None:
    wheel = Wheel()
    timer = Timer(wheel)
    wheel.arm(timer, 5)
    timer.deadline = 9
    wheel.advance(20)
    assert timer.fired == [9]


def test_bringing_forward_and_cancelling() -> None:
    wheel = Wheel()
    one, two = Timer(wheel), Timer(wheel)
    wheel.arm(one, 100)
    wheel.arm(two, 100)
    wheel.arm(one, 3)
    wheel.cancel(two)
    assert len(wheel) == 1
    wheel.advance(200)
    assert (one.fired, two.fired) == ([3], [])


def test_a_deadline_may_be_set_again_from_within() -> None:
    wheel = Wheel()

    class Again(Timer):
        def on_deadline(self) -> None:
            super().on_deadline()
            if len(self.fired) < 3:
                wheel.arm(self, 2)

    timer = Again(wheel)
    wheel.arm(timer, 2)
    wheel.advance(20)
    assert timer.fired == [2, 4, 6]


def test_seconds_become_at_least_as_many_ticks() -> None:
    for seconds in (0.1, 0.5, 0.6, 10, 75):
        # The present tick may be over in a moment, so one more than the quotient.
        assert (ticks(seconds) - 1) * TICK_SECONDS >= seconds


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("arm"), st.integers(0, 3), st.integers(1, 30)),
        st.tuples(st.just("cancel"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("advance"), st.just(0), st.integers(0, 20)),
    ),
    max_size=40,
)


@given(ACTIONS)
def test_the_wheel_agrees_with_a_list_of_deadlines(actions: list[tuple[str, int, int]]) -> None:
    wheel = Wheel()
    timers = [Timer(wheel) for _ in range(4)]
    due: dict[int, int] = {}
    expected: list[list[int]] = [[] for _ in range(4)]
    for action, which, number in actions:
        if action == "arm":
            wheel.arm(timers[which], number)
            due[which] = wheel.now + number
        elif action == "cancel":
            wheel.cancel(timers[which])
            due.pop(which, None)
        else:
            wheel.advance(wheel.now + number)
            for index, deadline in list(due.items()):
                if deadline <= wheel.now:
                    expected[index].append(deadline)
                    del due[index]
    assert [timer.fired for timer in timers] == expected
    assert len(wheel) == len(due)


def test_many_deadlines_of_one_tick_take_several_turns_and_none_is_lost() -> None:
    wheel = Wheel()
    timers = [Timer(wheel) for _ in range(10)]
    for timer in timers:
        wheel.arm(timer, 3)
    turns = 0
    while wheel.advance(5, most=4):
        turns += 1
        assert sum(len(timer.fired) for timer in timers) == turns * 4
    assert turns == 2
    assert [timer.fired for timer in timers] == [[3]] * 10
    assert (wheel.now, len(wheel)) == (5, 0)


def test_who_is_cancelled_or_armed_anew_while_others_are_looked_at_is_not_called_then() -> None:
    wheel = Wheel()
    timers = [Timer(wheel) for _ in range(3)]
    for timer in timers:
        wheel.arm(timer, 1)
    assert wheel.advance(1, most=1)
    cancelled, again = (timer for timer in timers if not timer.fired)
    wheel.cancel(cancelled)
    wheel.arm(again, 2)
    assert not wheel.advance(1, most=5)
    assert (cancelled.fired, again.fired) == ([], [])
    wheel.advance(9)
    assert (cancelled.fired, again.fired) == ([], [3])
    assert len(wheel) == 0
