"""Attention over what is read, by hand or with the fused operator, under masks of every origin."""

from __future__ import annotations

from .sketch import Sketch, Val

CANONICAL = "HBTD"
HOW = {"sdpa": 6, "manual": 4, "einsum": 2, "float_softmax": 1, "linear": 1.5}
MASKS = {
    "none": 6, "causal": 3, "additive": 2, "triu": 1.5, "tril": 1, "buffer": 1.5, "argument": 1.5, "is_causal": 1.5,
    "is_causal_if_many": 1, "filled": 1.5, "is_causal_if_first": 1, "exact_argument": 0.5, "lengths": 1, "window": 1,
    "bias": 1, "causal_by_length": 1, "steps_cut": 1,
}  # fmt: skip
_FORMS = {
    "causal": "(torch.arange({e}) <= torch.arange({s}, {e})[:, None])",
    "causal_by_length": "(torch.arange({k}.shape[-2]) <= torch.arange({k}.shape[-2] - n, {k}.shape[-2])[:, None])",
    "additive": "torch.zeros(n, {e}, dtype={q}.dtype)"
    ".masked_fill(torch.arange({e}) > torch.arange({s}, {e})[:, None], float('-inf'))",
    "triu": "torch.full((n, {e}), float('-inf'), dtype={q}.dtype).triu({s} + 1)",
    "tril": "torch.ones(n, {e}, dtype=torch.bool).tril({s})", "buffer": "c.tri[{s}:{e}, :{e}]",
    "argument": "m[:, :{e}]", "exact_argument": "exact",
    "lengths": "(torch.arange({e}) < torch.arange({s} + 1, {e} + 1)[:, None])",
    "window": "((torch.arange({e}) - torch.arange({s}, {e})[:, None]).abs() < 3)",
    "bias": "(-(torch.arange({e}) - torch.arange({s}, {e})[:, None]).abs()).to({q}.dtype)",
    "steps_cut": "(torch.arange(S)[:{e}] <= torch.arange(S)[{s}:{e}, None])",
}  # fmt: skip


def attend(sk: Sketch, key: str, x: str, k: Val, v: Val, i: int, floats: str) -> None:
    """A result of attention from the new rows ``x`` to keys ``k`` and values ``v`` of layer ``i``."""
    pick = sk.choices
    how, mask = pick.weighed(f"{key}.how", HOW), pick.weighed(f"{key}.mask", MASKS)
    q = sk.let(_canonical(Val(x, sk.layout)), "q")
    kc, vc = sk.let(_canonical(k), "k"), sk.let(_canonical(v), "v")
    mask = mask if how != "linear" else "none"
    given, causal = _mask(sk, mask, i, q, kc)
    if how == "sdpa":
        rest = f", attn_mask={given}" if given else f", is_causal={causal}" if causal else ""
        rest += pick.weighed(f"{key}.scale", {"": 4, ", scale=0.3": 1})
        sk.outs.append(sk.let(f"sdpa({q}, {kc}, {vc}{rest})", "o"))
        return
    if how == "einsum":
        scores = sk.let(f"torch.einsum('...qd,...kd->...qk', {q}, {kc})", "w")
    else:
        scale = pick.pick(f"{key}.scale", ("", " * 0.5", f" / {kc}.shape[-2]"), (3, 2, 1))
        scores = sk.let(f"{q} @ {kc}.transpose(-1, -2){scale}", "w")
    if given and mask in ("additive", "triu", "bias"):
        scores = sk.let(f"{scores} + {given}", "w")
    elif given:
        scores = sk.let(f"{scores}.masked_fill(~{given}, float('-inf'))", "w")
    if how == "linear":
        sk.outs.append(sk.let(f"{scores} @ {vc}", "o"))
        return
    p = f"{scores}.softmax(-1)" if how != "float_softmax" else f"{scores}.float().softmax(-1).to(torch.{floats})"
    out = f"torch.einsum('...qk,...kd->...qd', {p}, {vc})" if how == "einsum" else f"{p} @ {vc}"
    sk.outs.append(sk.let(out, "o"))


def _mask(sk: Sketch, kind: str, i: int, q: str, k: str) -> tuple[str, str]:
    """The mask as an expression, or what `is_causal` is to be."""
    if kind == "none":
        return "", ""
    if kind.startswith("is_causal"):
        return "", {"is_causal": "True", "is_causal_if_many": "n > 1", "is_causal_if_first": f"s{i} == 0"}[kind]
    if kind == "buffer":
        sk.keep("c.tri = torch.ones(S, S, dtype=torch.bool).tril()")
    if kind == "argument":
        sk.given["m"] = "(torch.arange(S) != 1)[None]"
    if kind == "exact_argument":
        sk.given["exact"] = "torch.ones(n, p + n, dtype=torch.bool).tril(p)"
    if kind == "filled":
        fill = sk.let(f"torch.arange(e{i}) > torch.arange(s{i}, e{i})[:, None]", "m")
        return f"(~{fill})", ""
    return sk.let(_FORMS[kind].format(s=f"s{i}", e=f"e{i}", q=q, k=k), "m"), ""


def _canonical(value: Val) -> str:
    """Heads, batch, then rows and channels."""
    order = [d for d in CANONICAL if d in value.layout]
    code = value.code
    if order != list(value.layout):
        code = f"{code}.permute({', '.join(str(value.layout.index(d)) for d in order)})"
    if "D" not in order:
        code = f"{code}.unsqueeze(-1)"
    return code if len(order) + ("D" not in order) > 2 else f"{code}.unsqueeze(0)"
