"""Counters of a pod: their difference, what is kept of them in status, their sum over pods."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen import contract
from modelrollout.api.status import CounterBaseline
from modelrollout.gates.moments import MOST_CLASSES, OTHER_CLASSES, fold, named_classes
from modelrollout.gates.totals import Incomparable, LogMoments, Totals

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MANY = contract.REQUEST_CLASSES[: MOST_CLASSES + 4]


def moments(*logs: float) -> LogMoments:
    return LogMoments(len(logs), sum(logs), sum(item**2 for item in logs))


def totals(log_moments: Mapping[str, LogMoments], **changes: Any) -> Totals:
    served = sum(item.count for item in log_moments.values())
    given = {
        **dict.fromkeys(("succeeded", "images", "measured", "timed"), served),
        **dict.fromkeys(("failed", "out_of_memory"), 0),
        **dict.fromkeys(("gpu_seconds", "gpu_seconds_squares", "busy_seconds"), float(served)),
        "within": {500: served},
    }
    return Totals(**{"pod": "a", "time": NOON, "log_moments": log_moments, **given, **changes})


def kept(found: Totals, classes: tuple[str, ...] | None = None) -> Totals:
    """The counters after their way through status."""
    stored = found.to_baseline([500], classes)
    return Totals.from_baseline(CounterBaseline.model_validate(stored.to_api()))


# -- differences -----------------------------------------------------------------------------------
def test_what_happened_in_a_class_is_the_difference_of_its_moments() -> None:
    later = totals({"x": moments(7.0, 8.0, 9.0)}).since(totals({"x": moments(7.0)}))
    assert later.log_moments == {"x": moments(8.0, 9.0)}


def test_a_class_that_is_new_began_at_zero_and_one_without_requests_is_left_out() -> None:
    before = totals({"x": moments(7.0)})
    later = totals({"x": moments(7.0), "y": moments(5.0)}).since(before)
    assert later.log_moments == {"y": moments(5.0)}


@pytest.mark.parametrize(
    "later",
    [
        {},
        {"x": LogMoments(1, 14.0, 98.0)},
        {"x": LogMoments(2, 13.0, 98.0)},
        {"x": LogMoments(2, 14.0, 97.0)},
        {"x": LogMoments(2, 14.0, 198.0)},
        {"x": LogMoments(3, 21.0, 98.5)},
    ],
    ids=["gone", "count", "total", "squares", "no-requests", "impossible"],
)
def test_a_class_that_went_backwards_is_a_reset(later: dict[str, LogMoments]) -> None:
    before = totals({"x": LogMoments(2, 14.0, 98.0)})
    after = replace(before, log_moments=later)
    with pytest.raises(Incomparable) as error:
        after.since(before)
    assert error.value.reason in {"CounterReset", "NotACounter"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 1e300])
@pytest.mark.parametrize("name", ["count", "total", "squares"])
def test_moments_that_are_no_numbers_are_no_counters(name: str, value: float) -> None:
    change: dict[str, Any] = {name: value}
    broken = {"x": replace(moments(7.0), **change)}
    with pytest.raises(Incomparable):
        replace(totals({}), log_moments=broken).check()


@pytest.mark.parametrize("share", [math.nan, math.inf, -0.1, 1.1])
def test_more_memory_than_there_is_was_never_in_use(share: float) -> None:
    with pytest.raises(Incomparable, match="memory"):
        totals({}, peak_memory_share=share).check()


def test_the_peak_of_memory_is_the_later_one() -> None:
    before = totals({}, peak_memory_share=0.5)
    assert totals({}, peak_memory_share=0.7).since(before).peak_memory_share == 0.7


logs = st.lists(st.floats(0, 20), max_size=8)
by_class = st.dictionaries(st.sampled_from(MANY), logs)


def cumulated(values: Mapping[str, list[float]], start: LogMoments) -> dict[str, LogMoments]:
    """Moments as a server counts them: one request after the other, on top of earlier ones."""
    found: dict[str, LogMoments] = {}
    for name, each in values.items():
        found[name] = start
        for item in each:
            found[name] += moments(item)
    return {name: item for name, item in found.items() if item.count}


@given(by_class, by_class, st.integers(0, 10**7))
def test_a_server_never_seems_to_be_reset_by_rounding(
    first: dict[str, list[float]], second: dict[str, list[float]], earlier: int
) -> None:
    """Whatever was served, before and since, is a possible difference, folded or not."""
    start = LogMoments(earlier, earlier * 7.123, earlier * 7.123**2 * 1.001)
    before = cumulated({name: first.get(name, []) for name in MANY}, start)
    after = {
        name: sum(map(moments, second.get(name, [])), before.get(name, LogMoments()))
        for name in {*before, *second}
    }
    baseline = kept(totals(before))
    since = totals({name: item for name, item in after.items() if item.count}).since(baseline)
    assert sum(item.count for item in since.log_moments.values()) == sum(map(len, second.values()))
    since.check()


# -- what is kept ----------------------------------------------------------------------------------
@given(st.dictionaries(st.sampled_from(MANY[:MOST_CLASSES]), logs.filter(len)))
def test_up_to_sixteen_classes_survive_their_way_through_status(
    values: dict[str, list[float]],
) -> None:
    found = totals(cumulated(values, LogMoments()), out_of_memory=3)
    assert kept(found) == found


def test_the_classes_that_are_kept_apart_are_the_candidates_then_the_busiest() -> None:
    candidate = {MANY[19]: moments(*[7.0] * 5), MANY[18]: moments(*[7.0] * 9)}
    stable = {name: moments(*[7.0] * (50 - at)) for at, name in enumerate(MANY)}
    assert set(named_classes(candidate, stable, {})) == {
        *(MANY[18], MANY[19]),
        *MANY[: MOST_CLASSES - 3],
        OTHER_CLASSES,
    }


def test_classes_with_equally_many_requests_are_kept_by_name() -> None:
    equal = {name: moments(7.0) for name in MANY}
    names = named_classes(dict(reversed(equal.items())))
    assert names == (*sorted(MANY)[: MOST_CLASSES - 1], OTHER_CLASSES)


def test_what_is_not_kept_apart_is_together_in_both_arms() -> None:
    stable = totals({name: moments(*[7.0] * (50 - at)) for at, name in enumerate(MANY)})
    candidate = totals({MANY[0]: moments(7.0)}, pod="candidate")
    names = named_classes(candidate.log_moments, stable.log_moments)
    # When both serve one of the surplus classes
    surplus = MANY[-1]
    grown = {**stable.log_moments, surplus: stable.log_moments[surplus] + moments(8.0)}
    stable_since = totals(grown).since(kept(stable, names))
    candidate_since = totals(
        {**candidate.log_moments, surplus: moments(9.0)}, pod="candidate"
    ).since(kept(candidate, names))
    assert set(stable_since.log_moments) == set(candidate_since.log_moments) == {OTHER_CLASSES}
    assert candidate_since.log_moments[OTHER_CLASSES] == moments(9.0)


@given(by_class, st.permutations(MANY))
def test_folding_does_not_depend_on_the_order_of_classes(
    values: dict[str, list[float]], order: list[str]
) -> None:
    found = cumulated(values, LogMoments())
    mixed = {name: found[name] for name in order if name in found}
    names = (*MANY[:3], OTHER_CLASSES)
    assert fold(mixed, names) == fold(found, names)
    assert named_classes(mixed) == named_classes(found)


# -- over several pods -----------------------------------------------------------------------------
def test_pods_are_summed_by_class_and_by_edges_that_all_have() -> None:
    one = totals(
        {"x": moments(7.0), "y": moments(5.0)}, within={500: 2, 900: 2}, peak_memory_share=0.5
    )
    other = totals({"x": moments(8.0)}, pod="b", within={500: 1, 700: 1}, peak_memory_share=0.75)
    both = Totals.over([one, other])
    assert (both.pod, both.time, both.succeeded, both.timed) == ("a, b", NOON, 3, 3)
    assert both.within == {500: 3}
    assert both.log_moments == {"x": moments(7.0, 8.0), "y": moments(5.0)}
    assert both.peak_memory_share == 0.75
    assert Totals.over([one]) == one
