"""What is done with a part of a cache: pointwise ops and views on the way, then what the moving axis ends in."""

from __future__ import annotations

from .sketch import Sketch, Val, cut

POINTWISE = {
    "{v}": 10, "{v} * 2": 1, "{v}.relu()": 1, "{v}.exp()": 1, "{v} + 1": 1, "torch.where({v} > 0, {v}, 0.5)": 1,
    "{v}.masked_fill({v} < 0, 1.0)": 1, "{v}.clamp(-1, 1)": 0.7, "{v}.contiguous()": 1, "{v}.clone()": 0.7,
    "{v} / ({v}.abs() + 1)": 0.7, "{v} - {v}.mean({t}, keepdim=True)": 0.7, "{v}.nan_to_num(2.0)": 0.7,
    "torch.nn.functional.dropout({v}, 0.0)": 0.3, "{v}.double()": 0.5, "{v} - {v}.amax({t}, keepdim=True)": 0.5,
    "1 / {v}": 0.5, "{v} * {v}.softmax({t})": 0.5, "{v}.tanh().neg()": 0.5, "{v} % 0.75": 0.5,
    "{v} * torch.arange({v}.shape[{t}]).view({ones})": 1,
    "{v} * torch.arange(2, {v}.shape[{t}] + 2).view({ones})": 0.7,
    "{v} + torch.ones({v}.shape[{t}]).view({ones})": 0.5, "torch.zeros_like({v}) + {v}": 0.5,
    "{v} / {v}.shape[{t}]": 0.7,
}  # fmt: skip
ENDS = {
    "{v}.sum({t})": 5, "{v}.amax({z}).sum({tz})": 1.5, "{v}.select({z}, 0).sum({tz})": 0.7,
    "{v}.mean({z}).softmax({tz}).amax({tz})": 1, "{v}.sum({z}, keepdim=True).mean({t})": 0.7, "{v}.mean({t})": 3,
    "{v}.amax({t})": 2, "{v}.amin({t})": 1, "{v}.var({t})": 1, "{v}.softmax({t}).square().sum({t})": 2,
    "{v}.std({t}, correction=0)": 1, "{v}.log_softmax({t}).amin({t})": 0.5, "{v}.logsumexp({t})": 1,
    "{v}.cumsum({t}).amax({t})": 1, "{v}.cumsum({t}).sum({t})": 0.5, "{v}.norm(dim={t})": 1,
    "torch.linalg.vector_norm({v}, 1, {t})": 0.5, "torch.linalg.vector_norm({v}, float('inf'), {t})": 0.5,
    "{v}.argmax({t})": 1, "{v}.argmin({t})": 0.5, "{v}.max({t}).values": 1, "{v}.min({t}).indices": 0.5,
    "({v} > 0).any({t})": 1, "({v} > -1).all({t})": 1, "{v}.sum()": 1, "{v}.mean()": 1, "{v}.max()": 0.5,
    "{v}.std()": 0.5, "{v}.min()": 0.5, "{v}.var(({all}))": 0.5, "{v}.prod({t})": 0.3, "{v}.nansum({t})": 0.3,
    "{v}.count_nonzero({t})": 0.3, "{v}.sort({t}).values.mean({t})": 0.2, "{v}.topk(1, {t}).values": 0.2,
    "{v}.flip({t}).cumsum({t}).mean({t})": 0.3, "{v}.roll(1, {t}).cumsum({t}).mean({t})": 0.2,
    "{v}.select({t}, 0)": 0.4, "{v}.select({t}, -1)": 0.4, "{v}.cummax({t}).values.sum({t})": 0.2,
    "{v}.cumprod({t}).sum({t})": 0.2, "{v}.diff(dim={t}).sum({t})": 0.2,
    "torch.nn.functional.pad({v}.movedim({t}, -1), (0, 1)).sum(-1)": 0.3,
    "torch.nn.functional.pad({v}.movedim({t}, -1), (1, 0), value=3.0).amax(-1)": 0.3, "{v}.median({t}).values": 0.2,
    "{v}.unbind({t})[-1]": 0.2, "{v}.aminmax(dim={t})[1]": 0.2, "torch.cat([{v}, {x}], {t}).sum({t})": 1,
    "torch.cat([{x}, {v}], {t}).amax({t})": 0.7, "torch.cat([{v}, {v}], {t}).mean({t})": 0.3,
    "torch.stack([{v}, {v} * 2], 0).sum({t} + 1)": 0.5, "torch.stack([{v}, {v}], -1).sum({t})": 0.3,
    "torch.einsum('{l},{l}->{r}', {v}, {v})": 1.5, "torch.einsum('{l},{m}->{rm}', {v}, {x})": 1,
    "({v} * {v}).sum({t}) / {v}.shape[{t}]": 1, "{v}.sum({t}, keepdim=True)": 1,
    "{v}.mean({t}, keepdim=True) + {x}": 1, "{v}.index_select({t}, torch.tensor([0]))": 0.7,
    "{v}.flatten().sum()": 0.5, "{v}.unsqueeze(0).sum({t} + 1)": 1, "{v}.transpose(0, {t}).sum(0)": 1,
    "{v}.movedim({t}, 0).mean(0)": 0.7, "{v}.expand(2, *{v}.shape).sum({t} + 1)": 0.7,
    "torch.nn.functional.layer_norm({v}, {v}.shape[-1:]).sum({t})": 0.7,
    "{v}.repeat_interleave(2, {o}).sum({t})": 0.5,
    "{v}.movedim({t}, -1) @ {v}.movedim({t}, -1).transpose(-1, -2)": 0.7, "{v}.chunk(2, {o})[0].sum({t})": 0.5,
    "{v}": 0.3, "({v} * 2).movedim({t}, 0)": 0.2, "{v}.sum({o})": 0.2, "torch.tril({v}).sum({t})": 0.3,
    "{v}.gather({t}, torch.zeros_like({v}[{first}], dtype=torch.int64))": 0.5, "{v}.repeat({times}).sum({t})": 0.4,
    "{v}.unflatten(-1, (1, -1)).sum({t})": 0.4,
    "torch.nn.functional.softmax({v}, {t}, dtype=torch.float32).mul({v}).sum({t})": 0.7,
    "{v}[{minus}].sum({t})": 0.7, "{v}[{middle}].mean({t})": 0.5, "(({v} > 0) & ({v} < 1)).sum({t})": 0.5,
    "torch.where({v} > 0, {v}, float('nan')).nanmean({t})": 0.2,
    "torch.bucketize({v}, torch.tensor([-1.0, 0.0, 1.0], dtype={v}.dtype)).sum({t})": 0.3,
    "{v}.to(torch.int32).sum({t})": 0.3, "{v}.abs().int().amax({t})": 0.3,
}  # fmt: skip
ROW_ENDS = {"{v}": 4, "{v} * 2": 2, "{v}.sum()": 1, "{v} + {x}": 1, "{v}.clone()": 1}
PAIRS = {"(({a}) * ({b})).sum({t})": 2, "torch.cat([{a}, {b}], {t}).sum({t})": 1, "({a}).softmax({t}).mul({b}).sum({t})": 1,
         "torch.where({a} > {b}, {a}, {b}).mean({t})": 1, "torch.maximum({a}, {b}).amax({t})": 1}  # fmt: skip


def consume(sk: Sketch, key: str, value: Val, x: str) -> None:
    """A result made of ``value``; ``x`` are the step's new rows in the layout of a cache."""
    pick = sk.choices
    if "T" not in value.layout:
        end = pick.weighed(f"{key}.row_end", ROW_ENDS)
        sk.outs.append(sk.let(end.format(v=f"({value.code})", x=f"{x}.sum()"), "o"))
        return
    for i in range(pick.pick(f"{key}.pointwise", (0, 1, 2), (5, 3, 1))):
        form = pick.weighed(f"{key}.pointwise{i}", POINTWISE)
        if form != "{v}":
            value = value.but(sk.let(_filled(form, value, x)))
    end = pick.weighed(f"{key}.end", ENDS)
    if "{z}" in end and len(value.layout) < 2:
        end = "{v}.sum({t})"
    if "{x}" in end and value.layout != sk.layout:
        end = "{v}.sum({t})"
    if end == "torch.einsum('{l},{m}->{rm}', {v}, {x})" and len(value.layout) < 2:
        end = "{v}.sum({t})"
    sk.outs.append(sk.let(_filled(end, value, x), "o"))


def pair(sk: Sketch, key: str, a: Val, b: Val) -> None:
    """A result made of two parts of the same layout, of as many rows or not."""
    if a.layout == b.layout and "T" in a.layout:
        code = sk.choices.weighed(f"{key}.pair", PAIRS).format(a=a.code, b=b.code, t=a.t)
        sk.outs.append(sk.let(code, "o"))


def _filled(form: str, value: Val, x: str) -> str:
    lay, t = value.layout.lower(), value.t
    ones = ", ".join("-1" if d == "T" else "1" for d in value.layout)
    return form.format(
        v=value.code, x=x, t=t, ones=ones, l=lay, r=lay.replace("t", ""), all=", ".join(map(str, range(len(lay)))) + ",",
        m=lay.replace("t", "q"), rm=lay.replace("t", "") + "q", o=(t + 1) % len(lay), first=cut(value.layout, ":1"),
        z=0 if t else len(lay) - 1, tz=t - 1 if t else t, minus=cut(value.layout, "-2:"), middle=cut(value.layout, "1:3"),
        times=", ".join("1" if d == "T" else "2" for d in value.layout),
    )  # fmt: skip
