"""Each rule in the smallest model that needs it: ``finish(k, v)`` over the valid rows of a cache whose tail is NaN."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from reach.models import CAPACITY, Model, heads
from reach.runner import run
from torch import Tensor

import fxpass

F = torch.nn.functional


def model(finish: Callable[..., Tensor]) -> type[Model]:
    """A model that ends in ``finish(k, v)``, or in ``finish(k, v, start, keys)`` where that takes four arguments."""
    everything = finish.__code__.co_argcount == 4

    class Finish(Model, register=False):
        def forward(self, x: Tensor, start: int) -> Tensor:
            end = start + x.shape[1]
            self.append(x, start, end)
            k, v = self.keys[:, :, :end], self.values[:, :, :end]
            out = finish(k, v, start, self.keys) if everything else finish(k, v)
            return heads(x) @ heads(x).mT + out.sum()

    return Finish


def _twice(rows: Tensor) -> None:
    rows.copy_(rows + 1)
    rows.mul_(2)


def _then(rows: Tensor, keys: Tensor) -> Tensor:
    """Rows that are written, and read again after their buffer has been."""
    rows.add_(1)
    keys.mul_(2)
    return rows.sum(2)


def _shifted(x: Tensor, y: Tensor) -> Tensor:
    """``x`` moved by a row, between halves of a row of it and the last row of ``y``."""
    moved = torch.zeros_like(x)
    moved[:, :, 1:] = x[:, :, :-1]
    moved[:, :, :1] += 0.5 * x[:, :, 1:2]
    moved[..., 1:, 0].sub_(1)
    moved[:, :, -1] = y[:, :, -1]
    return moved


def _row_set(x: Tensor, at: int) -> Tensor:
    x[:, :, at:, 1] = 2.0
    x[:, :, 1] = x[:, :, at] * 2
    return x


def _before(rows: Tensor, keys: Tensor) -> Tensor:
    """Rows that are written after their buffer has been."""
    keys.mul_(2)
    rows.add_(1)
    return keys[..., :1, 0] * 0


def _scaled(x: Tensor, end: int) -> Tensor:
    """The sum of ``x`` with the columns below ``end`` doubled, in place."""
    x[:, :end].mul_(2)
    return x.sum(1)


def _padded(x: Tensor) -> Tensor:
    """``x`` in the first columns of a tensor of the buffer's size."""
    out = torch.full((2, CAPACITY), -1e9)
    out[:, : x.shape[1]] = x
    return out


REWRITTEN: dict[str, Callable[..., Tensor]] = {
    "getitem": lambda k, v: (k.chunk(2, 3)[1] * v.split([1, 3], 3)[0]).sum(2),
    "einsum": lambda k, v: torch.einsum("...nd,...ne", k, v),
    "einsum_same_letters": lambda k, v: torch.einsum("...nd,...nd->...d", k, v),
    "einsum_ellipsis_in_one": lambda k, v: torch.einsum("...nd,abne->ab...de", k, v)[:, :, 0, 0],
    "baddbmm": lambda k, v: torch.baddbmm(torch.ones(1, 4, 4), k.flatten(0, 1).mT, v.flatten(0, 1)),
    "addmm": lambda k, v: torch.addmm(torch.ones(4), k[0, 0].mT, v[0, 0]),
    "all": lambda k, v: (k[..., 0] < 100).all(-1) * 1.0 + (k > 0).all(2).sum(-1),
    "any": lambda k, v: (k[..., 0] > 100).any(-1) * 1.0 + (k > 1).any(2).sum(-1),
    "amax_of_bools": lambda k, v: (k > 1.5).amax(2) * 1.0,
    "argmax": lambda k, v: k.argmax(2) * 1.0 + v.argmin(2, keepdim=True)[:, :, 0],
    "max": lambda k, v: k.max() - v.min(),
    "logsumexp": lambda k, v: k.logsumexp(2) + torch.log_softmax(v, 2).sum(2),
    "logcumsumexp": lambda k, v: k.logcumsumexp(2).sum(2),
    "cumsum": lambda k, v: k.cumsum(2).sum(2),
    "filled": lambda k, v: (k.clone().fill_(2.0) * v.clone().zero_() + torch.fill(k, 3.0)).sum(2),
    "fourier_of_channels": lambda k, v: torch.fft.rfft(k, dim=3).abs().sum(2),
    "pooled_channels": lambda k, v: F.avg_pool1d(k.flatten(0, 1), 2).sum(1),
    "distances_of_rows": lambda k, v: torch.cdist(k, v[:, :, :1]).sum(2)[..., 0] + torch.cdist(v[:, :, :1], k).sum(3)[..., 0],
    "diagonal": lambda k, v: (k @ v.mT).diagonal(0, 2, 3).sum() + k.diagonal(0, 1, 3).sum(),
    "conjugates": lambda k, v: torch.view_as_complex(k.unflatten(-1, (2, 2))).mH.abs().sum(3),
    "bits": lambda k, v: (k.view(torch.int32) > 0).sum(2) + v.view(torch.int16).float().sign().sum(2)[..., 1::2],
    "var_mean": lambda k, v: torch.var_mean(k, 2)[0] + torch.std_mean(v, 2, keepdim=True)[1][:, :, 0],
    "group_norm": lambda k, v: F.group_norm(k.flatten(0, 1), 1).abs().sum(1),
    "batch_norm": lambda k, v: F.batch_norm(k.flatten(0, 1).mT, torch.zeros(4), torch.ones(4)).sum(2),
    "var": lambda k, v: k.var(2) + v.var((2, 3))[..., None],
    "var_keepdim": lambda k, v: ((k - k.mean(2, keepdim=True)) / k.std(2, keepdim=True)).sum(2),
    "var_correction": lambda k, v: k.var(2, correction=0) + v.var(unbiased=False),
    "vector_norm": lambda k, v: k.norm(dim=2) + torch.linalg.vector_norm(v, 1, dim=2) + F.normalize(k, dim=3).sum(2),
    "layer_norm": lambda k, v: (F.layer_norm(k, (4,)) * F.rms_norm(v, (4,))).sum(2),
    "embedding": lambda k, v: (F.embedding(torch.arange(k.shape[2]), torch.eye(CAPACITY, 4)) * k).sum(2),
    "index_select": lambda k, v: torch.eye(CAPACITY).index_select(1, torch.arange(k.shape[2])).sum(1) + k.sum(),
    "index": lambda k, v: (torch.eye(CAPACITY)[torch.arange(k.shape[2])][:, :4] * k).sum(2),
    "index_of_channels": lambda k, v: k[..., torch.tensor([0, 2])].sum(2),
    "gather": lambda k, v: k.gather(3, (v > 0).long()).sum(2),
    "stack": lambda k, v: torch.stack([k, v], 1).sum(3),
    "cat_of_channels": lambda k, v: torch.cat([k, v], -1).sum(2),
    "cat_of_rows": lambda k, v: torch.cat([v[:, :, :2] * 2, k[:, :, 1:-1]], 2).cumsum(2).sum(2),
    "slice_the_first": lambda k, v: k[:, :, :3].sum(2),
    "slice_the_last": lambda k, v: k[:, :, -2:].sum(2) + v[:, :, -3:-1].sum(2),
    "slice_away": lambda k, v: k[:, :, 1:].sum(2) + v[:, :, :-1].sum(2) + k[:, :, 2:-1].sum(2),
    "slice_by_position": lambda k, v, start, keys: k[:, :, start:].sum(2) + v[:, :, :start].sum(2),
    "narrow": lambda k, v: k.narrow(2, 1, 2).sum(2) + v.narrow(2, -2, 2).sum(2),
    "arange": lambda k, v, start, keys: (torch.arange(start - 1, k.shape[2] + start - 1) * k.sum(3)).sum(2),
    "arange_down": lambda k, v, start, keys: (
        (torch.arange(k.shape[2] - 1, -1, -1) + torch.arange(9, 9 - k.shape[2], -1, dtype=torch.float32)) * k.sum(3)
        + torch.arange(start + 2, start + 2 - k.shape[2], -1) * v.sum(3)
    ).sum(2),
    "factories": lambda k, v: (torch.ones(k.shape[2], 4) * k + torch.zeros_like(k) + k.new_full((4,), 2)).sum(2),
    "zero_": lambda k, v, start, keys: (keys[:, :, :start].zero_(), k.sum(2))[1],
    "mul_": lambda k, v, start, keys: (keys[:, :, : start + 1].mul_(0.5), k.sum(2))[1],
    "copy_": lambda k, v, start, keys: (keys[:, :, : k.shape[2]].copy_(v), k.sum(2))[1],
    "two_writes_to_rows": lambda k, v, start, keys: (_twice(keys[:, :, start : start + 1]), k.sum(2))[1],
    "chained_writes_to_rows": lambda k, v, start, keys: (
        keys[:, :, start : start + 1].mul_(2).add_(1),
        keys[0, :, start].add_(2).mul_(start),
        k.sum(2),
    )[2],
    "rows_copied_and_read": lambda k, v, start, keys: (
        keys[:, :, start : start + 1].copy_(v[:, :, :1]).sum(2) + k.sum(2)
    ),
    "part_of_a_constant": lambda k, v, start, keys: _scaled(torch.ones(2, CAPACITY), start + 1) + k.sum(),
    "part_of_a_result": lambda k, v, start, keys: _scaled((k * 2)[0, :, :, 0], start) + _scaled(v[0, :, :, 0] * 2, -1),
    "halves_of_valid_rows": lambda k, v, start, keys: (
        keys[:, :, : start + 1].chunk(2, 3)[0].copy_(torch.ones(2)),
        k.sum(2),
    )[1],
    "halves_of_rows": lambda k, v, start, keys: (keys[:, :, start : start + 1].chunk(2, 3)[1].mul_(2), k.sum(2))[1],
    "padded_by_hand": lambda k, v, start, keys: _padded(k[0, :, :, 0]).softmax(-1),
    "decompose": lambda k, v: torch.hstack([k.movedim(2, 1)[:, :, 0], torch.ones(2, 1, 4)]).sum(1),
    "activations": lambda k, v: F.hardswish(k).sum(2) + F.logsigmoid(v).sum(2) + F.glu(torch.cat([k, v], 3)).sum(2),
    "both_extrema": lambda k, v: k.aminmax(dim=2).min + v.aminmax(dim=2).max,
    "is_in": lambda k, v: torch.isin(k.round(), torch.tensor([0.0, 1.0])).sum(2) + v.sum(2),
    "turned_by_a_quarter": lambda k, v: k.rot90(1, (2, 3)).sum(3)[:, :, :1] + v.rot90(2, (2, 3)).sum(2),
    "diagonals": lambda k, v: torch.diag_embed(k).sum((2, 3)) + v.renorm(2, 0, 1.0).sum(2),
    "losses": lambda k, v: F.smooth_l1_loss(k, v, reduction="none").sum(2) + F.huber_loss(k, v, reduction="none").sum(2),
    "tensordot": lambda k, v: torch.tensordot(k, v, dims=([2], [2])).sum((0, 2)),
    "roll_by_position": lambda k, v, start, keys: (keys.roll(-start, 2)[:, :, :1]).sum(2),
    "tril_by_position": lambda k, v, start, keys: torch.ones(4, CAPACITY).tril(start).sum(1),
    "dropout_in_evaluation": lambda k, v: F.dropout(k, 0.5, training=False).sum(2) + F.dropout(v, 0.0).sum(2),
    "rows_as_a_weight": lambda k, v: F.linear(torch.ones(3, 4), k[0, 0]).softmax(-1) @ v[0, 0],
    "mean_of_halves": lambda k, v: (
        (k.half() * 20000).mean(2).float() * 1e-4 + v.bfloat16().mean((2, 3)).float()[..., None]
    ),
    "var_of_halves": lambda k, v: (k.half() * 300).var(2).float() * 1e-5 + v.bfloat16().std(2).float(),
    "integer_division": lambda k, v: (100 % ((k == k) * 7)).sum(2) + (9 // ((v == v) * 2)).sum(2),
    "negative_end": lambda k, v, start, keys: (
        keys[:, :, : start - CAPACITY].sum(2) + keys[:, :, start - CAPACITY - 2 : -9].sum(2)
    ),
    "bits_of_a_position": lambda k, v, start, keys: (k * (start & 3) + (start | 1) + (start ^ 1) + (start << 1)).sum(2),
    "bits_as_a_bound": lambda k, v, start, keys: keys[:, :, : start >> 1].sum(2) + keys[:, :, : start & 7].sum(2),
    "attention_among_rows": lambda k, v: F.scaled_dot_product_attention(k, k, v, is_causal=True).sum(2),
    "fill_with_a_position": lambda k, v, start, keys: (keys[:, :, start : start + 1].fill_(start), k.sum(2))[1],
    "distances": lambda k, v, start, keys: (torch.arange(20.0)[start - torch.arange(k.shape[2])] * k.sum(3)).sum(2),
    "flip": lambda k, v: k.flip(2)[:, :, 0] + (v.flip((1, 2)) * k).sum(2) + v.flip(-1).sum(2),
    "roll": lambda k, v: (k.roll(1, 2) * v.roll((-2, 1), (2, 3))).sum(2) + k.roll(30, -2)[:, :, 0],
    "select": lambda k, v: k[:, :, -1] + k[:, :, 0] * v[:, :, -2] + v.select(-2, 1),
    "strided": lambda k, v: k[:, :, ::2].sum(2) + v[:, :, 1::3].cumsum(2).sum(2) + k[:, :, -4:-1:2].sum(2),
    "merged": lambda k, v: (k.transpose(1, 2).flatten(1, 2) * v.transpose(1, 2).flatten(1, 2)).cumsum(1).sum(1),
    "merged_behind_heads": lambda k, v: k.flatten(1, 2).cumsum(1).sum(1) + v.reshape(-1, 4).logsumexp(0),
    "merged_with_channels": lambda k, v: k.flatten(2).cumsum(2).sum(2)[:, :, None] + v.flatten().amax(),
    "split_off": lambda k, v: k[:, :, : k.shape[2] // 2 * 2].unflatten(2, (-1, 2)).cumsum(2).sum((2, 3)),
    "repeated": lambda k, v: k.repeat(1, 1, 3, 1).cumsum(2).sum(2) + v.repeat(2, 1, 1, 2, 1)[0, ..., :4].sum(2),
    "interleaved": lambda k, v: (k.repeat_interleave(2, 2) * v.repeat(1, 1, 2, 1)).sum(2),
    "sort": lambda k, v: k.sort(2).values.cumsum(2).sum(2) + v.sort(2, descending=True).indices[:, :, 0],
    "sort_of_numbers": lambda k, v: ((k * 2).int().sort(2, descending=True).values * v.argsort(2)).sum(2),
    "sort_of_equals": lambda k, v: (
        ((k > 0).sort(stable=True, dim=2).indices * v).sum(2)
        + torch.full_like(k, float("-inf")).argsort(2, descending=True)[:, :, 0]
    ),
    "topk": lambda k, v: k.topk(3, 2).values.sum(2) + v.topk(2, 2, largest=False).values[:, :, 1],
    "kthvalue": lambda k, v: k.kthvalue(2, 2).values + v.kthvalue(1, 2, keepdim=True).values[:, :, 0],
    "searchsorted": lambda k, v: torch.searchsorted(k[0, 0, :, 0].abs().cumsum(0), v[..., 0, :].contiguous()) * 1.0,
    "bucketize": lambda k, v: torch.bucketize(k, v[0, 0, :, 0].abs().cumsum(0), right=True).sum(2) * 1.0,
    "pad": lambda k, v: F.pad(k, (0, 0, 1, 2), value=3.0).cumsum(2).sum(2) + F.pad(v, (1, -1, -1, 0)).sum(2),
    "pad_by_rows": lambda k, v: (
        F.pad(k, (1, 1, 2, 3), mode="replicate").cumsum(2).sum(2)[..., 1:-1]
        + F.pad(v, (0, 0, 2, 1), mode="reflect").cumsum(2).sum(2)
    ),
    "select_scatter": lambda k, v: (
        k.select_scatter(v[:, :, 0], 2, -1).cumsum(2).sum(2) + v.select_scatter(k[..., 0], 3, 1).sum(2)
    ),
    "slice_scatter": lambda k, v: k.slice_scatter(v[..., :2], 3, 1, 3).sum(2),
    "unfold": lambda k, v: (k.unfold(2, 3, 2).sum(-1) * v.unfold(2, 3, 2)[..., 0]).sum(2),
    "diff": lambda k, v: k.diff(dim=2).abs().sum(2) + v.diff(n=2, dim=2).sum(2),
    "convolution": lambda k, v: (
        F.conv1d(k.flatten(0, 1).mT, torch.ones(2, 4, 3), padding=1, stride=2).sum(2)[:4].view(2, 2, 2)[..., :1]
    ),
    "vectors": lambda k, v: (k.mT @ v[0, 0, :, 0] + (v[0, 0, :, 0] @ k) + v[0, 0, :, 1].dot(k[0, 0, :, 2])) * 0.01,
    "product": lambda k, v: k.prod(2) + v.nansum(2) + (k > 0).count_nonzero(2) + k.cumprod(2).sum(2),
    "running_extrema": lambda k, v: (k.cummax(2).values * v.cummin(2).indices).sum(2),
    "norms": lambda k, v: (
        torch.linalg.vector_norm(k, 0, dim=2)
        + torch.linalg.vector_norm(v, -1, dim=2)
        + torch.linalg.vector_norm(v, float("-inf"), dim=2)
        + torch.linalg.vector_norm(v, float("inf"), dim=2)
    ),
    "mixed_buffers": lambda k, v: ((torch.cat([k, v], 2)[:, :, : k.shape[2]]) * v).sum(2),
    "frexp": lambda k, v: k.frexp().mantissa.sum(2) + v.frexp().exponent.sum(2),
    "rsub": lambda k, v, start, keys: start - torch.arange(4) + (k * start).sum(2),
    "last_row_written": lambda k, v: (k[:, :, -1:].mul_(2), k[:, :, -1].fill_(3), k.sum(2) + v.sum(2))[2],
    "rows_shifted": lambda k, v: _shifted(k, v).sum(2),
    "rows_from_a_place_on": lambda k, v, start, keys: _row_set(k * 2, start).sum(2) + v.sum(2),
}

REFUSED: dict[str, tuple[Callable[..., Tensor], str]] = {
    "flat_argmax": (lambda k, v: k.argmax() + v.sum(2), "a flattened tensor"),
    "written_slice_of_slice": (lambda k, v: k[:, :, -1:].mul_(2).sum(2) + v.sum(2), "slice of a slice is written"),
    "rows_written_and_stale": (
        lambda k, v, start, keys: _then(keys[:, :, start : start + 1], keys),
        "read after the buffer has been written again",
    ),
    "rows_taken_and_stale": (
        lambda k, v, start, keys: _before(keys[:, :, start : start + 1], keys),
        "read after the buffer has been written again",
    ),
    "rows_written_by_two_names": (
        lambda k, v, start, keys: _then(keys[:, :, start : start + 1], keys[:, :, start - 1 : start + 1]),
        "read after the buffer has been written again",
    ),
    "rows_and_all_written_at_once": (
        lambda k, v, start, keys: (torch._foreach_mul_([keys[:, :, start : start + 1], keys], 2), v.sum(2))[1],
        "several places at once",
    ),
    "halves_of_rows_and_stale": (
        lambda k, v, start, keys: _then(keys[:, :, start : start + 1].chunk(2, 3)[1], keys),
        "read after the buffer has been written again",
    ),
    "dropout": (lambda k, v: F.dropout(k, 0.5).sum(2), "aten.dropout: it draws"),
    "random_rows": (
        lambda k, v, start, keys: (keys[:, :, start : start + 1].normal_(), v.sum(2))[1],
        "aten.normal_: it draws",
    ),
    "random_valid_rows": (
        lambda k, v, start, keys: (keys[:, :, : start + 1].uniform_(), v.sum(2))[1],
        "aten.uniform_ writes in place",
    ),
    "bernoulli": (lambda k, v: torch.bernoulli(k.sigmoid()).sum(2), "no rule for aten.bernoulli"),
    "random_numbers": (lambda k, v: (torch.rand_like(k) * k).sum(2), "no rule for aten.rand_like"),
    "random_numbers_of_a_size": (
        lambda k, v: (torch.rand(k.shape[2]) * k.sum(3)).sum(2),
        "but it is no slice of anything",
    ),
    "softmax_of_ints": (lambda k, v: (k * 4).int().softmax(2, dtype=torch.float32).sum(2), "of integers"),
    "no_rule": (lambda k, v: k.mode(dim=2).values, "no rule for aten.mode"),
    "split_in_parts": (
        lambda k, v: k[:, :, : k.shape[2] // 2 * 2].unflatten(2, (2, -1)).sum(3),
        "fixed number of parts",
    ),
    "rolled_flat": (lambda k, v: k.roll(1).sum(2), "roll of a flattened tensor"),
    "places_of_topk": (lambda k, v: k.topk(2, 2).indices + v.sum(2, keepdim=True), "which of equal elements"),
    "places_of_kthvalue": (lambda k, v: k.kthvalue(1, dim=2).indices + v.sum(2), "which of equal elements"),
    "unordered_topk": (lambda k, v: k.topk(2, 2, sorted=False).values.sum(2), "sorted=False: which of equal elements"),
    "repeated_flat": (lambda k, v: k.repeat_interleave(2).sum() + v.sum(2), "repeat_interleave.self_int of a flattened tensor"),
    "rows_put_in": (lambda k, v: k.slice_scatter(v[:, :, ::2], 2, 0, None, 2).sum(2), "into every other row"),
    "channels": (
        lambda k, v: F.conv1d(torch.ones(1, 4, 4), k[0, 0, :, :, None]).sum(1) + v.sum((0, 2)),
        "channels of position-dependent number",
    ),
}


@pytest.mark.parametrize("name", list(REWRITTEN))
def test_rewritten(name: str) -> None:
    outcome = run(model(REWRITTEN[name]), "nan")
    assert (outcome.refused, outcome.breaks) == (0, 0), outcome
    assert outcome.rewritten > 0, outcome
    assert all(p.static for parts in outcome.cuts for p in parts if p.name != "prologue"), outcome


@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("name", list(REFUSED))
def test_refused_for_a_stated_reason(name: str) -> None:
    finish, reason = REFUSED[name]
    run(model(finish))
    reasons = [s.reason for report in fxpass.reports() for s in report.sites if s.decision == "refused"]
    assert reasons and all(reason in r for r in reasons), reasons


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("whole", [True, False])
def test_a_mask_that_is_given(whole: bool) -> None:
    """One as large as the cache is sliced with it; one of the valid length is padded up to the size of the cache."""

    def step(cache: Tensor, x: Tensor, start: int, mask: Tensor) -> Tensor:
        cache[:, start : start + 1] = x
        rows, mask = cache[:, : start + 1], mask[:, : start + 1] if whole else mask
        return F.scaled_dot_product_attention(x, rows, rows, attn_mask=mask)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    for capacity in (16, 12):
        cache, eager = torch.full((2, 2, capacity, 4), float("nan"))
        for start in range(4):
            x, mask = torch.randn(2, 1, 4), torch.rand(1, capacity if whole else start + 1) > 0.3
            mask[:, 0] = True
            torch.testing.assert_close(compiled(cache, x, start, mask), step(eager, x, start, mask))
            torch.testing.assert_close(cache, eager, equal_nan=True)
    (report,) = (r for r in fxpass.reports() if r.sites)
    reads = [s for s in report.sites if s.kind == "read"]
    assert not report.unfit and {(s.buffer, s.decision) for s in reads} == {("mask", "rewritten"), ("cache", "rewritten")}
