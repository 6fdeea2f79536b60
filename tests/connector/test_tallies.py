"""Rules are told apart up to a bound."""

from culvert_connector.tallies import Tallies
from culvert_transport.instruments import OTHER


def test_rules_beyond_the_bound_are_counted_together_until_others_go() -> None:
    tallies = Tallies(limit=2)
    first, second = tallies.of("first"), tallies.of("second")
    assert tallies.of("first") is first
    assert tallies.of("third") is tallies.other
    assert tallies.other.labels == (OTHER,)
    tallies.keep({"second", "third"})
    assert tallies.of("third").labels == ("third",)
    assert tallies.of("second") is second
    assert [traffic.labels[0] for traffic in tallies] == ["", "second", "third", OTHER]
