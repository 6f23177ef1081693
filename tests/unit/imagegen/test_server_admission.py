from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen.contract import Outcome
from imagegen.engines.base import GenerationSettings
from imagegen.errors import RequestRefusedError
from imagegen.server.admission import Admission, Bounds
from imagegen.server.batching import Slot
from imagegen.server.costs import CostModel
from imagegen.server.jobs import Job, draining
from imagegen.server.oom import MemoryLimits
from imagegen.server.validation import ImageRequest
from tests.unit.imagegen.conftest import PATIENCE_SECONDS

SECONDS_A_PICTURE = 2.0
SETTINGS = GenerationSettings(512, 512, 20, 5.0)
OTHER = GenerationSettings(512, 512, 10, 5.0)
MOST = 4
LOOP = asyncio.new_event_loop()


@dataclass
class Clock:
    """Shows the time that a test says, and that somebody looked."""

    now: float = 0.0
    looked_at: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> float:
        self.looked_at.set()
        return self.now


@dataclass
class Desk:
    """An admission without a worker; the test takes batches itself."""

    admission: Admission
    clock: Clock

    def job(
        self,
        pictures: int = 1,
        *,
        settings: GenerationSettings = SETTINGS,
        patience: float = 1e6,
        pinned: int | None = None,
        negative: str | None = None,
    ) -> Job:
        request = ImageRequest(
            prompt="a kite",
            count=pictures,
            seed=1,
            negative_prompt=negative,
            settings=settings,
            request_class_size=None,
            request_class_steps=None,
            pinned_batch=pinned,
        )
        return Job(
            request=request,
            seeds=tuple(range(pictures)),
            arrived=self.clock.now,
            deadline=self.clock.now + patience,
            loop=LOOP,
            done=LOOP.create_future(),
        )

    def put(self, pictures: int = 1, **more: Any) -> Job:
        job = self.job(pictures, **more)
        self.admission.put(job)
        return job

    def refusal(self, pictures: int = 1, **more: Any) -> RequestRefusedError:
        with pytest.raises(RequestRefusedError) as caught:
            self.put(pictures, **more)
        assert caught.value.outcome is Outcome.BUSY
        return caught.value


def desk_of(*, requests: int = 100, seconds: float = 1e6, window: float = 0.0) -> Desk:
    clock, costs = Clock(), CostModel()
    costs.observe(SETTINGS, 1, SECONDS_A_PICTURE, {})
    bounds = Bounds(requests=requests, seconds=seconds, window_seconds=window)
    return Desk(Admission(bounds, costs=costs, limits=MemoryLimits(MOST), clock=clock), clock)


def owners(batch: list[Slot[Job]]) -> list[Job]:
    return [slot.owner for slot in batch]


# -- how much may wait -----------------------------------------------------------------------------
def test_so_many_requests_may_wait_and_no_more() -> None:
    desk = desk_of(requests=3)
    for _ in range(3):
        desk.put()

    refusal = desk.refusal()

    assert (refusal.status, refusal.code) == (429, "queue_full")
    assert refusal.retry_after == math.ceil(SECONDS_A_PICTURE * 3 / 4)


def test_those_in_the_workers_hands_do_not_wait() -> None:
    desk = desk_of(requests=1)
    desk.put()
    desk.admission.take()

    desk.put()

    assert desk.admission.depth() == 1


def test_work_is_bounded_in_seconds_and_not_only_in_requests() -> None:
    desk = desk_of(seconds=10.0)
    desk.put(4)
    desk.put(1)

    refusal = desk.refusal(1)

    assert (refusal.status, refusal.code) == (429, "queue_full")
    assert refusal.retry_after == SECONDS_A_PICTURE


def test_a_request_that_costs_little_is_taken_where_one_that_costs_much_is_not() -> None:
    desk = desk_of(seconds=10.0)
    desk.put(3)
    desk.refusal(3)
    desk.put(3, settings=GenerationSettings(512, 512, 10, 5.0))


def test_an_answer_that_cannot_be_ready_in_time_is_refused_at_once() -> None:
    desk = desk_of()
    desk.put(4)

    refusal = desk.refusal(1, patience=9.0)

    assert (refusal.status, refusal.code) == (429, "deadline_unreachable")
    assert refusal.retry_after == 1
    desk.put(1, patience=10.0)


def test_time_that_the_worker_has_spent_on_a_batch_is_not_waited_for_again() -> None:
    desk = desk_of()
    desk.put(4)
    desk.admission.take()
    desk.refusal(1, patience=9.0)

    desk.clock.now += 1.5

    desk.put(1, patience=9.0)


def test_an_idle_server_takes_what_it_thinks_is_too_much() -> None:
    desk = desk_of(seconds=1.0)
    desk.put(4, patience=1.0)


def test_a_pinned_batch_costs_what_it_is_filled_up_with() -> None:
    desk = desk_of()
    desk.put(1, pinned=4)
    assert desk.admission.backlog_seconds() == pytest.approx(4 * SECONDS_A_PICTURE)
    desk.put(5, pinned=3)
    assert desk.admission.backlog_seconds() == pytest.approx((4 + 6) * SECONDS_A_PICTURE)


@given(
    st.lists(st.tuples(st.integers(1, 6), st.floats(1, 60)), min_size=1, max_size=40),
    st.floats(4, 40),
)
def test_accepted_work_never_exceeds_the_bound_and_is_ready_in_time(
    arrivals: list[tuple[int, float]], seconds: float
) -> None:
    desk = desk_of(seconds=seconds)
    for pictures, patience in arrivals:
        backlog = desk.admission.backlog_seconds()
        ready_in = backlog + pictures * SECONDS_A_PICTURE
        try:
            desk.put(pictures, patience=patience)
        except RequestRefusedError as refusal:
            assert backlog > 0
            assert ready_in > min(seconds, patience)
            # When it comes again then, and the worker has got as far as was estimated
            hint = refusal.retry_after
            assert hint is not None
            assert ready_in - hint <= min(seconds, patience) or hint >= backlog
        else:
            assert backlog == 0 or ready_in <= min(seconds, patience)


# -- what runs together ----------------------------------------------------------------------------
def test_compatible_requests_run_together_across_others() -> None:
    desk = desk_of()
    first, other, second = desk.put(), desk.put(settings=OTHER), desk.put(2)

    assert owners(desk.admission.take()) == [first, second, second]
    desk.admission.give_back()
    assert owners(desk.admission.take()) == [other]


@pytest.mark.parametrize(
    "change",
    [
        {"settings": GenerationSettings(256, 512, 20, 5.0)},
        {"settings": GenerationSettings(512, 256, 20, 5.0)},
        {"settings": GenerationSettings(512, 512, 21, 5.0)},
        {"settings": GenerationSettings(512, 512, 20, 5.5)},
        {"settings": GenerationSettings(512, 512, 20, 5.0, scheduler="DDIM")},
        {"settings": GenerationSettings(512, 512, 20, 5.0, tiled_decoding=True)},
        {"negative": "blurred"},
        {"pinned": 4},
    ],
)
def test_requests_that_differ_in_what_a_batch_shares_run_apart(change: dict[str, Any]) -> None:
    desk = desk_of()
    first, other = desk.put(), desk.put(**change)

    assert owners(desk.admission.take()) == [first]
    assert owners(desk.admission.take()) == [other]


def test_two_pinned_requests_never_share_a_batch() -> None:
    desk = desk_of()
    first, second = desk.put(pinned=4), desk.put(pinned=4)
    assert owners(desk.admission.take()) == [first]
    assert owners(desk.admission.take()) == [second]


def test_requests_with_other_negative_prompts_run_together() -> None:
    desk = desk_of()
    both = [desk.put(negative="blurred"), desk.put(negative="grey")]
    assert owners(desk.admission.take()) == both


# -- the window ------------------------------------------------------------------------------------
@pytest.fixture
def taking() -> Iterator[Callable[[Desk], Callable[[], list[Slot[Job]]]]]:
    """Take a batch in a thread; give what waits for it. The thread waits for company by then."""
    threads: list[threading.Thread] = []

    def start(desk: Desk) -> Callable[[], list[Slot[Job]]]:
        result: list[list[Slot[Job]]] = []
        desk.clock.looked_at.clear()
        thread = threading.Thread(target=lambda: result.append(desk.admission.take()), daemon=True)
        thread.start()
        threads.append(thread)
        assert desk.clock.looked_at.wait(PATIENCE_SECONDS)

        def wait() -> list[Slot[Job]]:
            thread.join(PATIENCE_SECONDS)
            assert result, "the batch is not handed out"
            return result[0]

        return wait

    yield start
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


LONG = 3600.0


def test_one_request_at_a_time_never_waits_for_company() -> None:
    desk = desk_of(window=LONG)
    for _ in range(3):
        desk.admission.open_changed(1)
        job = desk.put()
        assert owners(desk.admission.take()) == [job]
        desk.admission.give_back()
        desk.admission.open_changed(0)


def test_a_request_waits_for_another_one_that_is_being_read(
    taking: Callable[[Desk], Callable[[], list[Slot[Job]]]],
) -> None:
    desk = desk_of(window=LONG)
    desk.admission.open_changed(2)
    first = desk.put()
    batch = taking(desk)

    second = desk.put()

    assert owners(batch()) == [first, second]


def test_a_full_batch_does_not_wait() -> None:
    desk = desk_of(window=LONG)
    desk.admission.open_changed(9)
    job = desk.put(MOST)
    assert owners(desk.admission.take()) == [job] * MOST


def test_a_pinned_batch_does_not_wait() -> None:
    desk = desk_of(window=LONG)
    desk.admission.open_changed(9)
    job = desk.put(pinned=3)
    assert owners(desk.admission.take()) == [job]


def test_the_window_counts_from_the_arrival() -> None:
    desk = desk_of(window=2.0)
    desk.admission.open_changed(2)
    job = desk.put()
    desk.clock.now += 2.0
    assert owners(desk.admission.take()) == [job]


def test_nobody_waits_for_company_when_no_more_is_accepted(
    taking: Callable[[Desk], Callable[[], list[Slot[Job]]]],
) -> None:
    desk = desk_of(window=LONG)
    desk.admission.open_changed(2)
    job = desk.put()
    batch = taking(desk)

    desk.admission.close()

    assert owners(batch()) == [job]
    assert desk.admission.take() == []


# -- leaving and ending ----------------------------------------------------------------------------
def test_a_request_that_leaves_the_queue_is_never_handed_out() -> None:
    desk = desk_of()
    gone, stays = desk.put(2), desk.put()

    assert desk.admission.leave(gone, Outcome.CANCELLED)

    assert owners(desk.admission.take()) == [stays]
    assert not desk.admission.leave(gone, Outcome.TIMEOUT), "it is counted once"


def test_a_request_that_leaves_the_workers_hands_is_counted_by_the_worker() -> None:
    desk = desk_of()
    gone = desk.put(MOST + 1)
    desk.admission.take()

    assert not desk.admission.leave(gone, Outcome.CANCELLED)

    assert desk.admission.give_back() == [gone]
    assert gone.left is Outcome.CANCELLED
    desk.admission.close()
    assert desk.admission.take() == [], "the rest of it is not made"


def test_between_two_of_its_batches_a_request_is_not_finished() -> None:
    desk = desk_of()
    job = desk.put(MOST + 1)
    desk.admission.take()
    assert desk.admission.give_back() == []
    desk.admission.take()
    assert desk.admission.give_back() == [job]


def test_a_request_that_failed_in_one_batch_is_spared_the_next() -> None:
    desk = desk_of()
    job = desk.put(MOST + 1)
    desk.admission.take()
    job.failure = draining()

    assert desk.admission.give_back() == [job]

    desk.admission.close()
    assert desk.admission.take() == []


def test_what_is_not_made_by_its_deadline_is_given_up_as_such() -> None:
    desk = desk_of()
    job = desk.put(patience=5.0)
    desk.admission.take()
    desk.clock.now += 6.0

    assert desk.admission.give_back() == [job]
    assert job.left is Outcome.TIMEOUT


def test_closing_refuses_new_work_and_hands_out_the_old() -> None:
    desk = desk_of()
    job = desk.put()
    desk.admission.close()

    assert desk.refusal().code == "draining"
    assert owners(desk.admission.take()) == [job]
    assert desk.admission.take() == []


def test_giving_up_ends_all_requests_once() -> None:
    desk = desk_of()
    in_hands = desk.put()
    desk.admission.take()
    waiting = desk.put()

    given_up = desk.admission.give_up(draining())

    assert {id(job) for job in given_up} == {id(in_hands), id(waiting)}
    assert desk.admission.give_back() == [], "the worker counts none of them again"
    assert desk.admission.give_up(draining()) == []
