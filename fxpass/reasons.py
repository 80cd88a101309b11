"""Why kvfix does not do something: one list, from which messages and docs/troubleshooting.md are made.

    raise Refusal(NO_RULE, op=node.target)        ->        "KV101 no rule for aten.mode"

The hundreds tell what a reason is about: 0 a graph as a whole, 1 a slice or a number, 2 what stays outside of the static core,
3 how many graphs there are, 4 compilation, recordings and copies, 5 torch's precompile cache, 6 this torch, 7 the check.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple


class Reason(NamedTuple):
    """One reason.

    id: "KV101"; it stands in front of every message.
    says: the message, with fields in braces.
    do: what a user can do about it.
    concerns: "speed" where numbers are eager's all the same, "numbers" where they are not.
    """

    id: str
    says: str
    do: str
    concerns: Literal["speed", "numbers"] = "speed"

    def text(self, **fields: object) -> str:
        """The message: id, and ``says`` with its fields. An operator's overload is named if it is not the default one."""
        return _DEFAULT.sub(r"\1", f"{self.id} {self.says.format(**fields)}")

    @property
    def advice(self) -> str:
        """``do`` as plain text, without its links."""
        return _LINK.sub(r"\1", self.do)


_DEFAULT = re.compile(r"\b(\w+\.\w+)\.default\b")
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
REASONS: dict[str, Reason] = {}


def _reason(id: str, says: str, do: str, concerns: Literal["speed", "numbers"] = "speed") -> Reason:
    REASONS[id] = Reason(id, says, do, concerns)
    return REASONS[id]


def of(text: str) -> Reason | None:
    """The reason that the message ``text`` was made of; None for any other text."""
    return REASONS.get(text.partition(" ")[0])


_REPORT = "This is a fault of kvfix: please report it, with what the log shows and `fxpass.repro(report)`."

# A graph as a whole runs as it came
GRAD = _reason("KV001", "grad is enabled and {what} requires grad", "Call the model under `torch.no_grad()`.")
AUTOCAST = _reason(
    "KV002",
    "autocast is enabled {where}",
    "Convert the model to the dtype (`model.to(torch.bfloat16)`) in place of autocast. A region that is switched off is fine.",
)
TRANSFORM = _reason(
    "KV003",
    "a transform of torch.func, or torch.vmap, is applied: {where}",
    "Write out the batch dimension, or compile what is inside of the transform by itself.",
)
OWN_GRAPHS = _reason(
    "KV004",
    "an operator that runs functions of its own, such as torch.cond: {where}",
    "Use `torch.where` in place of `torch.cond`, or keep the operator outside of what is compiled.",
)
DATA = _reason(
    "KV005",
    "an operator takes a tensor in the place of a number, and needs to know its value: {where}",
    "Read the number first, with `.item()` or `int(t)`: Dynamo then guards on it.",
)
UNSEEN = _reason(
    "KV006",
    "a tensor is used that the graph is not given: {where}",
    "Hand the tensor to the model as an argument, or keep it as a parameter, a buffer or an attribute.",
)
BROKEN = _reason("KV007", "the rewritten graph does not pass its check: {what}", _REPORT)
PASS_FAILED = _reason("KV008", "the pass failed: {error}", _REPORT)
HAND_OFF_FAILED = _reason(
    "KV009",
    "the hand-off failed: {error}",
    "The compiler could not compile a part, or the part failed when it first ran. If it runs with "
    '`{"compiler": "aot_eager"}`, the fault is Inductor\'s, and stock `torch.compile` may show it too. Otherwise '
    "it is kvfix's: please report it, with what the log shows and `fxpass.repro(report)`.",
)
OFF = _reason("KV010", "the rewrite is switched off", 'Leave out `{"rewrite": False}` and `KVFIX_REWRITE=0`.')
UNTRACED = _reason(
    "KV011",
    "{op} cannot be traced on tensors without data: {error}",
    "Keep the operator outside of what is compiled.",
)
NOT_COMPILED = _reason(
    "KV012",
    "{function} is left to eager: {why} at {where}",
    "Take what breaks the graph out of the loop, `with` or `try` that it is in, or out of what is compiled. Dynamo cannot go "
    "on behind it there; the functions that are called are compiled each for itself.",
)
SETS = _reason(
    "KV013",
    "a setting of PyTorch's is changed in the graph: {function}, before {where}",
    "Change it before the model is called, and not in what is compiled.",
)

# A slice, or another place that uses a position, stays as the model wrote it
NO_RULE = _reason(
    "KV101",
    "no rule for {op}",
    "Write it with operators that have one, or apply it to the whole buffer with a mask. [add-a-rule.md](add-a-rule.md) "
    "tells how a rule is written.",
)
UNKNOWN_SIGN = _reason(
    "KV102",
    "a bound of the slice is of unknown sign",
    "Assert it (`assert start >= 0`): the assertion becomes a guard.",
)
OUTSIDE = _reason(
    "KV103",
    "the slice reaches outside of the rows that there are: {how}",
    "Slicing clamps, and a read of the whole buffer does not. Assert the bound (`assert end <= buffer.shape[1]`), or give the "
    "buffer room for all positions.",
)
UNKNOWN_ROWS = _reason(
    "KV104",
    "the slice has a number of rows that is neither fixed nor computed from a position",
    "Compute the length from the position, or hand in a fixed number of rows.",
)
WRITTEN_FROM = _reason(
    "KV105",
    "as many rows as the position says are written and read, and not from row 0 on",
    "Write as many rows as are new, `buffer[:, start:start + n]` with a fixed `n`.",
)
TOO_FEW = _reason(
    "KV106",
    "{op} needs more rows than the slice is known to have",
    "Assert that there are enough (`assert end >= 3`): the assertion becomes a guard.",
)
LEAVES = _reason(
    "KV107",
    "a tensor whose size depends on the position leaves the graph",
    "Return what is of a fixed size: the buffer with the length beside it, or a reduction over the rows.",
)
RETURNED_VIEW = _reason(
    "KV108",
    "the graph returns a view of the buffer",
    "Return a copy (`.clone()`): what a read by a position gives is one.",
)
STALE = _reason(
    "KV109",
    "the slice is read after the buffer has been written again",
    "Read before the write, or take the slice anew after it.",
)
SLICE_OF_SLICE = _reason(
    "KV110",
    "a slice of a slice is written in place",
    "Write to the buffer through one slice, `buffer[:, end - 1:end].mul_(2)`.",
)
AT_ONCE = _reason(
    "KV111",
    "{op} writes to the buffer in several places at once",
    "Write to one place at a time.",
)
PART_WRITTEN = _reason(
    "KV112",
    "{op} writes {what} to a part of a buffer whose size depends on the position",
    "Assign with `buffer[:, :end] = ...` or an operator that works on each element, such as `mul_`.",
)
DRAWS = _reason(
    "KV113",
    "{op}: it draws numbers, and for all of the buffer it would draw others",
    "Call `model.eval()`, or draw for a fixed size. Training is not what this backend is for.",
)
LENGTHS = _reason(
    "KV114",
    "two different valid lengths meet on one axis: those of {what}",
    "Use one length for both, or assert that they are equal: the assertion becomes a guard.",
)
FROM_ELSEWHERE = _reason(
    "KV115",
    "{what} is as long as the slice, but it is no slice of anything that is as long as the buffer",
    "Make it as long as the buffer, and slice it with the same bound as the cache.",
)
ONE_SIDED = _reason(
    "KV116",
    "{op} contracts a position-dependent axis with one that is not",
    "Slice both operands with the same bound, or neither and mask.",
)
RESHAPED = _reason(
    "KV117",
    "a reshape {how}",
    "Keep the axis of the rows in a dimension of its own, or let it be the first of those that it is split in (`(-1, 2)`).",
)
AXIS_SPLIT = _reason(
    "KV118",
    "the position-dependent axis {how}",
    "Split, pair or cut the buffer first, and slice by the position after that.",
)
FLATTENED = _reason(
    "KV119",
    "{op} of a flattened tensor of position-dependent size",
    "Name the dimension: `k.argmax(dim=1)`, `k.roll(1, dims=1)`.",
)
TIES = _reason(
    "KV120",
    "{op}: which of equal elements comes first depends on the number of all",
    "Take the values in place of the places, and `sort(stable=True)`.",
)
NO_INFINITY = _reason(
    "KV121",
    "{op} of integers: the rows past the slice would have to be minus infinity, which integers lack",
    "Convert to a floating dtype first.",
)
OTHER_AXIS = _reason(
    "KV122",
    "{op} with {what} of position-dependent number",
    "Let the rows lie along the axis that the operator goes along, not that of its heads or channels.",
)
OVER_AXIS = _reason(
    "KV123",
    "{op} over the position-dependent axis",
    "Write it with a sum over the rows, or normalize along the channels.",
)
NO_BUFFER = _reason(
    "KV124",
    "{op} makes a tensor of a size that belongs to no buffer",
    "Make it as long as the buffer and slice it with the position (`torch.arange(capacity)[:end]`).",
)
LOOKUP = _reason("KV125", "a lookup {how}", "Look up with one index tensor of integers along one dimension.")
JOINED = _reason(
    "KV126",
    "rows are put {how}",
    "Write them to the buffer, and read the buffer.",
)
NUMBERS_ONLY = _reason(
    "KV127",
    "a position is an argument of {op}, which takes numbers only",
    "Compute the same on a tensor: `torch.arange(n) + position` in place of `torch.arange(position, position + n)`.",
)
NO_TWIN = _reason(
    "KV128",
    "a position computed with {op} has no tensor twin",
    "Compute positions with whole numbers: sums, products, `//`, `%`, comparisons, shifts.",
)
BY_POSITION = _reason(
    "KV129",
    "{op} by a position, {how}",
    "Use a fixed number there, or name the dimension.",
)
NO_SLICE = _reason(
    "KV130",
    "{op} takes a part of a buffer at a position, and is no slice",
    "Write it as a slice, `buffer[:, :end]`.",
)
FROM_FLOAT = _reason(
    "KV131",
    "the end of the slice is computed from a float",
    "Keep positions as whole numbers: an int, or an element of an index tensor.",
)
SITE_FAILED = _reason("KV190", "the pass failed here: {error}", _REPORT)

# What stays outside of the static core
GROWTH_OUTSIDE = _reason(
    "KV201",
    "what grows gets no buffer, since this would run outside of the static core all the same: {what}",
    "Do what the section of the id in the message says. It speaks of the cache that `torch.cat` makes longer as if it were "
    "allocated in full, and sliced.",
)
NOT_GROWING = _reason(
    "KV202",
    "a tensor was given a buffer to grow in, and does not grow: none of {calls} calls went on from what the last one returned",
    "Nothing, where the tensor only has another size on each call. Else hand in the very tensor that the call before returned.",
)
CAPACITY = _reason(
    "KV203",
    "what was compiled does not hold for a capacity of {capacity}",
    "Give tables and masks that are sliced to the length as many rows as the longest cache will have.",
)
ROOM = _reason(
    "KV204",
    "a condition depends on how much room is left in a buffer that grows: {what}",
    "Give tables and caches that are allocated in full a fixed size, and compare lengths with one another or with numbers.",
)
GROWS_WHOLE = _reason(
    "KV205",
    "what the caller makes longer gets no buffers, as all of it is worked on in each call: {what}",
    "Nothing. Where only the last rows are new to the model, take these before the first product.",
)
NO_JOIN = _reason(
    "KV206",
    "no buffer for {what}: it is made longer, and not by new rows that are put behind it",
    "Write `torch.cat([past, new], dim)`, of a window `[..., -w:, :]` without `min` or `max`, and nothing into the past.",
)
WRITTEN_BESIDE = _reason(
    "KV207",
    "the graph writes to the memory of a tensor that has a buffer to grow in, by another tensor, and so runs as it came",
    "Hand in a copy of one of the two (`.clone()`), or write to the tensor itself.",
)
OUTSIDE_THE_CORE = _reason(
    "KV210",
    "{source}: {op} runs outside of the static core, since it depends on {why}",
    "Where a slice was refused too, see its reason. Else give what the operator takes a fixed size (all rows of the buffer, "
    "and a mask), or a size that stays for some calls.",
)
CORRECTED = _reason(
    "KV211",
    "{of} has had too many values for a core of each, and is left symbolic from now on",
    "Nothing, where it has to move: what depends on it runs outside of the core. Else pad it to a few sizes.",
)
BESIDE = _reason(
    "KV212",
    "light ops run {where}: {ops}",
    "Nothing, as a rule: a graph of light ops alone is not cut, and the others work on what has another size in each step. "
    "Where they cost time, give that a fixed size.",
)
CUT_BETWEEN = _reason(
    "KV213",
    "{source}: {what} has another size in each call, and comes from before a graph break",
    'Take the slice, or join the rows, behind what breaks the graph, which `TORCH_LOGS="graph_breaks"` names; '
    "`torch.compiler.disable` is one. It runs in eager, with all that it calls. Where it has to stay, hand it the whole "
    "buffer, and let it return a fixed size.",
)
EXCLUDED = _reason(
    "KV214",
    "{function} is not compiled, and {does}: it is called at {where}",
    "Leave out `torch.compiler.disable`, or exclude only what has to run in eager, such as a print, and take slices in what "
    "is compiled. What `eval` evaluates, and another thread runs, never is.",
)
HANDED = _reason(
    "KV215",
    "{source}: {what} is a slice of a larger tensor, and longer in each call: it is taken outside of what is compiled",
    "Hand in the whole tensor and the position, and take the slice in what is compiled.",
)

# How many graphs there are
BREAK = _reason(
    "KV301",
    "the graph breaks at {where}: {why}",
    'Take what breaks it out of what is compiled, or see `TORCH_LOGS="graph_breaks"`: each piece has a static core of its own.',
)
AGAIN = _reason(
    "KV302",
    "another graph of the same code, since a guard does not hold: {guard}",
    "A number is a constant until it has moved, so a prefill and a decode step are two. "
    "[limits.md](limits.md#more-graphs-than-two) lists what makes more.",
)
PINNED = _reason(
    "KV303",
    "a graph for each value of a number or a text that moves{where}: {guard}",
    "Let the number be used in slices, in arithmetic and on tensors alone: `torch.arange(capacity) < p` in place of "
    "`range(p)`, an int or an index tensor beside a list in place of its length. Else keep what needs its value outside of "
    "what is compiled.",
)
NO_MORE_GRAPHS = _reason(
    "KV304",
    "{function} has {most} graphs, and gets no more: what none of them is for runs in eager. The latest guard that does not "
    "hold: {guard}",
    "Hand in what the guard names as a tensor, or let it take few values. With the number of a layer, take its cache out of a "
    "list or a tensor that is handed in, `caches[layer]`. A larger `torch.compiler.config.recompile_limit` makes more graphs, "
    "each of which is compiled.",
)

# Compilation, recordings and copies
TOO_MANY = _reason(
    "KV401",
    "a part of a graph ({part}) has been compiled {times} times, for as many sizes of its inputs; as many are kept, CUDA "
    "graphs included, and what has not run for longest is dropped",
    "Allocate caches of few sizes. `torch.compiler.config.recompile_limit` says how many are kept.",
)
ALIASED = _reason(
    "KV402",
    "inputs share memory, so the core is not recorded as a CUDA graph",
    "Hand in tensors that do not share memory (`.clone()`).",
)
RECORDED = _reason(
    "KV403",
    "the core is recorded as one CUDA graph{anew}",
    'Nothing; `{"recording": False}` switches recordings off. Where caches come in many sizes, each makes a recording.',
)
COPIED_OUT = _reason(
    "KV404",
    "{results} results ({size} bytes) are copied out of the recording's memory in every step",
    "Return what the caller needs, and no intermediate values.",
)
WRITTEN_BACK = _reason(
    "KV405",
    "{tensors} index tensors ({size} bytes) are written back after every step",
    "Keep one index tensor for all layers in place of one each.",
)
ALL_ROWS = _reason(
    "KV406",
    "all rows of a buffer are read, and not only as many as are filled, at {where}: {why}",
    "Nothing, where the buffer is short. Else read from row 0 on, `buffer[:, :end]`, to an end that is computed from ints and "
    "index tensors.",
)

# torch's precompile cache
NOT_KEPT = _reason(
    "KV501",
    "a graph is not kept for other processes: {error}",
    "See [limits](limits.md#compiled-again-in-the-next-process). The next process compiles again.",
)
NOT_USED = _reason(
    "KV502",
    "a precompiled model is not used but compiled again: {error}",
    "Save it anew with this version of kvfix and these options.",
)

# This torch
LOST = _reason(
    "KV601",
    "{without}: {error}",
    "Use one of the releases of torch that [torch-internals.md](torch-internals.md) lists.",
)
HOOK_FAILED = _reason("KV602", "its hook {hook} failed, and torch goes on without it: {error}", _REPORT)

# The check of the first calls
DIFFERS = _reason("KV701", "{graph}, call {call}: it differs from the graph as it came: {how}", _REPORT, "numbers")
