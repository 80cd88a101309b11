"""What part of a cache is read, and how that is written."""

from __future__ import annotations

from .sketch import Sketch, Val, cut

FORMS = {
    "prefix": 14, "narrow": 3, "ellipsis": 1, "window": 2, "chained": 1, "tail": 1, "last": 1, "new": 1.5,
    "whole": 0.7, "old": 1, "all_but_first": 1, "narrow_new": 0.7, "row": 1, "last_row": 1, "select": 1,
    "from_start": 0.7, "rounded": 0.7, "ring": 0.7, "negative": 0.5, "every_other": 0.3, "indexed": 0.7,
    "split": 0.4, "half": 0.7, "fixed_chunk": 0.7, "all_but_last": 0.7, "row_in_middle": 0.7, "capped": 0.7,
    "transposed": 1,
}  # fmt: skip


def read(sk: Sketch, key: str, buf: str, i: int) -> Val:
    """A part of ``buf``; without T where a single row is read."""
    lay, t, s, e = sk.layout, sk.layout.index("T"), f"s{i}", f"e{i}"
    form = sk.choices.weighed(f"{key}.form", FORMS)

    def sliced(bounds: str, rows: str) -> Val:
        return Val(f"{buf}[{cut(lay, bounds)}]", lay, rows)

    def row(code: str) -> Val:
        return Val(code, lay.replace("T", ""))

    if form == "transposed":
        a = 0 if t else len(lay) - 1
        other = list(lay)
        other[t], other[a] = other[a], other[t]
        return Val(f"{buf}.transpose({a}, {t})[{cut(''.join(other), f':{e}')}]", "".join(other), e)
    w = sk.choices.pick(f"{key}.window", (3, 2, 4))
    if form == "window":
        start = sk.let(f"max(0, {e} - {w})", "a")
        return sliced(f"{start}:{e}", f"({e} - {start})")
    if form == "ring":
        end = sk.let(f"min({e}, S)", "a")
        return sliced(f":{end}", end)
    if form == "rounded":
        how = sk.choices.pick(f"{key}.round", (f"-(-{e} // 4) * 4", f"({e} + 3) // 4 * 4", f"math.ceil({e} / 4) * 4"))
        end = sk.let(f"min(S, {how})", "a")
        return sliced(f":{end}", end)
    if form == "half":
        end = sk.let(f"{e} // 2", "a")
        return sliced(f":{end}", end)
    if form == "capped":
        end = sk.let(f"min({e}, {w + 2})", "a")
        return sliced(f":{end}", end)
    forms = {
        "prefix": lambda: sliced(f":{e}", e),
        "narrow": lambda: Val(f"{buf}.narrow({t}, 0, {e})", lay, e),
        "ellipsis": lambda: Val(f"{buf}[{cut(lay, f':{e}', True)}]", lay, e),
        "chained": lambda: Val(f"{buf}[{cut(lay, f':{e}')}][{cut(lay, '1:')}]", lay, f"({e} - 1)"),
        "tail": lambda: Val(f"{buf}[{cut(lay, f':{e}')}][{cut(lay, f'-{w}:')}]", lay, f"min({e}, {w})"),
        "last": lambda: Val(f"{buf}[{cut(lay, f':{e}')}][{cut(lay, '-1:')}]", lay, "1"),
        "new": lambda: sliced(f"{s}:{e}", "n"),
        "whole": lambda: Val(buf, lay, "S"),
        "old": lambda: sliced(f":{s}", s),
        "all_but_first": lambda: sliced(f"1:{e}", f"({e} - 1)"),
        "narrow_new": lambda: Val(f"{buf}.narrow({t}, {s}, n)", lay, "n"),
        "row": lambda: row(f"{buf}[{cut(lay, s)}]"),
        "last_row": lambda: row(f"{buf}[{cut(lay, f'{e} - 1')}]"),
        "select": lambda: row(f"{buf}.select({t}, {s})"),
        "from_start": lambda: sliced(f"{s}:", f"(S - {s})"),
        "negative": lambda: sliced(f"-{e}:", e),
        "every_other": lambda: sliced(f":{e}:2", f"(({e} + 1) // 2)"),
        "indexed": lambda: Val(f"{buf}.index_select({t}, torch.arange({e}))", lay, e),
        "split": lambda: Val(f"{buf}.split([{e}, S - {e}], {t})[0]", lay, e),
        "fixed_chunk": lambda: sliced(f"{e} - 1:{e}", "1"),
        "all_but_last": lambda: sliced(f":{e} - 1", f"({e} - 1)"),
        "row_in_middle": lambda: row(f"{buf}[{cut(lay, f'{e} // 2')}]"),
    }
    return forms[form]()
