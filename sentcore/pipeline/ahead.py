"""Work on the next item while the present one is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def one_ahead(items: Iterable[Item], make: Callable[[Item], Made]) -> Iterator[Made]:
    """make(item) of every item, in order, each made in another thread while the one before it is used.

    `items` is read in the caller's thread, one item further than what has been given. What reading or making raises is
    raised in its turn, after all that came before has been given.
    """
    iterator = iter(items)

    def read() -> tuple[bool, Item | None, Exception | None]:
        try:
            return True, next(iterator), None
        except StopIteration:
            return False, None, None
        except Exception as error:
            return True, None, error

    there, item, error = read()
    following = read() if there and error is None else None
    if following is not None and not following[0]:  # one alone is not worth a thread
        yield make(item)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="sentcore-ahead") as pool:
        pending: Future[Made] | None = None
        while there:
            made = _submitted(pool, make, item) if error is None else None
            if pending is not None:
                yield pending.result()
            if error is not None:
                raise error
            pending = made
            there, item, error = following if following is not None else read()
            following = None
        if pending is not None:
            yield pending.result()


def _submitted(pool: ThreadPoolExecutor, make: Callable[[Item], Made], item: Item) -> Future[Made]:
    try:
        return pool.submit(make, item)
    except RuntimeError:  # the interpreter is going down, and starts no thread any more: this one does the work
        made: Future[Made] = Future()
        try:
            made.set_result(make(item))
        except Exception as error:
            made.set_exception(error)
        return made
