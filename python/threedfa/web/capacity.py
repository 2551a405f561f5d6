"""What all requests together hold: memory and places in the queue."""

from __future__ import annotations

from .problems import Problem
from .settings import Limits


class Capacity:
    """The memory and the places that are free. Used from the event loop alone."""

    def __init__(self, limits: Limits) -> None:
        self.memory = limits.memory_bytes
        self.places = limits.queue
        self._all_places = limits.queue

    def queued(self) -> int:
        """Requests that have a place."""
        return self._all_places - self.places

    def lease(self) -> Lease:
        """For a new request, which holds nothing yet."""
        return Lease(self)


class Lease:
    """What one request holds."""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._memory = 0
        self._places = 0

    def take_memory(self, count: int) -> None:
        """Bytes.

        Raises:
            Problem: 503 where so much is not free.
        """
        if count > self._capacity.memory:
            raise Problem.retry(503, "the server's memory is full")
        self._capacity.memory -= count
        self._memory += count

    def take_place(self) -> None:
        """In the queue.

        Raises:
            Problem: 503 where none is free.
        """
        if self._capacity.places < 1:
            raise Problem.retry(503, "the server's queue is full")
        self._capacity.places -= 1
        self._places += 1

    def give_place(self) -> None:
        """Back, where one was taken."""
        self._capacity.places += self._places
        self._places = 0

    def release(self) -> None:
        """Give everything back."""
        self.give_place()
        self._capacity.memory += self._memory
        self._memory = 0
