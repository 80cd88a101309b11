"""Equal layers are one piece, called once for each; what is not equal, or shares memory, stays whole."""

from __future__ import annotations

import weakref

import pytest
import torch
from graphs import same, traced

from fxpass.execute.compilation.sequence import Sequenced
from fxpass.execute.partition.hoist import hoist
from fxpass.execute.partition.repeats import piece_calls

LAYERS, WIDTH, ROWS = 6, 4, 3


def arguments() -> list[torch.Tensor]:
    """x, weights of all layers, the buffer of all layers, an index vector, a position."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(WIDTH, WIDTH, generator=generator) for _ in range(LAYERS)]
    return [
        torch.randn(ROWS, WIDTH, generator=generator),
        *weights,
        torch.zeros(LAYERS, 8, WIDTH),
        torch.arange(LAYERS),
        torch.tensor(2),
    ]


def model(x, *rest, scale=lambda layer: 2.0):
    *weights, buffer, index, position = rest
    steps = torch.arange(ROWS)
    x = torch.nn.functional.linear(x, weights[0])
    for layer, weight in enumerate(weights):
        buffer[layer].index_copy_(0, steps + position, x)
        y = torch.sin(x) + buffer[layer].sum(0) * torch.cos(position * 0.5)
        x = x + torch.nn.functional.linear(y * scale(layer), weight)
        index[layer] = index[layer] + 1
    return (x, x[0], 7)


def pieces(gm) -> list[int]:
    """How often each piece is called, in the order of their first calls."""
    calls = [id(c.piece) for c in piece_calls(gm) if c.piece is not None]
    return [calls.count(piece) for piece in dict.fromkeys(calls)]


def in_pieces(gm) -> Sequenced:
    calls = piece_calls(gm)
    return Sequenced(gm, calls, {id(c.piece): c.piece.gm for c in calls if c.piece is not None})


@pytest.mark.parametrize("early", [False, True], ids=["as it is", "hoisted"])
def test_equal_layers_are_one_piece(early: bool) -> None:
    gm = traced(model, arguments())
    expected = traced(model, arguments())
    if early:
        hoist(gm.graph)
    run = in_pieces(gm)
    assert max(pieces(gm)) >= LAYERS - 2
    for _ in range(2):
        assert same(expected, run, arguments())


def test_layers_that_differ_by_a_number_are_not_one_piece() -> None:
    """Every layer another factor: nothing repeats. One layer another: it stands apart, and the result is right."""
    assert pieces(traced(lambda *a: model(*a, scale=float), arguments())) == []

    def one_apart(*args):
        return model(*args, scale=lambda layer: 3.0 if layer == 1 else 2.0)

    gm = traced(one_apart, arguments())
    assert same(traced(one_apart, arguments()), in_pieces(gm), arguments())
    assert max(pieces(gm)) == LAYERS - 2


def test_an_operand_from_elsewhere_is_seen() -> None:
    """Layer 3 takes the output of layer 1 where the others take that of the one before."""

    def skip(x, *weights):
        outputs = [torch.nn.functional.linear(x, weights[0])]
        for layer, weight in enumerate(weights[1:]):
            outputs.append(torch.nn.functional.linear(torch.sin(outputs[1 if layer == 3 else -1]), weight))
        return (outputs[-1],)

    args = arguments()[: LAYERS + 1]
    gm = traced(skip, args)
    if piece_calls(gm):
        assert same(traced(skip, args), in_pieces(gm), args)


def test_memory_under_two_names_is_left_whole() -> None:
    """A layer that writes rows of a buffer and takes the whole of it too: which names share memory would matter."""

    def shared(x, *rest):
        *weights, buffer, _, _ = rest
        for layer, weight in enumerate(weights):
            x = torch.nn.functional.linear(torch.sin(x), weight)
            buffer[layer].add_(1)
            x = x + buffer.sum()
        return (x,)

    gm = traced(shared, arguments())
    assert piece_calls(gm) == []


def test_what_is_used_up_is_let_go() -> None:
    """Memory: no more than two layers' values are alive at a time."""
    gm = traced(model, arguments())
    calls = piece_calls(gm)
    alive: list[weakref.ref] = []
    most = []

    def watched(piece):
        def run(*args):
            results = piece.gm(*args)
            alive.extend(weakref.ref(r) for r in results if isinstance(r, torch.Tensor))
            most.append(sum(r() is not None for r in alive))
            return results

        return run

    compiled = {id(c.piece): watched(c.piece) for c in calls if c.piece is not None}
    Sequenced(gm, calls, compiled)(*arguments())
    assert max(most) <= 2 * max(len(c.gives) for c in calls)
