from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imagegen.engines.base import GenerationSettings
from imagegen.server.oom import MemoryLimits

SMALL = GenerationSettings(512, 512, 20, 5.0)
LARGE = GenerationSettings(1024, 1024, 20, 5.0)


def serve(limits: MemoryLimits, fits: int, batches: int) -> tuple[int, int]:
    """Make so many batches on a device on which `fits` pictures fit; count tries that failed."""
    failures = made = 0
    while made < batches:
        size = limits.largest(SMALL)
        if size > fits:
            failures += 1
            limits.failed(SMALL, size)
        else:
            made += 1
            limits.fitted(SMALL, size)
    return failures, limits.largest(SMALL)


def test_all_is_tried_until_it_does_not_fit() -> None:
    limits = MemoryLimits(8)
    assert limits.largest(SMALL) == 8
    limits.failed(SMALL, 8)
    assert limits.largest(SMALL) == 4
    limits.failed(SMALL, 3)
    assert limits.largest(SMALL) == 2


def test_a_large_size_says_nothing_about_a_small_one() -> None:
    limits = MemoryLimits(8)
    limits.failed(LARGE, 8)
    assert limits.largest(SMALL) == 8


def test_small_sizes_are_learned_apart_too() -> None:
    limits = MemoryLimits(8)
    tiny = GenerationSettings(64, 64, 20, 5.0)
    limits.failed(SMALL, 8)
    limits.failed(SMALL, 1)
    limits.tiles_helped(SMALL)

    assert limits.largest(tiny) == 8, "512x512 pixels say nothing about 64x64"
    assert not limits.needs_tiles(tiny)
    for _ in range(1000):
        limits.fitted(tiny, 8)
    assert limits.needs_tiles(SMALL), "nor what fits of those about these"


def test_what_does_not_fit_of_a_size_is_not_tried_of_a_larger_one() -> None:
    limits = MemoryLimits(8)
    limits.failed(SMALL, 8)
    assert limits.largest(LARGE) == 4
    limits.failed(LARGE, 4)
    assert (limits.largest(SMALL), limits.largest(LARGE)) == (4, 2)
    limits.failed(SMALL, 1)
    limits.tiles_helped(SMALL)
    assert limits.needs_tiles(LARGE)


def test_a_limit_of_a_size_that_nobody_asks_for_any_more_comes_back_too() -> None:
    limits = MemoryLimits(4)
    limits.failed(SMALL, 1)
    limits.tiles_helped(SMALL)
    for _ in range(4 * 32):
        limits.fitted(LARGE, limits.largest(LARGE))

    assert limits.largest(LARGE) == 4
    assert limits.largest(SMALL) == 4, "what fits of large ones fits of small ones"


@given(
    st.lists(
        st.tuples(st.sampled_from(["fitted", "failed"]), st.integers(4, 64), st.integers(1, 8)),
        max_size=200,
    )
)
def test_of_a_larger_size_never_more_is_tried(events: list[tuple[str, int, int]]) -> None:
    limits = MemoryLimits(8)
    for event, side, pictures in events:
        getattr(limits, event)(GenerationSettings(16 * side, 16 * side, 20, 5.0), pictures)
    sizes = [GenerationSettings(16 * side, 16 * side, 20, 5.0) for side in range(4, 65)]
    tried = [limits.largest(size) for size in sizes]
    assert tried == sorted(tried, reverse=True)


def test_sizes_of_much_the_same_area_are_learned_together() -> None:
    limits = MemoryLimits(8)
    limits.failed(LARGE, 8)
    assert limits.largest(GenerationSettings(1152, 896, 20, 5.0)) == 4
    assert limits.largest(GenerationSettings(832, 1216, 20, 5.0)) == 4
    assert limits.largest(GenerationSettings(832, 832, 20, 5.0)) == 8


@given(st.lists(st.tuples(st.integers(16, 8192), st.integers(16, 8192)), min_size=50, max_size=99))
def test_however_many_sizes_are_asked_for_little_is_kept(sizes: list[tuple[int, int]]) -> None:
    limits = MemoryLimits(8)
    for width, height in sizes:
        limits.failed(GenerationSettings(width, height, 20, 5.0), 8)
    assert len(limits._learned) <= 37


def test_the_number_of_steps_does_not_matter_for_memory() -> None:
    limits = MemoryLimits(8)
    limits.failed(SMALL, 8)
    assert limits.largest(GenerationSettings(512, 512, 50, 5.0)) == 4


def test_a_limit_comes_back_one_by_one_and_slowly() -> None:
    limits = MemoryLimits(4)
    limits.failed(SMALL, 4)
    for _ in range(31):
        limits.fitted(SMALL, 2)
    assert limits.largest(SMALL) == 2
    limits.fitted(SMALL, 2)
    assert limits.largest(SMALL) == 3


def test_smaller_batches_say_nothing_about_larger_ones() -> None:
    limits = MemoryLimits(4)
    limits.failed(SMALL, 4)
    for _ in range(1000):
        limits.fitted(SMALL, 1)
    assert limits.largest(SMALL) == 2


def test_tries_that_fail_become_rare() -> None:
    limits = MemoryLimits(8)
    failures, _ = serve(limits, fits=5, batches=500)
    later, _ = serve(limits, fits=5, batches=10_000)

    assert failures <= 5
    assert later <= 10


def test_a_device_that_is_free_again_is_used_again() -> None:
    limits = MemoryLimits(4)
    serve(limits, fits=1, batches=50)
    assert serve(limits, fits=4, batches=500)[1] == 4


def test_tiles_are_used_until_a_try_without() -> None:
    limits = MemoryLimits(4)
    limits.failed(SMALL, 1)
    assert not limits.needs_tiles(SMALL)
    limits.tiles_helped(SMALL)
    assert limits.needs_tiles(SMALL)
    assert limits.largest(SMALL) == 1
    for _ in range(32):
        limits.fitted(SMALL, 1)
    assert not limits.needs_tiles(SMALL)


@given(st.integers(1, 16), st.lists(st.tuples(st.booleans(), st.integers(1, 16)), max_size=200))
def test_a_limit_is_always_between_one_and_what_was_declared(
    most: int, events: list[tuple[bool, int]]
) -> None:
    limits = MemoryLimits(most)
    for fitted, pictures in events:
        before = limits.largest(SMALL)
        (limits.fitted if fitted else limits.failed)(SMALL, pictures)
        after = limits.largest(SMALL)
        assert 1 <= after <= most
        assert after <= before + fitted
