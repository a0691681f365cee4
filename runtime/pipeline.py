"""Reading ahead and writing behind: one thread each, so that neither waits for the network."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

Item = TypeVar("Item")
Content = TypeVar("Content")
P = ParamSpec("P")


def read_ahead(
    read: Callable[[Item], Content], items: Iterable[Item]
) -> Generator[Content, None, None]:
    """Read each item while the caller works on the one before."""
    with ThreadPoolExecutor(1) as pool:
        pending = None
        for item in items:
            following = pool.submit(read, item)
            if pending:
                yield pending.result()
            pending = following
        if pending:
            yield pending.result()


@contextmanager
def write_behind(write: Callable[P, None]) -> Iterator[Callable[P, None]]:
    """Write while the caller goes on, one call at a time; the context ends after the last one."""
    with ThreadPoolExecutor(1) as pool:
        pending: list[Future[None]] = []

        def wait() -> None:
            while pending:
                pending.pop().result()

        def later(*args: P.args, **kwargs: P.kwargs) -> None:
            wait()
            pending.append(pool.submit(write, *args, **kwargs))

        yield later
        wait()
