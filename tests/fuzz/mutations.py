"""The ways in which kvfix is broken: what `mutants` tries, and the one table of the functions that they are in."""

from __future__ import annotations

import dataclasses

RULES = "fxpass.analysis.rules."
NAMES = {
    "sum": RULES + "reductions:sum_",
    "largest": RULES + "reductions:largest",
    "smallest": RULES + "reductions:smallest",
    "softmax": RULES + "reductions:softmax",
    "left": RULES + "reductions:left",
    "spread": RULES + "norms:_spread",
    "norm": RULES + "norms:vector_norm",
    "contract": RULES + "contractions:_contract",
    "einsum": RULES + "contractions:einsum",
    "attention": RULES + "attention:scaled_dot_product_attention",
    "from_front": RULES + "slices:within_extent",
    "rows": RULES + "slices:_rows",
    "sliced": RULES + "slices:_sliced",
    "transpose": RULES + "views:transpose",
    "permute": RULES + "views:permute",
    "unsqueeze": RULES + "views:unsqueeze",
    "select": RULES + "slices:select",
    "joined": RULES + "joins:_joined",
    "stored": RULES + "stores:_stored",
    "broadcast": RULES + "pointwise:broadcast",
    "arange": RULES + "factories:_arange",
    "sized": RULES + "factories:_made",
    "dead": "fxpass.graph.aliases:remove_dead",
    "stale": "fxpass.analysis.sites:SiteFinder._refuse_stale",
    "mean": "fxpass.rewriting.nodes.builder:Builder.mean",
    "valid": "fxpass.rewriting.nodes.builder:Builder.valid",
    "mask": "fxpass.rewriting.nodes.builder:Builder.attention_mask",
    "triangle": "fxpass.rewriting.nodes.builder:Builder.triangle",
    "filled": "fxpass.rewriting.nodes.builder:Builder.filled",
    "slots": "fxpass.rewriting.edits.writes:_slots",
    "gathered": "fxpass.rewriting.edits.writes:_gather",
    "copied": "fxpass.rewriting.edits.writes:_copy",
    "write": "fxpass.rewriting.edits.writes:rewrite_write",
    "read": "fxpass.rewriting.edits.reads:rewrite_read",
    "started": "fxpass.rewriting.edits.reads:start_extent",
    "leaf": "fxpass.rewriting.nodes.twins:Twins._leaf",
    "taken": "fxpass.rewriting.nodes.twins:Twins._taken",
    "made": "fxpass.rewriting.nodes.twins:Twins._make",
    "scalar": "fxpass.rewriting.edits.scalars:_twin",
    "scalar_arange": "fxpass.rewriting.edits.scalars:_arange",
    "roll": "fxpass.rewriting.edits.scalars:_roll",
    "mirror": "fxpass.index_tensors.mirror:values",
    "depends": "fxpass.execute.partition.split:dependencies",
}  # fmt: skip


HINTS = {
    "sum": r"\.sum\(\d\)", "largest": r"\.a?max\(\d", "smallest": r"\.a?min\(\d", "softmax": r"softmax",
    "left": r"(amax|mean|sum)\(\d(, keepdim=True)?\)\.(sum|softmax|mean)", "spread": r"\.(var|std)\(",
    "norm": r"norm\(", "contract": r"softmax\(-1\) @|w\d+ @", "einsum": r"einsum", "attention": r"sdpa\(.*, ",
    "from_front": r"-[2-4]:|-1:\]", "rows": r"e\d\]\[.*-\d:",
    "sliced": r"e\d\]\[[:, ]*1:\]", "transpose": r"transpose\(", "permute": r"permute\(|movedim",
    "unsqueeze": r"unsqueeze\(", "select": r"select\(\d, 0\)\.sum\(\d", "joined": r"torch\.cat\(\[",
    "stored": r"\.mul_\(0\.5\)|masked_fill_\(", "broadcast": r"\.masked_fill\(~|maximum|exact",
    "arange": r"torch\.arange\(e\d\)", "sized": r"torch\.(ones|full|zeros)\([^)]*e\d", "dead": r"] = x",
    "stale": r"\.clone\(\)|s\d:e\d\]$|narrow", "mean": r"\.mean\(\d",
    "valid": r"\.sum\(\d\)|softmax", "mask": r"attn_mask=m|is_causal=True|is_causal=n", "triangle": r"tri[lu]\(s",
    "filled": r"\.sum\(\d\)", "slots": r"\] = x", "gathered": r"table\[s0\]|\[[:, ]*s0\]|select\(\d, s0",
    "copied": r"float(16|64)\)[\s\S]*dtype=torch.float32", "write": r"\+= x|\*= 2|add_\(x",
    "read": r"a\d+:e\d|s\d:\]|1:e\d", "started": r"a\d+:e\d|s\d:\]|1:e\d", "leaf": r"c\.idx|idx",
    "made": r"s\d = .*e\d = |arithmetic|s0 \+ n", "scalar": r"int32\) \+ s", "scalar_arange": r"arange\(s\d, e\d\)",
    "roll": r"\.roll\(s0", "mirror": r"(numpy\(\)|\.data)\.fill[\s\S]*before='(rewind|reset|skip)'",
    "depends": r"series|sort\(|topk|median|cumprod|flip\(",
}  # fmt: skip
"""What stands in the text of each program that can run a function."""


@dataclasses.dataclass(frozen=True)
class Mutant:
    """In the function called ``name`` in `NAMES`, ``old`` becomes ``new``; ``hint`` in the place of the function's own."""

    what: str
    name: str
    old: str
    new: str
    hint: str = ""


MUTANTS = [
    Mutant("sum sees the invalid rows", "sum", "flow.fill(node, node.args[0], dims,", "str("),
    Mutant("sum fills with 1", "sum", "in _PRODUCTS else 0", "in _PRODUCTS else 1"),
    Mutant("amax fills with the largest", "largest", "largest=False", "largest=True"),
    Mutant("amin fills with the smallest", "smallest", "largest=True", "largest=False"),
    Mutant("softmax fills with 0", "softmax", 'float("-inf")', "0.0"),
    Mutant("a reduced dim stays counted", "left", "d - sum(r < d for r in dims)", "d"),
    Mutant(
        "mean counts a row more",
        "mean",
        "self.count(x, dims, extents), wide",
        "self.call(aten.add.Tensor, self.count(x, dims, extents), 1), wide",
    ),
    Mutant("var forgets the correction", "spread", "b.count(x, dims, counted), correction", "b.count(x, dims, counted), 0"),
    Mutant(
        "var sums the invalid squares",
        "spread",
        "b.filled(b.call(aten.mul.Tensor, away, away), value, counted, 0)",
        "b.call(aten.mul.Tensor, away, away)",
    ),
    Mutant("norm sees the invalid rows", "norm", "flow.fill(node, x, dims,", "str("),
    Mutant("a product's left side is not cleaned", "contract", "flow.fill(node, a, [a_dim], 0)", "pass"),
    Mutant("a product's right side is not cleaned", "contract", "flow.fill(node, b, [b_dim], 0)", "pass"),
    Mutant("einsum does not clean", "einsum", "flow.fill(node, operand, [dim], 0)", "pass"),
    Mutant("attention does not clean K", "attention", "flow.fill(node, k, [rank - 2], 0)", "pass"),
    Mutant("attention does not clean V", "attention", "flow.fill(node, v, [rank - 2], 0)", "pass"),
    Mutant(
        "attention forgets is_causal",
        "attention",
        'bool(given.get("is_causal", False)))\n    ',
        "False)\n    ",
        hint=r"is_causal=(True|n)",
    ),
    Mutant(
        "is_causal with < for <=",
        "mask",
        "aten.le.Tensor, columns",
        "aten.lt.Tensor, columns",
        hint=r"is_causal=(True|n)",
    ),
    Mutant(
        "a bool mask forgets what is valid",
        "mask",
        "return self.call(aten.logical_and.default, mask, seen)",
        "return mask",
        hint=r"(= m\[:, :e\d\]|abs\(\) < 3\))\n.*attn_mask=m",  # masks that show columns past the end
    ),
    Mutant(
        "a float mask forgets what is valid",
        "mask",
        "return self.call(aten.where.self, seen, mask, hidden)",
        "return mask",
        hint=r"(triu|-inf|abs\(\)\)\.to).*\n.*attn_mask=m",
    ),
    Mutant("valid with <= for <", "valid", "aten.lt.Tensor", "aten.le.Tensor"),
    Mutant(
        "filled where valid",
        "filled",
        "self.bits(x, like.dtype), other)",
        "other, self.bits(x, like.dtype))",
    ),
    Mutant(
        "a write is a row too early",
        "slots",
        "return b.call(aten.add.Tensor, steps, b.twin(site.start, site.device))",
        "return b.call(aten.add.Tensor, b.call(aten.sub.Tensor, steps, 1), b.twin(site.start, site.device))",
    ),
    Mutant(
        "a write is at the front",
        "slots",
        "return b.call(aten.add.Tensor, steps, b.twin(site.start, site.device))",
        "return steps",
    ),
    Mutant("a gathered row keeps its dim", "gathered", "if site.squeezed else rows", "if False else rows"),
    Mutant("a write does not cast", "copied", "if value.dtype != target.dtype:", "if False:"),
    Mutant(
        "a write does not broadcast", "copied", "if site.squeezed or [", "if site.squeezed and ["
    ),
    Mutant(
        "what is done to rows is not written back",
        "write",
        "_write(site, slots, _unsqueezed(site, rows, b.at(writer.next)), b)",
        "pass",
    ),
    Mutant(
        "a window starts at the front",
        "read",
        "aten.arange.default, size, device=site.device), b.twin(site.start, site.device)",
        "aten.arange.default, size, device=site.device), 0",
    ),
    Mutant(
        "a window is as long as its end",
        "started",
        "derived(operator.sub, (end, site.start), site.node)",
        "end",
    ),
    Mutant(
        "a window's last slots are not clamped",
        "read",
        "slots = b.call(aten.clamp_max.default, steps, last)",
        "slots = steps",
    ),
    Mutant(
        "a negative bound is off by one",
        "from_front",
        "bound = flow.derive(node, operator.add, extent.length, bound)",
        "bound = flow.derive(node, operator.add, extent.length, bound - 1)",
    ),
    Mutant("rows of a slice come from the front", "rows", "b.twin(start,", "b.twin(0,"),
    Mutant(
        "a slice of a slice keeps the length",
        "sliced",
        "length = end if equal(start, 0) else flow.derive(node, operator.sub, end, start)",
        "length = end",
    ),
    Mutant("transpose leaves the extent", "transpose", "{a: b, b: a}.get(d, d)", "d"),
    Mutant("permute goes the other way", "permute", "order.index(d)", "order[d]"),
    Mutant("unsqueeze forgets its own place", "unsqueeze", "d >= dim", "d > dim"),
    Mutant("select drops no dim", "select", "d - (d > dim)", "d"),
    Mutant("cat closes the gap a row late", "joined", "aten.ge.Tensor", "aten.gt.Tensor"),
    Mutant("a write to a part reaches the rest", "stored", "new = b.call(aten.where.self", "b.call(aten.where.self"),
    Mutant("operands of another size pass", "broadcast", "check_aligned(node, flow, operand, [own])", "pass"),
    Mutant(
        "arange forgets its start",
        "arange",
        "return steps if equal(start, 0) else",
        "return steps if True else",
        hint=r"arange\(2, ",
    ),
    Mutant("a tensor made to size keeps it", "sized", "b.full(out[d]) if d in out else s", "s"),
    Mutant(
        "writes without users are dropped",
        "dead",
        "not node.users and not is_impure(node)",
        "not node.users and node.op == 'call_function'",
    ),
    Mutant(
        "a stale slice passes",
        "stale",
        "raise Refusal(reasons.STALE)",
        "pass",
        hint=r"r\d+ = ",
    ),
    Mutant(
        "a returned view passes",
        "stale",
        "raise Refusal(reasons.RETURNED_VIEW)",
        "pass",
        hint=r"o\d+ = \S+\[[:, .]*s\d:e\d\]\n",
    ),
    Mutant("tril and triu keep other diagonals", "triangle", "self.twin(diagonal, device)", "0"),
    Mutant(
        "the snapshot is forgotten",
        "leaf",
        "copy = self._call(aten.clone.default, (tensor,), self._entry)",
        "copy = tensor",
        hint=r"(idx|pos).*(\+= n|add_\(n\)|copy_|= e\d)[\s\S]*k0\[",
    ),
    Mutant("another element of the index tensor", "taken", "origin.index", "0", hint=r"c\.idx\[0\] \+= 1"),
    Mutant("arithmetic on positions is lost", "made", "return self._call(form, tuple(twins), place)", "return twins[0]"),
    Mutant("a number promotes a 0-d tensor", "scalar", "if tensor.dim() == 0 and", "if False and"),
    Mutant(
        "a range forgets its start",
        "scalar_arange",
        "return b.call(aten.add.Tensor, times(b, steps, step), b.twin(start, value.device))",
        "return steps",
    ),
    Mutant("roll goes the other way", "roll", "aten.sub.Tensor", "aten.add.Tensor", hint=r"x\.roll\(s0"),
    Mutant(
        "the mirror trusts what it holds",
        "mirror",
        "is_same = loaded == entry.values",
        "is_same = True",
    ),
    Mutant(
        "a write does not wait for earlier reads", "depends", "deps += reads.pop(memory, [])", "reads.pop(memory, [])"
    ),
    Mutant("a read does not wait for the write", "depends", "deps.append(last_write[memory])", "pass"),
]
