"""Copies of inputs behave to each other as the inputs do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxpass.verify.copies import copied


def two_views() -> list[Any]:
    buffer = torch.arange(24.0).view(2, 3, 4)
    return [buffer[0], buffer[1].mT, buffer]


def one_twice() -> list[Any]:
    buffer = torch.arange(6.0)
    return [buffer, 3, None, buffer]


def strided() -> list[Any]:
    return [torch.arange(40.0)[3:].view(-1)[:36].view(6, 6)[1::2, ::3], torch.ones(1, 3).expand(4, 3)]


def two_dtypes() -> list[Any]:
    buffer = torch.arange(8.0)
    return [buffer, buffer[2:].view(torch.int32), torch.view_as_complex(buffer.view(4, 2))]


def of_numpy() -> list[Any]:
    """Two storages over one memory."""
    array = torch.arange(16, dtype=torch.int64).numpy()
    return [torch.from_numpy(array[4:]), torch.from_numpy(array)]


def conjugated() -> list[Any]:
    z = torch.randn(4, dtype=torch.complex64)
    return [z, z.conj(), z.conj().imag, z]


def empty() -> list[Any]:
    return [torch.empty(0, 3), torch.zeros(2, 0, 3), torch.zeros(())]


def small_floats() -> list[Any]:
    return [torch.randn(3, 4).to(torch.float8_e4m3fn)[1:], torch.randn(4).bfloat16()]


def parameters() -> list[Any]:
    return [nn.Parameter(torch.randn(3)), nn.Buffer(torch.randn(3)), torch.randn(2, requires_grad=True)]


def beyond_leaves() -> list[Any]:
    weight = torch.randn(3, 3, requires_grad=True)
    with torch.enable_grad():
        whole = weight * 2
    return [whole[0], whole]


def no_memory() -> list[Any]:
    return [
        torch.eye(3).to_sparse(),
        torch.empty(2, device="meta"),
        torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8),
    ]


CASES = [
    two_views,
    one_twice,
    strided,
    two_dtypes,
    of_numpy,
    conjugated,
    empty,
    small_floats,
    parameters,
    beyond_leaves,
    no_memory,
]


def plain(value: Tensor) -> Tensor:
    if value.is_quantized:
        return value.int_repr()
    return value.detach().to_dense() if value.layout is not torch.strided else value.detach()


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.__name__)
def test_a_copy_is_like_its_input(case: Callable[[], list[Any]]) -> None:
    given = case()
    made = copied(given)
    for a, b in zip(given, made, strict=True):
        if not isinstance(a, Tensor):
            assert a is b
            continue
        assert type(a) is type(b) and (a.dtype, a.shape, a.device, a.layout) == (b.dtype, b.shape, b.device, b.layout)
        assert (a.requires_grad, a.is_leaf, a.is_conj(), a.is_neg()) == (
            b.requires_grad,
            b.is_leaf,
            b.is_conj(),
            b.is_neg(),
        )
        if a.layout is torch.strided:
            assert a.stride() == b.stride()
        if not a.is_meta:
            assert torch.equal(plain(a).resolve_conj().resolve_neg(), plain(b).resolve_conj().resolve_neg())


@pytest.mark.parametrize(
    "case", [two_views, one_twice, two_dtypes, of_numpy, conjugated, beyond_leaves], ids=lambda c: c.__name__
)
@torch.no_grad()
def test_a_write_to_one_is_seen_in_the_others_alone(case: Callable[[], list[Any]]) -> None:
    given = case()
    before, made = [v.clone() for v in given if isinstance(v, Tensor)], copied(given)
    for values in (given, made):
        values[-1][...] = 7
        if values is given:
            changed = [v.clone() for v in given if isinstance(v, Tensor)]
            assert not any(torch.equal(c, b) for c, b in zip(changed, before, strict=True))
            assert all(torch.equal(v, b) for v, b in zip((v for v in made if isinstance(v, Tensor)), before, strict=True))
    assert all(torch.equal(v, c) for v, c in zip((v for v in made if isinstance(v, Tensor)), changed, strict=True))


def test_the_same_tensor_is_one_copy() -> None:
    first, *_, second = copied(one_twice())
    assert first is second


@pytest.mark.parametrize("inference", [False, True])
def test_inference_tensors_stay_so(inference: bool) -> None:
    with torch.inference_mode():
        made_there = torch.zeros(2)
    with torch.inference_mode(inference):
        there, here = copied([made_there, torch.zeros(2, requires_grad=not inference)])
    assert there.is_inference() and here.is_inference() == inference


def test_a_generator_draws_the_same() -> None:
    given = torch.Generator().manual_seed(3)
    (made,) = copied([given])
    assert made is not given and torch.equal(torch.rand(3, generator=made), torch.rand(3, generator=given))


class Doubled(Tensor):
    """A subclass with a memory of its own, and a word to keep."""

    word = ""


def test_subclasses_stay_so() -> None:
    given = torch.randn(3).as_subclass(Doubled)
    given.word = "kept"
    (made,) = copied([given])
    assert type(made) is Doubled and made.word == "kept" and made.data_ptr() != given.data_ptr()
    assert torch.equal(made.as_subclass(Tensor), given.as_subclass(Tensor))


def test_wrappers_are_copied_within() -> None:
    given = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
    (made,) = copied([given])
    assert type(made) is type(given) and torch.equal(made.values(), given.values())
    made.values().zero_()
    assert given.values().sum() == 5
