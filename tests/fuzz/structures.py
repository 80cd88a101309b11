"""What serving code keeps beside a cache: pages, rows of their own lengths, slots, windows of a convolution, tokens, scales."""

from __future__ import annotations

import dataclasses

from .sketch import Sketch


@dataclasses.dataclass(frozen=True)
class Structure:
    """Lines of the cache, of `seek`, of the step, and a result. ``{s}`` and ``{e}`` are the first layer's bounds."""

    state: tuple[str, ...]
    step: tuple[str, ...]
    out: str
    seek: tuple[str, ...] = ()
    given: tuple[tuple[str, str], ...] = ()
    after: tuple[str, ...] = ()


_PAGES = ("c.pages = new((4, 4, 2), torch.float32)", "c.blocks = torch.tensor([2, 0, 3, 1])")
_RAGGED = ("c.own = new((b, S + 4, 2), torch.float32)", "c.owns = torch.arange(b)")
_MOVED = ("c.owns += n",)
_OWNS = ("c.owns.copy_(torch.arange(c.owns.shape[0]) + p)",)
_SLOTS = (("slots", "torch.arange(p, p + n)"),)
_FLAT = ("c.flat = new((S + 4, 2), torch.float32)",)
_CONV = ("c.conv = new((2, 4), torch.float32)",)
_TOKENS = ("c.tokens = torch.zeros(S + 4, dtype=torch.int64)",)
_SCALED = ("c.q = torch.zeros(S + 4, 2, dtype=torch.int8)", "c.scale = new((S + 4, 1), torch.float32)")
_NEW = "new = x.float().flatten().cumsum(0)[-1] + torch.arange(2 * n).view(n, 2)"

STRUCTURES = {
    "pages, a row": Structure(
        _PAGES, ("c.pages[c.blocks[{s} // 4], {s} % 4] = x.sum().float()",), "c.pages[c.blocks].flatten(0, 1)[:{s} + 1].sum(0)"
    ),
    "pages, by slot": Structure(
        _PAGES,
        (_NEW, "at = torch.arange({s}, {e})", "c.pages[c.blocks[at // 4], at % 4] = new"),
        "c.pages.view(16, 2)[(c.blocks[:, None] * 4 + torch.arange(4)).flatten()][:{e}].sum(0)",
    ),
    "pages, gathered": Structure(
        _PAGES,
        (_NEW, "at = torch.arange({s}, {e})", "c.pages.view(16, 2).index_copy_(0, c.blocks[at // 4] * 4 + at % 4, new)"),
        "c.pages.index_select(0, c.blocks[:({e} + 3) // 4]).sum((0, 1))",
    ),
    "rows of own lengths": Structure(
        _RAGGED,
        ("c.own[torch.arange(c.own.shape[0]), c.owns] = x.sum().float()", "end = int(c.owns.max()) + 1"),
        "(c.own[:, :end] * (torch.arange(end) <= c.owns[:, None])[..., None]).nan_to_num(0).sum(1)", _OWNS, after=_MOVED,
    ),
    "rows one by one": Structure(
        _RAGGED,
        ("parts = []", "for row, l in enumerate(c.owns.tolist()):", "    c.own[row, l:l + 1] = x.sum().float() + row",
         "    parts.append(c.own[row, :l + 1].sum(0))"), "torch.stack(parts)", _OWNS, after=_MOVED,
    ),
    "lengths in a mask": Structure(
        _RAGGED,
        ("at = c.owns[:, None, None].expand(-1, 1, 2)", "c.own.scatter_(1, at, x.sum().float().expand(c.own.shape[0], 1, 2))"),
        "c.own.masked_fill((torch.arange(S + 4) > c.owns[:, None])[..., None], 0).sum(1)", _OWNS, after=_MOVED,
    ),
    "slots": Structure(_FLAT, (_NEW, "c.flat[slots] = new"), "c.flat[:int(slots[-1]) + 1].sum(0)", given=_SLOTS),
    "slots, copied": Structure(
        _FLAT, (_NEW, "c.flat.index_copy_(0, slots, new)"), "c.flat[:slots.max() + 1].mean(0) + c.flat[slots].sum()",
        given=_SLOTS,
    ),
    "slots, first": Structure(
        _FLAT, (_NEW, "at = slots[0].item()", "c.flat[at:at + n] = new"),
        "(c.flat * (torch.arange(S + 4) <= slots[-1])[:, None]).nan_to_num(0).sum(0)", given=_SLOTS,
    ),
    "convolution, shifted": Structure(
        _CONV, ("c.conv.copy_(torch.cat([c.conv[:, 1:], x.sum().float().expand(2, 1)], 1))",), "c.conv[:, -min(4, {e}):].sum(1)"
    ),
    "convolution, a ring": Structure(
        _CONV, ("c.conv[:, {s} % 4] = x.sum().float()",),
        "c.conv.roll(-({s} % 4) - 1, 1)[:, 1:].sum(1) + c.conv[:, :min({e}, 4)].sum(1)",
    ),
    "tokens": Structure(
        _TOKENS, ("c.tokens[{s}:{e}] = torch.arange(n) + {s}",), "c.tokens[:{e}].float().mean() + (c.tokens[:{e}] == {s}).sum()"
    ),
    "tokens, looked up": Structure(
        (*_TOKENS, "c.words = torch.arange(40.0).view(20, 2)"), ("c.tokens[{s}:{e}] = {s} % 5 + 1",),
        "torch.nn.functional.embedding(c.tokens[:{e}], c.words).sum(0) + torch.bincount(c.tokens[:{e}], minlength=8)[1]",
    ),
    "scales": Structure(
        _SCALED,
        (_NEW, "c.scale[{s}:{e}] = new.abs().amax(-1, True) / 127 + 0.01",
         "c.q[{s}:{e}] = (new / c.scale[{s}:{e}]).round().clamp(-127, 127).to(torch.int8)"),
        "(c.q[:{e}].float() * c.scale[:{e}]).sum(0)",
    ),
    "scales in the product": Structure(
        _SCALED,
        (_NEW, "most = new.abs().amax(-1, True) / 127 + 0.01",
         "c.scale[{s}:{e}], c.q[{s}:{e}] = most, (new / most).to(torch.int8)"),
        "(c.q[:{e}].float() @ torch.ones(2) * c.scale[:{e}, 0]).sum()",
    ),
    "a method": Structure(_FLAT, (_NEW, "seen = put(c.flat, new, {s}, {e})"), "seen.sum(0) + seen.amax(0)"),
    "rotated": Structure(
        (*_FLAT, "c.angles = torch.outer(torch.arange(S + 4.0), torch.tensor([1.0, 0.1]))"),
        (_NEW, "a = c.angles[{s}:{e}]", "c.flat[{s}:{e}] = new * a.cos() + new.flip(-1) * a.sin()"),
        "(c.flat[:{e}] @ (new * c.angles[{s}:{e}].cos()).T).softmax(0).square().sum()",
    ),
    "rotated when read": Structure(
        (*_FLAT, "c.angles = torch.outer(torch.arange(S + 4.0), torch.tensor([1.0, 0.1]))"),
        (_NEW, "c.flat[{s}:{e}] = new"), "(c.flat[:{e}] * c.angles[:{e}].cos()).sum(0)",
    ),
    "two in one memory": Structure(
        ("c.mem = new((2, S + 4, 2), torch.float32)", "c.one = c.mem[0]", "c.two = c.mem[1]"),
        (_NEW, "c.one[{s}:{e}] = new", "c.two[{s}:{e}] = -new"),
        "(c.one[:{e}] * c.two[:{e}]).sum(0) + c.mem[:, :{e}].sum((0, 1))",
    ),
    "halves of a row": Structure(
        ("c.mem = new((S + 4, 4), torch.float32)", "c.one, c.two = c.mem.chunk(2, -1)"),
        (_NEW, "c.one[{s}:{e}] = new", "c.two[{s}:{e}].copy_(new * 2)"), "(c.one[:{e}] * c.two[:{e}]).sum(0)",
    ),
    "accepted rows": Structure(
        (*_FLAT, "c.took = torch.zeros((), dtype=torch.int64)"),
        (_NEW, "c.flat[{s}:{e}] = new", "took = (new[:, 0] > 0).int().cumprod(0).sum()", "c.took.copy_(took)"),
        "c.flat[:{e}].sum(0) * (torch.arange({e}) < {s} + took).sum()",
    ),
}  # fmt: skip


def structure(sk: Sketch) -> None:
    """One of `STRUCTURES`, in some of the programs."""
    if not sk.choices.chance("structured", 0.3):
        return
    chosen = STRUCTURES[sk.choices.pick("structure", [*STRUCTURES])]
    for line in chosen.state:
        sk.keep(line)
    sk.seek += chosen.seek
    sk.given.update(chosen.given)
    sk.body += [line.format(s="s0", e="e0") for line in chosen.step]
    sk.outs.append(sk.let(chosen.out.format(s="s0", e="e0"), "o"))
    sk.after += chosen.after
