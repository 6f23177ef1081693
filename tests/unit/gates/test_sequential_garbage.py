"""What one thing that is no number does to a test of otherwise good ones: Invalid, and no more."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from modelrollout.gates.sequential import (
    Judgement,
    Verdict,
    bounded_mean,
    log_latency,
    mean_limit,
    mean_ratio,
    paired_bounded,
    proportion,
    rate_upper_bound,
    two_arm_counts,
)

WRONG: dict[str, Any] = {
    "None": None,
    "text": "9",
    "truth": True,
    "NaN": math.nan,
    "infinite": math.inf,
    "negative": -2.0,
    "huge": 10**400,
    "of more digits than Python prints": 10**5000,
    "negative and of as many digits": -(10**5000),
    "decimal": Decimal("0.5"),
    "decimal NaN": Decimal("NaN"),
    "fraction": Fraction(1, 2),
    "list": [0.5],
}
"""What is neither a count nor a measurement, an exposure, a level, a limit or a score."""

LEVELS = {"alpha": 0.05, "alpha_fail": 0.01}
TESTS: dict[Callable[..., Judgement], dict[str, Any]] = {
    proportion: {
        "k": 2,
        "n": 174,
        "p0": 0.05,
        "alpha_pass": 0.05,
        "alpha_fail": 0.01,
        "design_effect": 2.0,
    },
    two_arm_counts: {
        "k_c": 2,
        "exposure_c": 100.0,
        "k_s": 3,
        "exposure_s": 400.0,
        "max_ratio": 2.0,
        "design_effect": 2.0,
        **LEVELS,
    },
    paired_bounded: {"differences_by_cluster": [[0.0], [-0.1]], "margin": 0.03, **LEVELS},
    bounded_mean: {"values_by_cluster": {"a": [0.9, 1.0]}, "minimum": 0.8, **LEVELS},
    mean_limit: {
        "n": 40,
        "mean": 2.0,
        "deviation": 0.3,
        "limit": 2.5,
        "n_max": 300,
        "design_effect": 2.0,
        **LEVELS,
    },
    mean_ratio: {
        "n_c": 40,
        "mean_c": 2.0,
        "deviation_c": 0.3,
        "n_s": 160,
        "mean_s": 2.0,
        "deviation_s": 0.3,
        "margin_fail": 1.1,
        "margin_pass": 1.25,
        "n_max": 300,
        "design_effect": 2.0,
        **LEVELS,
    },
    log_latency: {
        "strata": [(40, 2.0, 4.0, 160, 2.0, 15.0)],
        "margin_fail": 1.1,
        "margin_pass": 1.25,
        "information_max": 2000.0,
        "design_effect": 2.0,
        **LEVELS,
    },
}
FIELDS = [(test, field) for test, good in TESTS.items() for field in good]


@pytest.mark.parametrize(
    ("test", "field"), FIELDS, ids=[f"{test.__name__}-{field}" for test, field in FIELDS]
)
def test_one_number_that_is_none_is_invalid(test: Callable[..., Judgement], field: str) -> None:
    good = TESTS[test]
    assert test(**good).verdict in (Verdict.PASS, Verdict.INCONCLUSIVE)
    for name, value in WRONG.items():
        if value is None and field == "alpha_fail":  # it may be left out
            continue
        judgement = test(**{**good, field: value})
        assert judgement.verdict is Verdict.INVALID, name
        assert isinstance(judgement.limit, float), name
        assert len(judgement.message) < 200, name


@pytest.mark.parametrize("field", ["k", "exposure", "alpha"])
def test_a_rate_has_no_bound_without_numbers(field: str) -> None:
    good: dict[str, Any] = {"k": 2, "exposure": 100.0, "alpha": 0.05}
    assert rate_upper_bound(**good) == pytest.approx(0.062958, abs=1e-6)
    for name, value in WRONG.items():
        assert math.isnan(rate_upper_bound(**{**good, field: value})), name


@pytest.mark.parametrize("name", WRONG)
def test_one_score_that_is_none_is_invalid(name: str) -> None:
    spoiled: tuple[Any, ...] = (
        [[0.1, WRONG[name]], [0.2]],
        [[WRONG[name], 0.1, 0.2]],
        {"a": [0.1], "b": [0.2, WRONG[name], 0.3]},
    )
    for scores in spoiled:
        assert paired_bounded(scores, margin=0.03, alpha=0.05).reason == "NotAScore"


@pytest.mark.parametrize(
    "clusters", [None, 3, [0.1, 0.2], {"a": 0.1}, "ab", [None], [[[0.1]]], [[0.1], 0.2]]
)
def test_what_is_no_clusters_of_scores_is_invalid(clusters: Any) -> None:
    assert paired_bounded(clusters, margin=0.03, alpha=0.05).reason == "NotAScore"
    assert bounded_mean(clusters, minimum=0.03, alpha=0.05).reason == "NotAScore"


def test_numbers_of_numpy_are_judged_as_those_of_python_are() -> None:
    levels = {"alpha_pass": 0.05, "alpha_fail": 0.05}
    assert proportion(np.int64(2), np.int64(174), 0.05, **levels) == proportion(  # type: ignore[arg-type]
        2, 174, 0.05, **levels
    )
    assert two_arm_counts(
        np.int64(2),  # type: ignore[arg-type]
        np.float64(100),
        np.uint8(3),  # type: ignore[arg-type]
        np.int32(400),  # type: ignore[arg-type]
        max_ratio=np.float32(2),  # type: ignore[arg-type]
        alpha=0.05,
    ) == two_arm_counts(2, 100, 3, 400, max_ratio=2, alpha=0.05)
    scores = np.random.default_rng(6).uniform(-0.2, 0.1, (40, 3))
    assert paired_bounded(scores, margin=0.03, alpha=0.05) == paired_bounded(  # type: ignore[arg-type]
        scores.tolist(), margin=0.03, alpha=0.05
    )


@pytest.mark.parametrize("least", [5e-324, 1e-309, 1e-17, 2**-54])
def test_a_level_or_limit_that_is_lost_beside_one_is_invalid(least: float) -> None:
    for field in ("p0", "alpha_pass", "alpha_fail"):
        good = TESTS[proportion]
        assert proportion(**{**good, field: least}).verdict is Verdict.INVALID
    assert two_arm_counts(1, 1, 1, 1, max_ratio=1, alpha=least).verdict is Verdict.INVALID
    assert two_arm_counts(1, 1, 1, 1, max_ratio=least, alpha=0.05).verdict is Verdict.INVALID
    assert paired_bounded([[0.0]] * 9, margin=0.03, alpha=least).verdict is Verdict.INVALID
    assert math.isnan(rate_upper_bound(1, 10, alpha=least))


@pytest.mark.parametrize("level", [2.0**-53, 1e-12, 1 - 1e-12, 1 - 2.0**-53])
@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 10), (9, 10), (10, 10), (500, 10**6)])
def test_with_the_most_extreme_levels_and_limits_all_bounds_are_shares(
    k: int, n: int, level: float
) -> None:
    for limit in (2.0**-53, 0.05, 1 - 2.0**-53):
        judgement = proportion(k, n, limit, alpha_pass=level, alpha_fail=level)
        assert judgement.low is not None
        assert judgement.high is not None
        assert 0 <= judgement.low <= 1
        assert 0 <= judgement.high <= 1
        if limit < 1e-9:
            assert judgement.verdict is not Verdict.PASS
