"""How rows go into a cache, and what else is done to it in place."""

from __future__ import annotations

from .sketch import Sketch, cut
from .stores import Store

FORMS = {
    "assign": 10, "copy_": 2, "narrow": 2, "index_copy": 1, "index_copy_shifted": 1, "index_put": 1, "scatter": 0.7,
    "transposed": 1, "add_": 1, "iadd": 1, "zero_then_add": 0.7, "select": 1, "row": 0.7, "sliced_twice": 0.5,
    "ellipsis": 1, "where": 0.7, "slice_scatter": 0.5, "clamped_ring": 0.7, "shift": 0.7, "narrow_of_view": 0.7,
    "per_row_put": 0.4, "unflattened": 0.4, "cat": 0.3, "bits": 0.7,
}  # fmt: skip
EXTRAS = {
    "none": 30, "decay": 1, "zero_tail": 1, "copy_row": 1, "roll": 1, "permute": 1, "flip": 1, "fill_before": 0.7,
    "mul_new": 1, "write_again": 1, "first_row": 0.7, "shift_rows": 0.7, "clamp_all": 0.5, "masked_fill": 0.7,
}  # fmt: skip
CASTING = ("assign", "ellipsis", "copy_", "narrow", "narrow_of_view", "row", "select", "transposed", "sliced_twice")
"""Forms that cast what is written themselves."""


def write(sk: Sketch, key: str, buf: str, attribute: str, rows: str, i: int, store: Store) -> None:
    """The new ``rows`` of layer ``i`` go into ``buf``; ``attribute`` is where the cache holds it, if as a whole."""
    lay, r, s, e = sk.layout, store.rows(rows), f"s{i}", f"e{i}"
    form = sk.choices.weighed(f"{key}.form", FORMS)
    added, replaced = form in ("add_", "iadd", "zero_then_add"), form in ("slice_scatter", "cat")
    if added and not store.is_float or replaced and not attribute:
        form = "assign"
    if form in ("where",) and store.dtype not in ("float32", "float64"):
        form = "copy_"
    if form == "bits" and not store.bits:
        form = "assign"
    if form in CASTING and store.casts and sk.choices.chance(f"{key}.casts", 0.6):
        r = rows
    t, at = lay.index("T"), cut(lay, f"{s}:{e}")
    add = sk.body.append
    if form == "assign":
        add(f"{buf}[{at}] = {r}")
    elif form == "ellipsis":
        add(f"{buf}[{cut(lay, f'{s}:{e}', True)}] = {r}")
    elif form == "copy_":
        add(f"{buf}[{at}].copy_({r})")
    elif form == "narrow":
        add(f"{buf}.narrow({t}, {s}, n).copy_({r})")
    elif form == "index_copy":
        add(f"{buf}.index_copy_({t}, torch.arange({s}, {e}), {r})")
    elif form == "index_copy_shifted":
        add(f"{buf}.index_copy_({t}, torch.arange(n) + {s}, {r})")
    elif form == "index_put":
        add(f"{buf}[{cut(lay, f'torch.arange({s}, {e})')}] = {r}")
    elif form == "scatter":
        shape = ", ".join("-1" if d == "T" else "1" for d in lay)
        add(f"{buf}.scatter_({t}, torch.arange({s}, {e}).view({shape}).expand_as({rows}), {r})")
    elif form == "transposed":
        a = 0 if t else len(lay) - 1
        other = list(lay)
        other[t], other[a] = other[a], other[t]
        add(f"{buf}.transpose({a}, {t})[{cut(''.join(other), f'{s}:{e}')}] = {r}.transpose({a}, {t})")
    elif form in ("add_", "iadd", "zero_then_add"):
        sk.accumulates |= form == "add_"
        if form != "add_":
            add(f"{buf}[{at}] = 0")
        add(f"{buf}[{at}].add_({r})" if form != "iadd" else f"{buf}[{at}] += {r}")
    elif form == "select":
        add(f"{buf}.select({t}, {s}).copy_({r}.select({t}, 0))")
    elif form == "row":
        add(f"{buf}[{cut(lay, s)}] = {r}[{cut(lay, '0')}]")
    elif form == "sliced_twice":
        add(f"{buf}[{cut(lay, f':{e}')}][{cut(lay, f'{s}:')}] = {r}")
    elif form == "where":
        shape = ", ".join("-1" if d == "T" else "1" for d in lay)
        add(f"{buf}.copy_(torch.where((torch.arange(S) == {s}).view({shape}), {r}[{cut(lay, ':1')}], {buf}))")
    elif form in ("slice_scatter", "cat"):
        sk.assigns = True
        whole = f"torch.slice_scatter({buf}, {r}, {t}, {s}, {e})"
        if form == "cat":
            whole = f"torch.cat([{buf}[{cut(lay, f':{s}')}], {r}, {buf}[{cut(lay, f'{e}:')}]], {t})"
        add(f"{attribute} = {whole}")
        if attribute != buf:
            add(f"{buf} = {attribute}")
    elif form == "clamped_ring":
        add(f"j = {s} % S")
        add(f"{buf}[{cut(lay, 'j:j + 1')}] = {r}[{cut(lay, ':1')}]")
    elif form == "shift":
        add(f"{buf}.copy_({buf}.roll(-n, {t}))")
        add(f"{buf}[{cut(lay, '-n:')}] = {r}")
    elif form == "narrow_of_view":
        add(f"{buf}.unsqueeze(0).narrow({t + 1}, {s}, n).copy_({r})")
    elif form == "bits":
        add(f"{buf}.view(torch.{store.bits})[{at}] = {r}.view(torch.{store.bits})")
    elif form == "per_row_put":
        if lay[:2] == "BT":
            add(f"{buf}[torch.arange({rows}.shape[0]), torch.full(({rows}.shape[0],), {s})] = {r}[:, 0]")
        else:
            add(f"{buf}[{at}] = {r}")
    elif form == "unflattened":
        if lay[-1] == "D" and sk.sizes["D"] % 2 == 0:
            view = f"unflatten(-1, (2, {sk.sizes['D'] // 2}))"
            add(f"{buf}.{view}[{at}] = {r}.{view}")
        else:
            add(f"{buf}[{at}] = {r}")


def extra(sk: Sketch, key: str, buf: str, i: int, store: Store) -> None:
    """What else happens to ``buf`` in place, if anything."""
    lay, t, s, e = sk.layout, sk.layout.index("T"), f"s{i}", f"e{i}"
    kind = sk.choices.weighed(f"{key}.extra", EXTRAS)
    if kind in ("decay", "mul_new", "clamp_all", "masked_fill") and not store.is_float:
        return
    new, old = cut(lay, f"{s}:{e}"), cut(lay, f":{e}")
    line = {
        "none": "",
        "decay": f"{buf}[{old}].mul_(0.5)",
        "zero_tail": f"{buf}[{cut(lay, f'{e}:')}] = 0",
        "copy_row": f"{buf}[{new}] = {buf}[{cut(lay, ':n')}].clone()",  # without it, rows that overlap are undefined
        "roll": f"{buf}.copy_({buf}.roll(-1, {t}))",
        "permute": f"{buf}.copy_({buf}.index_select(0, torch.arange({buf}.shape[0] - 1, -1, -1)))",
        "flip": f"{buf}.copy_({buf}.flip({t}))",
        "fill_before": f"{buf}[{cut(lay, f':{s}')}].fill_(0.5)",
        "mul_new": f"{buf}[{new}] *= 2",
        "write_again": f"{buf}[{new}] = {buf}[{new}].clone()",
        "first_row": f"{buf}[{cut(lay, ':1')}] = {buf}[{cut(lay, f'{s}:{s} + 1')}]",
        "shift_rows": f"{buf}[{cut(lay, '1:')}] = {buf}[{cut(lay, ':-1')}].clone()",
        "clamp_all": f"{buf}.clamp_(-2, 2)",
        "masked_fill": f"{buf}[{old}].masked_fill_({buf}[{old}] > 1, 0.25)",
    }[kind]
    if line:
        sk.body.append(line)
