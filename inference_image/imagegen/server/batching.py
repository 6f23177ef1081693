"""Which waiting pictures run next, and together: a queue without a clock and without threads."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

__all__ = ["BatchQueue", "Overlap", "Slot", "Waiting"]


class Waiting(Protocol):
    """What can wait: some pictures that only run together with those of the same key."""

    @property
    def key(self) -> Hashable:
        """What pictures of one batch must have in common."""

    @property
    def count(self) -> int:
        """Number of pictures, at least 1."""


T = TypeVar("T", bound=Waiting)


@dataclass(frozen=True)
class Slot(Generic[T]):
    """One picture of a request."""

    owner: T
    index: int


@dataclass
class _Entry(Generic[T]):
    owner: T
    taken: int = 0

    def slots(self, most: int) -> Iterator[Slot[T]]:
        last = min(self.owner.count, self.taken + most)
        return (Slot(self.owner, index) for index in range(self.taken, last))


class BatchQueue(Generic[T]):
    """Forms batches, first in, first out, in three rules.

    * The oldest request's pictures are always in the next batch, so that nothing starves: before a
      request is through, there are at most as many batches as it and those ahead of it would need
      if nothing was ever run together.
    * Places that are left go to the next oldest pictures of the same key, across those of other
      keys, which they do not delay.
    * A request with more pictures than fit stays where it is until the last one is taken.
    """

    def __init__(self) -> None:
        self._entries: deque[_Entry[T]] = deque()

    def __len__(self) -> int:
        """Give the number of requests of which no picture has been taken."""
        return sum(entry.taken == 0 for entry in self._entries)

    def __iter__(self) -> Iterator[T]:
        """Give the requests of which pictures wait, the oldest first."""
        return (entry.owner for entry in self._entries)

    def left(self) -> Iterator[tuple[T, int]]:
        """Give these requests with the number of pictures that wait."""
        return ((entry.owner, entry.owner.count - entry.taken) for entry in self._entries)

    def add(self, owner: T) -> None:
        """Let all pictures of a request wait."""
        self._entries.append(_Entry(owner))

    def head(self) -> T | None:
        """Give the oldest request of which a picture waits."""
        return self._entries[0].owner if self._entries else None

    def waiting(self, owner: T) -> int:
        """Give the number of pictures of a request that have not been taken."""
        return sum(owner.count - each.taken for each in self._entries if each.owner is owner)

    def next_batch(self, most: Callable[[T], int]) -> list[Slot[T]]:
        """Show what :meth:`take` would take.

        Parameters
        ----------
        most
            Gives the most pictures of a batch that begins with that request's, at least 1.
        """
        if not self._entries:
            return []
        head = self._entries[0].owner
        places = most(head)
        batch: list[Slot[T]] = []
        for entry in self._entries:
            if entry.owner.key == head.key:
                batch.extend(entry.slots(places - len(batch)))
            if len(batch) == places:
                break
        return batch

    def take(self, most: Callable[[T], int]) -> list[Slot[T]]:
        """Take the next batch out; none is left when it is empty."""
        batch = self.next_batch(most)
        owners = {id(slot.owner) for slot in batch}
        for entry in self._entries:
            if id(entry.owner) in owners:
                entry.taken += sum(slot.owner is entry.owner for slot in batch)
        self._entries = deque(each for each in self._entries if each.taken < each.owner.count)
        return batch

    def remove(self, owner: T) -> int:
        """Let a request wait no more; give the number of its pictures that were not taken."""
        left = self.waiting(owner)
        self._entries = deque(each for each in self._entries if each.owner is not owner)
        return left


class Overlap:
    """Remembers how many requests were open at once lately.

    With it a worker knows whether waiting for company can help: as long as fewer requests wait than
    have lately been open at once, one that is not there yet may come.

    Parameters
    ----------
    memory_seconds
        After this long to twice as long, a peak is forgotten.
    """

    def __init__(self, memory_seconds: float = 1.0) -> None:
        self._memory = memory_seconds
        self._period = 0
        self._open = self._peak = self._peak_before = 0

    def changed(self, now: float, open_requests: int) -> None:
        """Note that the number of open requests has changed.

        Parameters
        ----------
        now
            Monotonic time in seconds.
        open_requests
            Requests that are being read, wait, are worked at or are being answered.
        """
        self._roll(now)
        self._open = open_requests
        self._peak = max(self._peak, open_requests)

    def peak(self, now: float) -> int:
        """Give the most requests that were open at once lately."""
        self._roll(now)
        return max(self._peak_before, self._peak)

    def _roll(self, now: float) -> None:
        period = math.floor(now / self._memory)
        if period > self._period:
            self._peak_before = self._peak if period == self._period + 1 else self._open
            self._peak = self._open
            self._period = period
