"""What is committed is what the code makes, and what the document shows."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from benchmarks import means, rare_events, shares, slowdowns, yeast
from benchmarks.catalogue import STUDIES
from benchmarks.limits import SCENARIOS, TRUTHS, errors
from benchmarks.study import Scale, percent
from benchmarks.tables import DOCUMENT, Table, embed, markdown, read, write
from modelrollout.gates.operating import ShareTest, share_operating
from modelrollout.gates.sequential import Verdict

VIEWS = [view for study in STUDIES for view in study.views]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_the_document_shows_the_committed_tables(view: object) -> None:
    document = DOCUMENT.read_text()
    assert isinstance(view, type(VIEWS[0]))
    assert embed(document, view.name, view.render(read(view.table))) == document


def within_noise(count: int, runs: int, rate: float) -> bool:
    """Whether a count of few runs fits a rate, to four standard deviations."""
    deviation = math.sqrt(runs * max(rate * (1 - rate), 1 / runs))
    return abs(count - runs * rate) <= 4 * deviation + 1


class TestYeast:
    TABLE = read("yeast")

    def test_rates_are_within_a_hundredth_of_the_published_ones(self) -> None:
        for row in self.TABLE.where():
            test, published = str(row["test"]), row["published"]
            # Beyond a plan that is too short the engine's line is another one: it goes on rising.
            if isinstance(published, float) and "too short" not in test:
                assert row["reject_rate"] == pytest.approx(published, abs=0.01), test

    def test_a_plan_that_is_too_short_raises_the_error_less_than_published(self) -> None:
        for test in ("engine, plan 10 % too short", "engine, plan 20 % too short"):
            (row,) = self.TABLE.where(test=test, effect=0)
            assert float(row["reject_rate"] or 0) < float(row["published"] or 0)

    def test_few_runs_fit_the_table(self) -> None:
        runs = 400
        with ThreadPoolExecutor(1) as pool:
            measured = yeast.reject_rates(runs, Scale(pool))
        for row in self.TABLE.where():
            at = yeast.EFFECTS.index(float(row["effect"] or 0))
            count = round(measured[str(row["test"])][at] * runs)
            assert within_noise(count, runs, float(row["reject_rate"] or 0)), row


class TestShares:
    TABLE = read("shares")

    @pytest.mark.parametrize("share", shares.SHARES)
    def test_the_exact_figures_are_as_committed(self, share: float) -> None:
        (row,) = self.TABLE.where(share=share, n_max=120)
        passes, fails, *_ = shares.exact(share, 120)
        assert (row["passes"], row["fails"]) == pytest.approx((passes, fails), abs=1e-4)

    @pytest.mark.parametrize("share", [0.02, 0.10])
    def test_the_operator_foretells_them(self, share: float) -> None:
        test = ShareTest(shares.LIMIT, shares.ALPHA, shares.ALPHA, min_requests=1, max_requests=300)
        foretold = share_operating(test, share)
        passes, fails, *_ = shares.exact(share, 300)
        # It takes looks that are further apart.
        assert (foretold.passes, foretold.fails) == pytest.approx((passes, fails), abs=0.02)

    def test_simulated_and_exact_figures_agree(self) -> None:
        for row in self.TABLE.where():
            for verdict in ("passes", "fails"):
                rate = float(row[verdict] or 0)
                simulated = float(row[f"simulated_{verdict}"] or 0)
                assert within_noise(round(20_000 * simulated), 20_000, rate), row

    def test_they_are_near_the_published_ones(self) -> None:
        for row in self.TABLE.where():
            published = (row["published_passes"], row["published_fails"])
            assert (row["passes"], row["fails"]) == pytest.approx(published, abs=0.03)

    def test_the_rule_of_windows_is_the_published_one(self) -> None:
        for row in read("windows").where():
            if row["published"] is not None:
                assert row["rolls_back"] == pytest.approx(row["published"], abs=0.006)


class TestSlowdowns:
    TABLE = read("slowdowns")

    def rate(self, slowdown: float, n_max: int, column: str, rule: str = "engine") -> float:
        (row,) = self.TABLE.where(rule=rule, slowdown=slowdown, n_max=n_max)
        return float(row[column] or 0)

    def test_the_errors_keep_what_is_promised(self) -> None:
        assert self.rate(1, 300, "fails") <= 0.01
        for n_max in slowdowns.HORIZONS:
            assert self.rate(1.1, n_max, "fails") <= 0.05
            assert self.rate(1.25, n_max, "passes") <= 0.05

    def test_a_candidate_that_is_a_quarter_slower_is_caught(self) -> None:
        caught = [self.rate(1.25, n_max, "fails") for n_max in slowdowns.HORIZONS]
        assert all(rate >= bar for rate, bar in zip(caught, (0.75, 0.97, 0.98), strict=True))

    def test_half_of_equal_candidates_pass_within_60_requests(self) -> None:
        assert self.rate(1, 150, "n_to_pass") <= 60

    def test_few_runs_fit_the_table(self) -> None:
        ends = slowdowns.simulate((slowdowns.SLOWDOWNS.index(1.25), 0, 20))
        for rule in slowdowns.RULES:
            for n_max in slowdowns.HORIZONS:
                mine = [verdict for name, most, verdict, _ in ends if (name, most) == (rule, n_max)]
                assert len(mine) == 20
                rate = self.rate(1.25, n_max, "fails", rule)
                assert within_noise(mine.count(Verdict.FAIL), 20, rate), (rule, n_max)


def test_few_runs_fit_the_table_of_limits() -> None:
    table = read("limits")
    for scenario in SCENARIOS[::4]:
        for truth in TRUTHS:
            counts = errors(scenario, truth, runs=10, corrected=True, seed=(1, 2, 3))
            rows = table.where(traffic=scenario.name, error=truth, corrected=1)
            for count, row in zip(counts, rows, strict=True):
                assert within_noise(count, 10, float(row["rate"] or 0)), row


def test_few_runs_fit_the_table_of_means() -> None:
    table = read("means")
    for error in means.ERRORS:
        rows = table.where(error=error, amounts=list(means.AMOUNTS)[2])
        counts = means.wrong_verdicts((error, 2, 99, 20))
        for count, row in zip(counts, rows, strict=True):
            assert within_noise(count, 20, float(row["rate"] or 0)), row


def test_events_that_fail_are_as_committed() -> None:
    for row in read("oom_counts").where():
        at_stable, share = int(row["at_stable"] or 0), float(row["share"] or 0)
        assert row["fails_at"] == rare_events.fewest_to_fail(at_stable, share)
        assert row["fails_at_once"] == rare_events.fewest_to_fail_once(at_stable, share)


def test_errors_that_a_rank_test_passes_are_found() -> None:
    assert [verdict for _, verdict in rare_events.sparse_errors()] == ["Pass", "Fail"]


class TestTables:
    def test_what_is_written_is_read(self, tmp_path: object) -> None:
        table = Table("some", ("name", "rate", "n"), [("a", 0.1234, 3), ("b, c", None, 12000)])
        write(table, tmp_path)  # type: ignore[arg-type]
        assert read("some", tmp_path).rows == list(table.rows)  # type: ignore[arg-type]

    def test_a_place_is_filled_and_only_that(self) -> None:
        document = "a\n<!-- table: x -->\nold\n<!-- end -->\n<!-- table: y -->\n\n<!-- end -->\n"
        filled = embed(document, "x", markdown(["h"], [["1"]]))
        assert filled == document.replace("old", "| h |\n| --- |\n| 1 |")

    def test_an_empty_place_is_filled_and_the_next_one_left(self) -> None:
        document = "<!-- table: x -->\n<!-- end -->\ntext\n<!-- table: y -->\nold\n<!-- end -->\n"
        filled = embed(document, "x", "new")
        assert filled == document.replace("x -->\n", "x -->\nnew\n")

    def test_a_place_that_is_missing_is_named(self) -> None:
        with pytest.raises(ValueError, match="'z'"):
            embed("text", "z", "")

    def test_percentages_show_more_near_both_ends(self) -> None:
        shown = [percent(value) for value in (0, 0.0004, 0.0123, 0.42, 0.9876, 0.9999, 1, None)]
        assert shown == ["0", "<0.1", "1.2", "42", "98.8", ">99.9", "100", "-"]


def test_the_same_seed_gives_the_same_figures() -> None:
    first, second = (shares.simulated(0.05, 50, 0) for _ in range(2))
    assert first == second
    assert np.isfinite(list(first.values())).all()
