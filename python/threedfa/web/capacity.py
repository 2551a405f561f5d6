"""What all requests together hold: memory, places in the queue, and how many a client has."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from .problems import Problem
from .settings import Limits


class Capacity:
    """What is free, given out by leases. May be used from many threads at once.

    Args:
        limits: of all requests together.
        on_queue: told how many requests have a place, each time that this changes.
    """

    def __init__(self, limits: Limits, on_queue: Callable[[int], object]) -> None:
        self.lock = threading.Lock()
        self.memory = limits.memory_bytes
        self.places = limits.queue
        self.clients: Counter[str] = Counter()
        self.limits = limits
        self._on_queue = on_queue

    def change_places(self, more: int) -> None:
        """Free more places, or fewer. The lock must be held."""
        self.places += more
        self._on_queue(self.limits.queue - self.places)

    def lease(self) -> Lease:
        """For a new request, which holds nothing yet."""
        return Lease(self)


class Lease:
    """What one request holds, until it is over."""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._memory = 0
        self._places = 0
        self._client: str | None = None
        self._over = False

    def take_memory(self, count: int) -> None:
        """Bytes.

        Raises:
            Problem: 503 where so much is not free, 413 where it never is, or the request is over.
        """
        most = self._capacity.limits.memory_bytes
        with self._capacity.lock:
            self._require_going_on()
            if self._memory + count > most:
                raise Problem(
                    413,
                    f"expected a request that needs at most {most} bytes of memory for its "
                    f"pictures and its answer, got one of {self._memory + count} or more; ask for "
                    "fewer pictures or faces at once",
                )
            if count > self._capacity.memory:
                raise Problem.retry(503, "the server's memory is full")
            self._capacity.memory -= count
            self._memory += count

    def check(self) -> None:
        """Whether somebody still waits, for threads that work long.

        Raises:
            Problem: if the request is over.
        """
        with self._capacity.lock:
            self._require_going_on()

    def take_place(self) -> None:
        """In the queue.

        Raises:
            Problem: 503 where none is free.
        """
        with self._capacity.lock:
            if self._capacity.places < 1:
                raise Problem.retry(503, "the server's queue is full")
            self._capacity.change_places(-1)
            self._places += 1

    def give_place(self) -> None:
        """Back, where one was taken."""
        with self._capacity.lock:
            self._give_place()

    def name_client(self, client: str) -> None:
        """Whose request it is.

        Raises:
            Problem: 429 if the client has too many already.
        """
        most = self._capacity.limits.client_requests
        with self._capacity.lock:
            if self._capacity.clients[client] >= most:
                raise Problem.retry(
                    429, f"expected at most {most} requests of one client at the same time"
                )
            self._capacity.clients[client] += 1
            self._client = client

    def release(self) -> None:
        """Give everything back: the request is over."""
        with self._capacity.lock:
            self._over = True
            self._give_place()
            self._capacity.memory += self._memory
            self._memory = 0
            if self._client is not None:
                self._capacity.clients[self._client] -= 1
                if not self._capacity.clients[self._client]:
                    del self._capacity.clients[self._client]

    def _require_going_on(self) -> None:
        if self._over:  # nobody reads this
            raise Problem.retry(503, "the request is over")

    def _give_place(self) -> None:
        self._capacity.change_places(self._places)
        self._places = 0
