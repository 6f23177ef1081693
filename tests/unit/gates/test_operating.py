"""How tests end for a candidate of which the truth is known, against what others have counted."""

from __future__ import annotations

import math
from functools import cache
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.gates.operating import Operating, ShareTest, line_crossing, share_operating
from modelrollout.gates.verdict import Verdict

P95 = 0.05

SIMULATED = {
    (120, 0.01): (0.49, 0.00, None),
    (120, 0.02): (0.23, 0.00, None),
    (120, 0.03): (0.11, 0.00, None),
    (120, 0.05): (0.03, 0.02, None),
    (120, 0.08): (0.00, 0.11, None),
    (120, 0.10): (0.00, 0.26, None),
    (120, 0.15): (0.00, 0.85, 53),
    (300, 0.01): (0.95, 0.00, 130),
    (300, 0.02): (0.59, 0.00, 250),
    (300, 0.03): (0.26, 0.00, None),
    (300, 0.05): (0.03, 0.02, None),
    (300, 0.08): (0.00, 0.24, None),
    (300, 0.10): (0.00, 0.65, 222),
    (300, 0.15): (0.00, 1.00, 57),
    (600, 0.01): (1.00, 0.00, 130),
    (600, 0.02): (0.91, 0.00, 213),
    (600, 0.03): (0.46, 0.00, None),
    (600, 0.05): (0.04, 0.02, None),
    (600, 0.08): (0.00, 0.47, None),
    (600, 0.10): (0.00, 0.94, 222),
    (600, 0.15): (0.00, 1.00, 56),
    (1200, 0.01): (1.00, 0.00, 130),
    (1200, 0.02): (1.00, 0.00, 250),
    (1200, 0.03): (0.76, 0.00, 677),
    (1200, 0.05): (0.04, 0.02, None),
    (1200, 0.08): (0.00, 0.83, 589),
    (1200, 0.10): (0.00, 1.00, 219),
    (1200, 0.15): (0.00, 1.00, 57),
}
"""P(pass), P(fail) and the median number of requests of the p95 gate, by most requests and true
share of slow ones: counted in 4000 simulated courses each, with another program."""


def declared(
    most: int, *, limit: float = P95, fewest: int = 1, alpha: float = 0.05, gates: int = 1
) -> ShareTest:
    return ShareTest(limit, alpha, alpha / gates, fewest, most)


@pytest.mark.parametrize(("most", "share"), SIMULATED)
def test_the_figures_agree_with_simulated_courses(most: int, share: float) -> None:
    passes, fails, median = SIMULATED[most, share]
    exact = share_operating(declared(most), share)
    assert exact.passes == pytest.approx(passes, abs=by_chance(exact.passes))
    assert exact.fails == pytest.approx(fails, abs=by_chance(exact.fails))
    if median is not None:
        ended_before = 1 - share_operating(declared(median - 1), share).undecided
        ended_by_then = 1 - share_operating(declared(median), share).undecided
        assert ended_before - by_chance(0.5) <= 0.5 <= ended_by_then + by_chance(0.5)


def by_chance(probability: float) -> float:
    """What 4000 courses, rounded to two decimals, may be off."""
    return 4 * math.sqrt(probability * (1 - probability) / 4000) + 0.005


def enumerated(test: ShareTest, share: float) -> Operating:
    """Every course there is, one by one."""
    ends: dict[Verdict, list[tuple[int, float]]] = {verdict: [] for verdict in Verdict}
    verdict_on = cache(test.verdict)
    for course in product((0, 1), repeat=test.max_requests):
        chance = math.prod(share if bad else 1 - share for bad in course)
        verdict, at = Verdict.INCONCLUSIVE, test.max_requests
        for n in range(1, test.max_requests + 1):
            found = verdict_on(sum(course[:n]), n)
            early = found is Verdict.PASS and n < test.min_requests
            if found is not Verdict.INCONCLUSIVE and not early:
                verdict, at = found, n
                break
        ends[verdict].append((at, chance))
    passed, failed = sorted(ends[Verdict.PASS]), sorted(ends[Verdict.FAIL])
    return Operating(
        passes=sum(chance for _, chance in passed),
        fails=sum(chance for _, chance in failed),
        undecided=sum(chance for _, chance in ends[Verdict.INCONCLUSIVE]),
        requests_to_pass=middle(passed, sum(chance for _, chance in passed)),
        requests_to_fail=middle(failed, sum(chance for _, chance in failed)),
        requests_to_end=middle(sorted(passed + failed), 1),
    )


def middle(ends: list[tuple[int, float]], of: float) -> int | None:
    so_far = 0.0
    for n, chance in ends:
        so_far += chance
        if so_far >= of / 2 > 0:
            return n
    return None


@pytest.mark.parametrize("share", [0.0, 0.1, 0.37, 0.8, 1.0])
@pytest.mark.parametrize(
    "test",
    [
        ShareTest(0.5, 0.2, 0.2, 1, 10),
        ShareTest(0.5, 0.05, 0.05, 1, 10),
        ShareTest(0.5, 0.2, 0.1, 8, 11),
        ShareTest(0.3, 0.3, 0.05, 1, 11),
        ShareTest(0.9, 0.2, 0.3, 3, 9),
    ],
    ids=["median", "strict", "minimum", "third", "high"],
)
def test_small_cases_agree_with_all_courses_one_by_one(test: ShareTest, share: float) -> None:
    found, all_of_them = share_operating(test, share), enumerated(test, share)
    assert found.passes == pytest.approx(all_of_them.passes, abs=1e-12)
    assert found.fails == pytest.approx(all_of_them.fails, abs=1e-12)
    assert found.undecided == pytest.approx(all_of_them.undecided, abs=1e-12)
    assert found.requests_to_pass == all_of_them.requests_to_pass
    assert found.requests_to_fail == all_of_them.requests_to_fail
    assert found.requests_to_end == all_of_them.requests_to_end


def test_a_perfect_candidate_passes_at_the_fewest_requests_that_prove_it() -> None:
    perfect = share_operating(declared(300), 0)
    assert (perfect.passes, perfect.requests_to_pass) == (1, 72)
    assert share_operating(declared(71), 0).undecided == 1


def test_a_hopeless_candidate_fails_within_a_few_requests() -> None:
    hopeless = share_operating(declared(300), 1)
    assert (hopeless.fails, hopeless.requests_to_fail) == (1, 2)
    assert hopeless.requests_to_pass is None


def test_it_does_not_pass_before_the_declared_minimum() -> None:
    assert share_operating(declared(300, fewest=200), 0).requests_to_pass == 200
    assert share_operating(declared(300, fewest=200), 1).requests_to_fail == 2


def test_a_million_requests_tell_small_differences_apart() -> None:
    found = share_operating(declared(1_000_000, limit=0.01), 0.011)
    assert found.fails > 0.95
    assert found.requests_to_fail is not None
    assert 100_000 < found.requests_to_fail < 300_000
    assert found.passes + found.fails + found.undecided == pytest.approx(1)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_what_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="is no share"):
        share_operating(declared(300), share)


@given(
    limit=st.floats(0.01, 0.6),
    alpha=st.floats(0.01, 0.2),
    gates=st.integers(1, 8),
    most=st.integers(1, 400),
    fewest=st.integers(1, 60),
)
def test_a_candidate_at_the_limit_is_misjudged_no_more_often_than_declared(
    limit: float, alpha: float, gates: int, most: int, fewest: int
) -> None:
    test = declared(most, limit=limit, fewest=fewest, alpha=alpha, gates=gates)
    found = share_operating(test, limit)
    assert found.passes <= alpha
    assert found.fails <= alpha / gates
    assert found.passes + found.fails + found.undecided == pytest.approx(1)


@given(
    limit=st.sampled_from([0.01, 0.05, 0.1, 0.5]),
    most=st.sampled_from([60, 150, 300]),
    one=st.floats(0, 1),
    other=st.floats(0, 1),
)
def test_a_worse_candidate_fails_more_often_and_passes_less_often(
    limit: float, most: int, one: float, other: float
) -> None:
    better, worse = (share_operating(declared(most, limit=limit), p) for p in sorted((one, other)))
    assert worse.fails >= better.fails - 1e-12
    assert worse.passes <= better.passes + 1e-12


@pytest.mark.parametrize(
    ("drift", "line", "probability"),
    [
        (0.0, 1.959964, 0.05),  # Levy's inequality: twice the chance at the end
        (0.0, 1.644854, 0.10),
        (3.0, 1.959964, 0.8960),  # 100,000 simulated paths: .8965
        (-1.0, 1.959964, 0.0049),  # simulated: .0052
        (40.0, 2.0, 1.0),
        (-40.0, 2.0, 0.0),
    ],
)
def test_a_score_crosses_its_line_with_the_probability_of_a_brownian_motion(
    drift: float, line: float, probability: float
) -> None:
    assert line_crossing(drift, line) == pytest.approx(probability, abs=5e-4)


@given(st.floats(-60, 60), st.floats(-60, 60), st.floats(0.1, 8))
def test_more_drift_crosses_more_often(one: float, other: float, line: float) -> None:
    slow, fast = sorted((one, other))
    assert 0 <= line_crossing(slow, line) <= line_crossing(fast, line) + 1e-12 <= 1 + 1e-12


def by_number(test: ShareTest, share: float) -> tuple[float, float]:
    """Chances to pass and to fail, from the verdict on every number of bad requests."""
    going_on, passes, fails = {0: 1.0}, 0.0, 0.0
    for n in range(1, test.max_requests + 1):
        following: dict[int, float] = {}
        for k, chance in going_on.items():
            following[k] = following.get(k, 0.0) + chance * (1 - share)
            following[k + 1] = following.get(k + 1, 0.0) + chance * share
        going_on = {}
        for k, chance in following.items():
            verdict = test.verdict(k, n)
            if verdict is Verdict.FAIL:
                fails += chance
            elif verdict is Verdict.PASS and n >= test.min_requests:
                passes += chance
            else:
                going_on[k] = chance
    return passes, fails


@given(
    st.sampled_from([0.01, 0.05, 0.3, 0.5, 0.9]),
    st.sampled_from([0.003, 0.05, 0.3]),
    st.integers(1, 40),
    st.integers(0, 45),
    st.floats(0, 1),
)
def test_boundaries_are_where_the_verdicts_change(
    limit: float, alpha: float, most: int, fewest: int, share: float
) -> None:
    test = ShareTest(limit, alpha, alpha, fewest, most)
    found, (passes, fails) = share_operating(test, share), by_number(test, share)
    assert found.passes == pytest.approx(passes, abs=1e-9)
    assert found.fails == pytest.approx(fails, abs=1e-9)
