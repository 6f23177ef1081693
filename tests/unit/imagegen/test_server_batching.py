from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil

from hypothesis import given, settings
from hypothesis import strategies as st

from imagegen.server.batching import BatchQueue, Overlap, Slot


@dataclass(eq=False)
class Request:
    """Some pictures of a key; `most` is what fits in a batch of that key."""

    key: str
    count: int
    number: int = 0


MOST = {"a": 4, "b": 3, "c": 1}


def most(request: Request) -> int:
    return MOST[request.key]


def request_lists(least: int = 1) -> st.SearchStrategy[list[Request]]:
    request = st.builds(Request, key=st.sampled_from(sorted(MOST)), count=st.integers(1, 9))
    return st.lists(request, min_size=least, max_size=20)


def queue_of(requests: list[Request]) -> BatchQueue[Request]:
    queue: BatchQueue[Request] = BatchQueue()
    for number, request in enumerate(requests):
        request.number = number
        queue.add(request)
    return queue


def drain(queue: BatchQueue[Request]) -> list[list[Slot[Request]]]:
    batches = []
    while batch := queue.take(most):
        batches.append(batch)
    return batches


@given(request_lists())
def test_every_picture_is_taken_exactly_once(requests: list[Request]) -> None:
    taken = Counter(
        (slot.owner.number, slot.index) for batch in drain(queue_of(requests)) for slot in batch
    )

    wanted = {(each.number, index) for each in requests for index in range(each.count)}
    assert taken == dict.fromkeys(wanted, 1)


@given(request_lists())
def test_a_batch_has_one_key_and_never_too_many_pictures(requests: list[Request]) -> None:
    for batch in drain(queue_of(requests)):
        assert len({slot.owner.key for slot in batch}) == 1
        assert len(batch) <= most(batch[0].owner)


@given(request_lists())
def test_pictures_of_a_key_come_out_in_the_order_they_went_in(requests: list[Request]) -> None:
    batches = drain(queue_of(requests))
    for key in MOST:
        order = [
            (slot.owner.number, slot.index)
            for batch in batches
            for slot in batch
            if slot.owner.key == key
        ]
        assert order == sorted(order)


@given(request_lists())
def test_the_oldest_request_is_always_in_the_next_batch(requests: list[Request]) -> None:
    queue = queue_of(requests)
    while (head := queue.head()) is not None:
        assert queue.take(most)[0].owner is head


@given(request_lists())
def test_nothing_waits_longer_than_if_nothing_ran_together(requests: list[Request]) -> None:
    batches = drain(queue_of(requests))
    for number in range(len(requests)):
        last = max(
            place
            for place, batch in enumerate(batches, start=1)
            if any(slot.owner.number == number for slot in batch)
        )
        assert last <= sum(ceil(each.count / most(each)) for each in requests[: number + 1])


@given(st.data())
@settings(max_examples=30)
def test_nothing_starves_while_others_keep_coming(data: st.DataObject) -> None:
    requests = data.draw(request_lists())
    queue = queue_of(requests)
    patient = requests[-1]
    batches = 0
    while queue.waiting(patient):
        # Given that after every batch more requests come than it had pictures
        for late in data.draw(request_lists(), label="late"):
            queue.add(late)
        queue.take(most)
        batches += 1

    assert batches <= sum(ceil(each.count / most(each)) for each in requests)


@given(request_lists())
def test_places_are_left_empty_only_when_no_picture_of_the_key_waits(
    requests: list[Request],
) -> None:
    queue = queue_of(requests)
    while batch := queue.take(most):
        if len(batch) < most(batch[0].owner):
            assert all(owner.key != batch[0].owner.key for owner, _ in queue.left())


@given(request_lists(), st.data())
def test_a_removed_request_is_not_handed_out(requests: list[Request], data: st.DataObject) -> None:
    queue = queue_of(requests)
    begun = queue.take(most)
    gone = data.draw(st.sampled_from(requests))
    taken = sum(slot.owner is gone for slot in begun)

    assert queue.remove(gone) == gone.count - taken
    assert queue.waiting(gone) == 0
    assert all(slot.owner is not gone for batch in drain(queue) for slot in batch)


@given(request_lists())
def test_looking_at_the_next_batch_changes_nothing(requests: list[Request]) -> None:
    queue = queue_of(requests)
    while seen := queue.next_batch(most):
        assert queue.take(most) == seen


def test_a_request_that_was_begun_waits_no_more_but_keeps_its_place() -> None:
    large, small = Request("a", 6), Request("a", 1)
    queue = queue_of([large, small])
    queue.take(most)

    assert len(queue) == 1
    assert [slot.owner for slot in queue.take(most)] == [large, large, small]
    assert len(queue) == 0


def test_one_client_after_another_is_no_overlap() -> None:
    overlap = Overlap(memory_seconds=1.0)
    for turn in range(20):
        overlap.changed(turn / 10, 1)
        assert overlap.peak(turn / 10) == 1
        overlap.changed(turn / 10 + 0.05, 0)


@given(st.lists(st.tuples(st.floats(0, 0.7), st.integers(0, 9)), min_size=1, max_size=30))
def test_a_peak_is_known_for_a_second_and_forgotten_after_two(
    changes: list[tuple[float, int]],
) -> None:
    overlap, now = Overlap(memory_seconds=1.0), 0.0
    history = [(0.0, 0)]
    for pause, count in changes:
        now += pause
        overlap.changed(now, count)
        history.append((now, count))

        def highest(since: float) -> int:
            # A number holds until the next change.
            ends = [at for at, _ in history[1:]] + [float("inf")]
            return max(c for (_, c), end in zip(history, ends, strict=True) if end > since)

        assert highest(now - 1) <= overlap.peak(now) <= highest(now - 2 - 1e-9)
