"""The adapter against a real Prometheus that scrapes the real server's metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
import requests

from imagegen import contract
from imagegen.probe.metrics import ProbeMetrics
from imagegen.server.metrics import Served, ServerMetrics, Work
from modelrollout.api.gate_types import Gate
from modelrollout.api.spec import Analysis
from modelrollout.errors import Transient
from modelrollout.evidence.prometheus import PrometheusMetrics
from modelrollout.evidence.queries import PROBE_FAMILIES, SERVER_FAMILIES
from modelrollout.evidence.session import Failure
from modelrollout.gates.evidence import Comparison, Evidence, ProbeTotals, Snapshot
from modelrollout.gates.judge import evaluate
from modelrollout.gates.verdict import Verdict
from modelrollout.settings import PrometheusSettings
from tests.evidence.conftest import SCRAPE_SECONDS, Pod, RealPrometheus

pytestmark = pytest.mark.cluster

REVISION_HASH = "0123456789"
DEADLINE_SECONDS = 20
PLAIN = contract.request_class(None, None, 1)
LARGE = contract.request_class((1024, 1024), None, 1)


def labels(pod: str, component: str = "server") -> dict[str, str]:
    return {
        "namespace": "shop",
        "pod": pod,
        "modelrollout_dev_rollout": "images",
        "modelrollout_dev_revision": REVISION_HASH,
        "modelrollout_dev_component": component,
    }


class Server(Pod):
    """A pod of the inference server, without the model; with device memory, on a GPU."""

    def __init__(self, name: str, *, memory: Mapping[str, int] | None = None) -> None:
        edges = contract.latency_edges([1.7])
        self.metrics = ServerMetrics(model="kites", revision=REVISION_HASH, edges=edges)
        device = "cuda:0" if memory else "cpu"
        self.memory = dict(memory or {})
        self.metrics.engine_loaded(device=device, description={}, memory=lambda: self.memory)
        super().__init__(labels(name), self.metrics.registry)

    def serve(self, requests: int, seconds: float = 1.0, *, of: str = PLAIN) -> None:
        for _ in range(requests):
            self.metrics.served(
                Served(
                    width=512,
                    height=512,
                    steps=4,
                    images=1,
                    request_class=of,
                    duration_seconds=seconds,
                    postprocess_seconds=0.01,
                ),
                Work(busy_seconds=seconds / 2),
            )


class Probe(Pod):
    """A pod of the probe, without its requests."""

    def __init__(self, name: str) -> None:
        self.metrics = ProbeMetrics()
        super().__init__(labels(name, "probe"), self.metrics.registry)


@contextmanager
def scraped(prometheus: RealPrometheus, **jobs: list[Pod]) -> Iterator[PrometheusMetrics]:
    """Run the pods and Prometheus, and give the adapter."""
    pods = {id(pod): pod for job in jobs.values() for pod in job}.values()
    for pod in pods:
        pod.start()
    try:
        prometheus.scrape(jobs)
        prometheus.start()
        yield PrometheusMetrics(
            PrometheusSettings(
                url=prometheus.url, scrape_interval_seconds=SCRAPE_SECONDS, timeout_seconds=10
            ),
            lambda: datetime.now(UTC),
        )
    finally:
        for pod in pods:
            pod.stop()


async def until(source: PrometheusMetrics, holds: Callable[[Snapshot], object]) -> Snapshot:
    """Look again until something holds of the snapshot."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds(snapshot := await source.snapshot()):
        assert time.monotonic() < deadline, snapshot
        await asyncio.sleep(SCRAPE_SECONDS / 2)
    return snapshot


async def test_counters_are_what_the_servers_counted(prometheus: RealPrometheus) -> None:
    stable, candidate = Server("stable-1"), Server("candidate-1")
    with scraped(prometheus, pods=[stable, candidate]) as source:
        candidate.serve(7, seconds=1.0)
        candidate.serve(2, seconds=1.8)
        candidate.metrics.ran_out_of_memory(contract.OomPhase.DENOISE, recovered=False)
        candidate.metrics.failed(contract.Outcome.OOM, 503, Work(busy_seconds=0.5))
        candidate.metrics.refused(contract.Outcome.BUSY, 429)

        snapshot = await until(
            source,
            lambda seen: (
                len(seen.servers) == 2 and any(totals.failed for totals in seen.servers.values())
            ),
        )

    totals = snapshot.servers["shop", "candidate-1"]
    assert (totals.succeeded, totals.failed, totals.images) == (9, 1, 9)
    assert (totals.measured, totals.timed, totals.out_of_memory) == (9, 9, 1)
    assert totals.gpu_seconds == pytest.approx(7 * 0.5 + 2 * 0.9)
    assert totals.gpu_seconds_squares == pytest.approx(7 * 0.25 + 2 * 0.81)
    assert totals.busy_seconds == pytest.approx(totals.gpu_seconds + 0.5)
    assert (totals.within[750], totals.within[1000], totals.within[1700]) == (0, 7, 7)
    assert totals.within[2000] == 9
    assert snapshot.servers["shop", "stable-1"].succeeded == 0
    assert snapshot.unusable == {}


async def test_the_moments_of_each_class_come_through_a_scrape(
    prometheus: RealPrometheus,
) -> None:
    stable, candidate = Server("stable-1"), Server("candidate-1")
    with scraped(prometheus, pods=[stable, candidate]) as source:
        stable.serve(20, seconds=1.3)
        candidate.serve(4, seconds=1.0)
        both = await until(
            source,
            lambda seen: _succeeded(seen) == 4 and _succeeded(seen, "stable-1") == 20,
        )
        # When it goes on, with requests of another class too
        candidate.serve(30, seconds=1.5)
        candidate.serve(3, seconds=6.0, of=LARGE)
        later = await until(source, lambda seen: _succeeded(seen) == 37)

    key = ("shop", "candidate-1")
    assert both.servers[key].log_moments[PLAIN].mean == pytest.approx(contract.log_duration(1.0))
    since = later.servers[key].since(both.servers[key]).log_moments
    assert set(since) == {PLAIN, LARGE}
    assert (since[PLAIN].count, since[LARGE].count) == (30, 3)
    assert since[PLAIN].mean == pytest.approx(contract.log_duration(1.5))
    assert since[PLAIN].squared_deviations == pytest.approx(0, abs=1e-9)
    moments = both.servers["shop", "stable-1"].log_moments
    assert set(moments) == {PLAIN}, "classes without requests are not asked for"
    assert moments[PLAIN].mean == pytest.approx(contract.log_duration(1.3))


async def test_requests_that_took_no_time_are_in_their_class(prometheus: RealPrometheus) -> None:
    # Given that the logarithm of a millisecond, in milliseconds, is 0
    candidate = Server("candidate-1")
    with scraped(prometheus, pods=[candidate]) as source:
        candidate.serve(3, seconds=0.001)
        seen = await until(source, lambda seen: _succeeded(seen) == 3)
    moments = seen.servers["shop", "candidate-1"].log_moments
    assert (moments[PLAIN].count, moments[PLAIN].total, moments[PLAIN].squares) == (3, 0.0, 0.0)


async def test_the_peak_of_device_memory_is_read_where_there_is_a_device(
    prometheus: RealPrometheus,
) -> None:
    bytes_by_kind = dict.fromkeys(contract.VRAM_KINDS, 10 * 2**30)
    bytes_by_kind |= {"peak_reserved": 60 * 2**30, "device_total": 80 * 2**30}
    on_gpu, on_cpu = Server("on-gpu", memory=bytes_by_kind), Server("on-cpu")
    with scraped(prometheus, pods=[on_gpu, on_cpu]) as source:
        seen = await until(source, lambda seen: len(seen.servers) == 2)
        assert seen.servers["shop", "on-gpu"].peak_memory_share == 0.75
        assert seen.servers["shop", "on-cpu"].peak_memory_share is None
        # When it needs more
        on_gpu.memory["peak_reserved"] = 72 * 2**30
        await until(source, lambda seen: seen.servers["shop", "on-gpu"].peak_memory_share == 0.9)


async def test_a_candidate_is_judged_from_prometheus(prometheus: RealPrometheus) -> None:
    gates = [
        Gate.model_validate(
            {"name": "latency-p95", "latency": {"percentile": 95, "maxMilliseconds": 1700}}
        ),
        Gate.model_validate({"name": "oom", "outOfMemory": {"maxCount": 0}}),
        Gate.model_validate({"name": "cost", "cost": {"maxPerImage": "0.001"}}),
    ]
    candidate = Server("candidate-1")

    def verdict(baseline: Snapshot, latest: Snapshot) -> Verdict:
        key = ("shop", "candidate-1")
        evidence = Evidence(
            baseline=baseline.servers[key],
            latest=latest.servers[key],
            probe=None,
            container_out_of_memory=0,
            gpu_hour_price=Decimal("3.60"),
            gpu_count=1,
        )
        return evaluate(gates, Analysis(), evidence).verdict

    with scraped(prometheus, pods=[candidate]) as source:
        # Given a warm-up that was slow
        candidate.serve(10, seconds=30.0)
        warm = await until(source, lambda seen: _succeeded(seen) == 10)
        assert verdict(warm, warm) is Verdict.INVALID
        candidate.serve(40)
        assert verdict(warm, await until(source, lambda seen: _succeeded(seen) == 50)) is (
            Verdict.INCONCLUSIVE
        )
        candidate.serve(40)
        good = await until(source, lambda seen: _succeeded(seen) == 90)
        assert verdict(warm, good) is Verdict.PASS
        # When the same server gets slow and dear
        candidate.serve(40, seconds=20.0)
        bad = await until(source, lambda seen: _succeeded(seen) == 130)
        assert verdict(good, bad) is Verdict.FAIL


async def test_a_candidate_is_judged_beside_stable_from_prometheus(
    prometheus: RealPrometheus,
) -> None:
    gate = Gate.model_validate({"name": "vs-stable", "latency": {"maxIncreasePercent": 10}})
    stable, candidate = Server("stable-1"), Server("candidate-1")

    def verdict(since: Snapshot, now: Snapshot) -> Verdict:
        arms = [
            now.servers["shop", name].since(since.servers["shop", name])
            for name in ("candidate-1", "stable-1")
        ]
        evidence = Evidence(
            baseline=since.servers["shop", "candidate-1"],
            latest=now.servers["shop", "candidate-1"],
            probe=None,
            container_out_of_memory=0,
            gpu_hour_price=Decimal("3.60"),
            gpu_count=1,
            comparison=Comparison(candidate=arms[0], stable=arms[1]),
        )
        return evaluate([gate], Analysis(), evidence).results[0].verdict

    def serve(slower: float) -> None:
        for at in range(60):
            seconds = 1 + 0.01 * (at % 10)
            stable.serve(1, seconds)
            candidate.serve(1, seconds * slower)

    async def at(requests: int) -> Snapshot:
        return await until(
            source,
            lambda seen: _succeeded(seen) == requests and _succeeded(seen, "stable-1") == requests,
        )

    with scraped(prometheus, pods=[stable, candidate]) as source:
        begun = await at(0)
        serve(slower=1.02)
        good = await at(60)
        serve(slower=1.4)
        bad = await at(120)
    assert verdict(begun, good) is Verdict.PASS
    assert verdict(good, bad) is Verdict.FAIL


def _succeeded(snapshot: Snapshot, pod: str = "candidate-1") -> int:
    totals = snapshot.servers.get(("shop", pod))
    return totals.succeeded if totals else -1


async def test_a_pod_that_is_gone_is_no_data(prometheus: RealPrometheus) -> None:
    leaving, staying = Server("leaving"), Server("staying")
    with scraped(prometheus, pods=[leaving, staying]) as source:
        await until(source, lambda seen: len(seen.servers) == 2)
        leaving.stop()
        gone = await until(source, lambda seen: len(seen.servers) == 1)
    assert set(gone.servers) == {("shop", "staying")}


async def test_a_pod_that_is_scraped_by_two_jobs_is_not_counted_twice(
    prometheus: RealPrometheus,
) -> None:
    doubled, single = Server("doubled"), Server("single")
    with scraped(prometheus, pods=[doubled, single], again=[doubled]) as source:
        doubled.serve(5)
        single.serve(5)
        snapshot = await until(source, lambda seen: seen.unusable and seen.servers)
    assert set(snapshot.servers) == {("shop", "single")}
    assert "differ in job ('again', 'pods')" in snapshot.unusable["shop", "doubled"]


async def test_a_number_that_is_none_is_not_counted(prometheus: RealPrometheus) -> None:
    broken, whole = Server("broken"), Server("whole")
    with scraped(prometheus, pods=[broken, whole]) as source:
        broken.serve(1, seconds=float("nan"))
        snapshot = await until(source, lambda seen: seen.unusable and seen.servers)
    assert set(snapshot.servers) == {("shop", "whole")}
    assert "is nan" in snapshot.unusable["shop", "broken"]


async def test_results_of_the_probe_are_read(prometheus: RealPrometheus) -> None:
    probe, earlier = Probe("probe-1"), Probe("probe-0")
    key = ("shop", "probe-1")
    with scraped(prometheus, probes=[probe, earlier]) as source:
        begun = await until(source, lambda seen: len(seen.probes) == 2)
        assert begun.probes[key] == ProbeTotals(0, None, loading=False)
        # Given an earlier probe that was through with another deviation
        earlier.metrics.repeated(contract.Arm.CANDIDATE, [0.9] * 12)
        earlier.metrics.loading()
        probe.metrics.repeated(contract.Arm.STABLE, [0.5] * 3)
        probe.metrics.repeated(contract.Arm.CANDIDATE, [0.0007] * 8)
        measured = await until(source, lambda seen: seen.probes[key].repeat_prompts)
        assert measured.probes[key] == ProbeTotals(8, 0.0007, loading=False)
        for arm, answered, missed in ((contract.Arm.STABLE, 3, 1), (contract.Arm.CANDIDATE, 2, 4)):
            for _ in range(answered):
                probe.metrics.took(arm, 0.8)
            for _ in range(missed):
                probe.metrics.skipped(arm)
        probe.metrics.loading()
        loading = await until(source, lambda seen: seen.probes[key].loading)
    assert loading.probes[key] == ProbeTotals(
        8,
        0.0007,
        loading=True,
        stable_served=3,
        stable_missed=1,
        candidate_served=2,
        candidate_missed=4,
    )


async def test_as_many_queries_as_families_whatever_is_scraped(prometheus: RealPrometheus) -> None:
    def answered() -> float:
        text = requests.get(prometheus.url + "/metrics", timeout=10).text
        name = 'prometheus_http_requests_total{code="200",handler="/api/v1/query"}'
        counts = [float(line.split()[-1]) for line in text.splitlines() if line.startswith(name)]
        return sum(counts)

    with scraped(prometheus, pods=[Server(f"pod-{number}") for number in range(5)]) as source:
        before = answered()
        await asyncio.gather(*(source.snapshot() for _ in range(100)))
        assert answered() - before == len(SERVER_FAMILIES) + len(PROBE_FAMILIES)


async def test_an_outage_of_prometheus_is_transient_and_forgotten(
    prometheus: RealPrometheus,
) -> None:
    candidate = Server("candidate-1")
    with scraped(prometheus, pods=[candidate]) as source:
        await until(source, lambda seen: _succeeded(seen) == 0)
        prometheus.stop()
        await asyncio.sleep(SCRAPE_SECONDS)  # beyond what is shared between askers
        with pytest.raises(Transient) as caught:
            await source.snapshot()
        assert caught.value.reason == Failure.UNREACHABLE
        # When it is back, with what happened meanwhile
        candidate.serve(3)
        prometheus.start()
        await asyncio.sleep(SCRAPE_SECONDS)
        await until(source, lambda seen: _succeeded(seen) == 3)


async def test_only_a_prometheus_with_a_trusted_certificate_is_asked(
    prometheus: RealPrometheus,
) -> None:
    authority = prometheus.encrypt()
    prometheus.scrape({})
    prometheus.start()

    def source(**settings: Path) -> PrometheusMetrics:
        given = PrometheusSettings(url=prometheus.url, **settings)
        return PrometheusMetrics(given, lambda: datetime.now(UTC))

    assert (await source(ca_file=authority).snapshot()).servers == {}
    with pytest.raises(Transient, match="certificate verify failed") as caught:
        await source().snapshot()
    assert caught.value.reason == Failure.UNREACHABLE
