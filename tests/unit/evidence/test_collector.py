"""From series to a snapshot."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen import contract
from modelrollout.evidence.collector import Sample, collect
from modelrollout.evidence.queries import PROBE_FAMILIES, SERVER_FAMILIES
from modelrollout.gates.evidence import ProbeTotals, Snapshot
from tests.unit.evidence.answering import (
    LARGE,
    PLAIN,
    Values,
    device_values,
    log_values,
    server_values,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FAMILIES = [family.name for family in (*SERVER_FAMILIES, *PROBE_FAMILIES)]
COUNTERS = [family.name for family in SERVER_FAMILIES if family.name != contract.VRAM_BYTES]
LOG_FAMILIES = [name for name in COUNTERS if "_log_seconds_" in name]

Answers = dict[str, list[Sample]]


def answers(values: Values, **labels: str) -> Answers:
    given = labels or {"namespace": "shop", "pod": "a"}
    series = {
        name: [Sample({**given, **own}, float(value)) for own, value in rows]
        for name, rows in values.items()
    }
    return {name: series.get(name, []) for name in FAMILIES}


def together(*parts: Answers) -> Answers:
    return {name: [sample for part in parts for sample in part[name]] for name in FAMILIES}


def snapshot(*parts: Answers) -> Snapshot:
    return collect(NOON, together(*parts))


def test_all_counters_of_a_pod_are_read() -> None:
    totals = snapshot(answers(server_values(10))).servers["shop", "a"]
    assert (totals.pod, totals.time) == ("a", NOON)
    assert (totals.succeeded, totals.failed, totals.images, totals.measured) == (10, 0, 10, 10)
    assert (totals.gpu_seconds, totals.gpu_seconds_squares, totals.busy_seconds) == (8, 6.5, 8)
    assert totals.timed == 10
    assert totals.within == {500: 0, 1700: 10, 3000: 10}


def test_faults_are_failed_requests_and_refusals_are_not() -> None:
    values = server_values(10)
    values[contract.REQUESTS_TOTAL] = [
        ({"outcome": outcome}, 10**number) for number, outcome in enumerate(contract.Outcome)
    ]
    totals = snapshot(answers(values)).servers["shop", "a"]
    assert totals.succeeded == 1
    # timeout, out of memory, watchdog, error; not invalid, busy, cancelled
    assert totals.failed == 1_000 + 100_000 + 1_000_000 + 10_000_000
    assert totals.refused == 100


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 1e300])
@pytest.mark.parametrize("family", COUNTERS)
def test_a_value_that_no_counter_has_makes_only_its_pod_unusable(family: str, value: float) -> None:
    broken = server_values(10)
    broken[family] = [(labels, value) for labels, _ in broken[family]]
    seen = snapshot(answers(broken), answers(server_values(3), namespace="shop", pod="b"))
    assert set(seen.servers) == {("shop", "b")}
    assert set(seen.unusable) == {("shop", "a")}


def test_half_a_request_is_no_count() -> None:
    broken: Values = {**server_values(10), contract.IMAGES_TOTAL: [({}, 2.5)]}
    assert "imagegen_images_total is 2.5" in snapshot(answers(broken)).unusable["shop", "a"]


@pytest.mark.parametrize("family", COUNTERS)
def test_a_missing_counter_is_not_zero(family: str) -> None:
    missing: Values = {**server_values(10), family: []}
    seen = snapshot(answers(missing))
    assert seen.servers == {}
    assert family in seen.unusable["shop", "a"]


def test_a_pod_that_is_scraped_twice_is_unusable_and_says_where_they_differ() -> None:
    one = answers(server_values(10), namespace="shop", pod="a", job="pods")
    other = answers(server_values(10), namespace="shop", pod="a", job="services")
    for order in ((one, other), (other, one)):
        seen = snapshot(*order)
        assert seen.servers == {}
        assert "differ in job ('pods', 'services')" in seen.unusable["shop", "a"]


def test_series_without_the_pods_name_tell_of_the_relabelling() -> None:
    seen = snapshot(answers(server_values(10), namespace="shop"))
    assert "relabelling" in seen.unusable["shop", ""]


@pytest.mark.parametrize(
    "edges",
    [
        {"0.5": 1.0, "1.7": 2.0},
        {"0.5": 5.0, "1.7": 4.0, "+Inf": 6.0},
        {"1.7": 7.0, "+Inf": 6.0},
        {"1": 5.0, "1.0": 5.0, "+Inf": 6.0},
        {"wide": 5.0, "+Inf": 6.0},
        {"NaN": 5.0, "+Inf": 6.0},
    ],
    ids=["no-infinity", "falling", "beyond-all", "twice", "word", "nan"],
)
def test_a_histogram_that_is_none_is_unusable(edges: dict[str, float]) -> None:
    values = server_values(6)
    values[contract.REQUEST_DURATION_BUCKET] = [({"le": le}, n) for le, n in edges.items()]
    assert set(snapshot(answers(values)).unusable) == {("shop", "a")}


def test_edges_are_whole_milliseconds_however_they_are_written() -> None:
    values = server_values(6)
    values[contract.REQUEST_DURATION_BUCKET] = [
        ({"le": le}, 6.0)
        for le in ("0.0005", "0.3", "1.7000000000000002", "1e+01", "1e300", "+Inf")
    ]
    totals = snapshot(answers(values)).servers["shop", "a"]
    assert set(totals.within) == {300, 1700, 10_000}


# -- log latency by class --------------------------------------------------------------------------
def test_the_moments_of_each_class_are_read() -> None:
    values = server_values(3) | log_values({PLAIN: [1.0, 2.0], LARGE: [4.0]})
    moments = snapshot(answers(values)).servers["shop", "a"].log_moments
    assert set(moments) == {PLAIN, LARGE}
    one, two = math.log(1000), math.log(2000)
    assert moments[PLAIN].count == 2
    assert moments[PLAIN].mean == pytest.approx((one + two) / 2)
    assert moments[PLAIN].squared_deviations == pytest.approx((two - one) ** 2 / 2)
    assert moments[LARGE].count == 1
    assert moments[LARGE].squared_deviations == pytest.approx(0, abs=1e-12)


def test_a_server_without_requests_has_no_moments() -> None:
    assert snapshot(answers(server_values(0))).servers["shop", "a"].log_moments == {}


@pytest.mark.parametrize("family", LOG_FAMILIES)
def test_a_class_that_one_family_lacks_makes_its_pod_unusable(family: str) -> None:
    values = server_values(3) | log_values({PLAIN: [1.0, 2.0], LARGE: [4.0]})
    values[family] = [row for row in values[family] if row[0]["request_class"] == PLAIN]
    seen = snapshot(answers(values))
    assert seen.servers == {}
    assert family in seen.unusable["shop", "a"]


def test_a_class_that_is_nowhere_is_missed() -> None:
    values = server_values(3) | log_values({PLAIN: [1.0, 2.0]})
    assert "has 2 requests" in snapshot(answers(values)).unusable["shop", "a"]


@pytest.mark.parametrize("name", ["", "size_huge.steps_default.images_one", "x" * 10_000])
def test_a_class_that_the_contract_does_not_know_is_refused(name: str) -> None:
    values = server_values(2) | log_values({name: [1.0, 2.0]})
    assert "update the operator" in snapshot(answers(values)).unusable["shop", "a"]


@pytest.mark.parametrize("squares", [0.0, 47.7])
def test_moments_that_no_requests_have_are_unusable(squares: float) -> None:
    values = server_values(1)
    values[contract.REQUEST_LOG_SECONDS_SQUARES_SUM] = [({"request_class": PLAIN}, squares)]
    assert "which no requests have" in snapshot(answers(values)).unusable["shop", "a"]


# -- device memory ---------------------------------------------------------------------------------
def test_without_a_device_there_is_no_share_of_its_memory() -> None:
    assert snapshot(answers(server_values(3))).servers["shop", "a"].peak_memory_share is None


def test_the_peak_is_a_share_of_the_devices_memory() -> None:
    values = server_values(3) | device_values(peak_reserved=60e9, device_total=80e9)
    assert snapshot(answers(values)).servers["shop", "a"].peak_memory_share == 0.75


@pytest.mark.parametrize(
    "memory",
    [
        {"peak_reserved": 1e9},
        {"device_total": 1e9},
        {"peak_reserved": 1e9, "device_total": 0},
        {"peak_reserved": 2e9, "device_total": 1e9},
        {"peak_reserved": -1, "device_total": 1e9},
        {"peak_reserved": math.nan, "device_total": 1e9},
        {"peak_reserved": 1e9, "device_total": math.nan},
        {"peak_reserved": 1e9, "device_total": math.inf},
    ],
)
def test_memory_that_no_device_has_makes_only_its_pod_unusable(memory: dict[str, float]) -> None:
    broken = server_values(3) | device_values(**memory)
    seen = snapshot(answers(broken), answers(server_values(3), namespace="shop", pod="b"))
    assert set(seen.servers) == {("shop", "b")}
    assert set(seen.unusable) == {("shop", "a")}


# -- probes ----------------------------------------------------------------------------------------
def by_arm(candidate: float, stable: float) -> list[tuple[dict[str, str], float]]:
    return [({"arm": "candidate"}, candidate), ({"arm": "stable"}, stable)]


def probe(
    prompts: float,
    deviation: float | None,
    *,
    loading: float = 0,
    stable: tuple[float, float] = (0, 0),
    candidate: tuple[float, float] = (0, 0),
    **labels: str,
) -> Answers:
    values: Values = {
        contract.PROBE_REPEAT_PROMPTS_TOTAL: [({}, prompts)],
        contract.PROBE_LOADING: [({}, loading)],
        contract.PROBE_REQUEST_DURATION_COUNT: by_arm(candidate[0], stable[0]),
        contract.PROBE_SKIPPED_TOTAL: by_arm(candidate[1], stable[1]),
    }
    if deviation is not None:
        values[contract.PROBE_REPEAT_PSD] = [({}, deviation)]
    return answers(values, **{"namespace": "shop", "pod": "probe-1", **labels})


KEY = ("shop", "probe-1")


def test_results_of_a_probe_are_read_at_every_stage() -> None:
    assert snapshot(probe(0, None)).probes == {KEY: ProbeTotals(0, None, loading=False)}
    assert snapshot(probe(9, 0.001)).probes == {KEY: ProbeTotals(9, 0.001, loading=False)}
    assert snapshot(probe(9, 0.001, loading=1)).probes == {KEY: ProbeTotals(9, 0.001, loading=True)}


def test_the_load_that_each_arm_was_spared_is_read() -> None:
    read = snapshot(probe(9, 0.001, loading=1, stable=(30, 10), candidate=(20, 60))).probes[KEY]
    assert (read.stable_served, read.stable_missed, read.missed_share) == (30, 10, 0.25)
    assert (read.candidate_served, read.candidate_missed) == (20, 60)
    assert KEY in snapshot(probe(9, 0.001, stable=(30, -1))).unusable
    assert KEY in snapshot(probe(9, 0.001, candidate=(30, -1))).unusable


def test_probes_of_the_same_rollout_are_told_apart() -> None:
    # Given the probe of an earlier attempt, and one of the same rollout in another cluster
    parts = (
        probe(9, 0.001),
        probe(3, 0.02, pod="probe-2", loading=1),
        probe(5, 0.5, pod="probe-3", cluster="elsewhere"),
    )
    for order in (parts, parts[::-1]):
        assert snapshot(*order).probes == {
            ("shop", "probe-1"): ProbeTotals(9, 0.001, loading=False),
            ("shop", "probe-2"): ProbeTotals(3, 0.02, loading=True),
            ("shop", "probe-3"): ProbeTotals(5, 0.5, loading=False),
        }


def test_two_sources_of_one_probe_pod_are_none() -> None:
    parts = (probe(9, 0.001, cluster="here"), probe(9, 0.001, cluster="there"))
    for order in (parts, parts[::-1]):
        seen = snapshot(*order, probe(3, 0.02, pod="probe-2"))
        assert set(seen.probes) == {("shop", "probe-2")}
        assert "differ in cluster" in seen.unusable[KEY]


@pytest.mark.parametrize(
    ("prompts", "deviation", "loading"),
    [
        (math.nan, 0.1, 1),
        (0.5, 0.1, 1),
        (9, math.nan, 1),
        (9, -1.0, 1),
        (9, math.inf, 1),
        (9, 0.1, math.nan),
        (9, 0.1, 2),
        (9, 0.1, -1),
    ],
)
def test_a_result_that_is_no_number_makes_only_its_probe_unusable(
    prompts: float, deviation: float, loading: float
) -> None:
    broken = probe(prompts, deviation, loading=loading)
    seen = snapshot(broken, probe(3, 0.02, pod="probe-2"), answers(server_values(1)))
    assert set(seen.probes) == {("shop", "probe-2")}
    assert set(seen.servers) == {("shop", "a")}
    assert "imagegen_probe_" in seen.unusable[KEY]


@pytest.mark.parametrize("missing", [contract.PROBE_REPEAT_PROMPTS_TOTAL, contract.PROBE_LOADING])
def test_a_missing_series_of_a_probe_is_not_zero(missing: str) -> None:
    seen = snapshot({**probe(9, 0.001), missing: []})
    assert seen.probes == {}
    assert seen.unusable == {KEY: f"pod shop/probe-1: there is no series of {missing}"}


# -- laws ------------------------------------------------------------------------------------------
@given(st.data())
def test_the_order_of_series_does_not_matter(data: Any) -> None:
    parts = together(
        answers(
            server_values(3)
            | log_values({PLAIN: [1.0, 2.0], LARGE: [4.0]})
            | device_values(peak_reserved=60e9, device_total=80e9)
        ),
        answers(server_values(7), namespace="shop", pod="b"),
        probe(9, 0.001),
    )
    mixed = {name: data.draw(st.permutations(samples)) for name, samples in parts.items()}
    assert collect(NOON, mixed) == collect(NOON, parts)


labels = st.dictionaries(
    st.sampled_from(["namespace", "pod", "outcome", "le", "cluster", "request_class", "kind"]),
    st.text(max_size=8) | st.sampled_from([PLAIN, LARGE, "peak_reserved", "device_total"]),
)
samples = st.lists(st.builds(Sample, labels, st.floats()), max_size=6)


@given(st.data())
def test_whatever_one_value_is_only_its_pod_is_concerned(data: Any) -> None:
    values = server_values(3) | device_values(peak_reserved=60e9, device_total=80e9)
    family = data.draw(st.sampled_from(sorted(values)))
    row = data.draw(st.integers(0, len(values[family]) - 1))
    number = data.draw(st.floats() | st.integers(-3, 10**20).map(float))
    values[family] = [
        (labels, number if at == row else value)
        for at, (labels, value) in enumerate(values[family])
    ]
    seen = snapshot(answers(values), answers(server_values(3), namespace="shop", pod="b"))
    assert ("shop", "b") in seen.servers
    if ("shop", "a") in seen.servers:
        seen.servers["shop", "a"].check()
    else:
        assert "pod shop/a" in seen.unusable["shop", "a"]


@given(st.fixed_dictionaries(dict.fromkeys(FAMILIES, samples)))
def test_whatever_is_scraped_nothing_is_raised(given: Answers) -> None:
    for totals in collect(NOON, given).servers.values():
        totals.check()
