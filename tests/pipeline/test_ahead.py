"""one_ahead: everything once and in order, errors in their turn, and really ahead."""

import threading

import pytest

from sentcore.pipeline import one_ahead


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10])
def test_everything_in_order(count):
    assert list(one_ahead(range(count), lambda x: x * x)) == [x * x for x in range(count)]


@pytest.mark.parametrize("bad", [0, 1, 2, 3])
@pytest.mark.parametrize("where", ["reading", "making"])
def test_what_came_before_an_error_is_given(bad, where):
    def items():
        for i in range(4):
            if where == "reading" and i == bad:
                raise KeyError(i)
            yield i

    def make(i):
        if where == "making" and i == bad:
            raise KeyError(i)
        return i

    got = []

    def collect():
        for value in one_ahead(items(), make):
            got.append(value)

    with pytest.raises(KeyError):
        collect()
    assert got == list(range(bad))


def test_the_next_one_is_made_while_one_is_used():
    begun = threading.Event()

    def make(i):
        if i == 1:
            begun.set()
        return i

    for value in one_ahead(range(3), make):
        if value == 0:
            assert begun.wait(10)


def test_items_are_read_in_the_callers_thread():
    def items():
        for i in range(3):
            assert threading.current_thread() is threading.main_thread()
            yield i

    assert list(one_ahead(items(), lambda x: x)) == [0, 1, 2]
