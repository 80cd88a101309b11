"""What the calls of a frame tell of its numbers: which are steady, which rise, which move with each step."""

from __future__ import annotations

import pytest

from fxpass.analysis.calls import CallHistory, Graph


def seen(*calls: tuple[int, ...], names: str = "start rows", heads: int = 8) -> CallHistory:
    """A frame whose one graph has been called like this."""
    frame, graph = CallHistory(), Graph(names.split(), {"heads": heads})
    for values in calls:
        frame.see(graph, values)
    return frame


def test_calls_tell_what_is_steady() -> None:
    calls = seen((0, 2), (4, 2), (5, 2), (0, 3), (4, 3))
    assert calls.kind("rows", 3, True) == calls.kind("heads", 8, True) == "variant"
    assert calls.kind("start", 4, False) == "position"
    assert calls.kind("never seen", 1, True) is None


@pytest.mark.parametrize(
    "rows, now, kind",
    [
        ((5, 6, 7), 8, "growth"),
        ((5, 6, 7), 4, "growth"),  # another request
        ((5,), 6, "growth"),
        ((9,), 7, "variant"),
        ((3, 5, 2, 4), 3, "variant"),
        ((2, 2, 2), 3, "variant"),
        ((2, 3, 3), 4, "growth"),
        ((2, 2, 2, 3, 3, 3), 3, "variant"),
    ],
)
def test_a_size_that_rises_grows(rows: tuple[int, ...], now: int, kind: str) -> None:
    assert seen(*((0, n) for n in rows)).kind("rows", now, True) == kind


@pytest.mark.parametrize(
    "starts, now, is_step, kind",
    [
        ((7,) * 6, 9, True, "variant"),  # steps have left it as it was
        ((7,) * 6, 9, False, None),  # calls of a graph without positions tell nothing
        ((7,) * 3, 9, True, None),
        ((0,) * 6, 1, True, None),  # a window that has not been full
        ((7,) * 6 + (8,), 9, True, "position"),
        ((7,) * 6 + (9,) * 5, 9, True, "variant"),
    ],
)
@pytest.mark.parametrize("fixed", [True, False])
def test_an_int_that_moves_for_the_first_time(
    starts: tuple[int, ...], now: int, is_step: bool, kind: str | None, fixed: bool
) -> None:
    calls = CallHistory()
    graphs = {n: Graph([] if fixed else ["start"], {"start": n} if fixed else {}, is_step=is_step) for n in starts}
    for n in starts:
        calls.see(graphs[n], () if fixed else (n,))
    assert calls.kind("start", now, False) == kind


def test_an_int_is_compared_with_what_it_was_for_the_same_module() -> None:
    """The first of two blocks moves it, and the second finds it moved: it has not stayed from one to the other."""
    calls, first, second = CallHistory(), Graph([], {"n": 0}), Graph(["n"], {})
    calls.see(first, (), owner=1)
    calls.see(second, (4,), owner=2)
    assert calls.last("n", 1) == 0 and calls.last("n", 2) == calls.last("n", 3) == 4
    assert calls.kind("n", 4, False, owner=1) is None and calls.kind("n", 4, False, owner=2) == "variant"


def test_many_calls_are_counted_as_they_come() -> None:
    calls = seen(*((n, 2) for n in range(2000)))
    assert calls.kind("rows", 2, True) == "variant" and calls.kind("start", 2000, False) == "position"
    assert not calls._entries and calls._moves["start"] == 63
