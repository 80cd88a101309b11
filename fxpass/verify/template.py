"""The text of a script that shows a difference, without the graph (see `script`)."""

SCRIPT = '''{title!r}
# Run it with the torch and the kvfix in question. The exit status is 1 while what comes out of the two runs differs.

import pathlib
import sys

import torch
from torch import Tensor

from fxpass.torch_internals.dynamo.inputs.script_marks import mark
{imports}

OPTIONS = {options!r}
EXACT = {exact!r}  # the results, each of the arguments: equal bitwise
MOVING = {moving!r}  # arguments, or elements of them, that Dynamo has to see move before it takes them for numbers
DYNAMIC = {dynamic!r}  # sizes of arguments that were dynamic
STATIC = {static!r}  # arguments that belonged to a module
RELATIVE = {relative!r}
COUNTED = {counted!r}


{graph}


{tolerance}

def instance(kind):
    made = kind()
    for name, inner in vars(kind).items():
        if isinstance(inner, type):
            setattr(made, name, instance(inner))
    return made


def inputs():
{inputs}
    for name, value in held.items():
        owner, _, last = name.rpartition(".")
        setattr(graph.get_submodule(owner), last, value)
    mark(args, DYNAMIC, STATIC)
    return args


def moved(args):
    """The arguments of an earlier call."""
    for place, element in MOVING:
        if element is None:
            args[place] += -1 if args[place] > 0 else 1
        else:
            held = args[place].view(-1)
            held[element] += -1 if held[element] > 0 else 1
    return args


{run}


def outcome(fn, args):
    torch.manual_seed(0)
    with torch.inference_mode() if {inference!r} else torch.set_grad_enabled({grad!r}):
        try:
            return [*fn(*args), *args], None
        except Exception as error:
            return [], error


def compare(name, found, expected, exact):
    """Whether both are the same; says so if they are not."""
    try:
        if isinstance(expected, Tensor):
            if found.dtype != expected.dtype:
                raise AssertionError(f"{{found.dtype}}, {{expected.dtype}}")
            close = exact or not (expected.is_floating_point() or expected.is_complex())
            relative, absolute = (0.0, 0.0) if close else tolerance(expected)
            torch.testing.assert_close(numbers(found), numbers(expected), rtol=relative, atol=absolute, equal_nan=True)
        elif isinstance(expected, (int, float, bool, str, type(None))):
            if found != expected:
                raise AssertionError(f"{{found}}, {{expected}}")
    except AssertionError as error:
        print(f"{{name}}, with kvfix and without: {{error}}")
        return False
    return True


def shares(values):
    """For each tensor, the last one that begins at its address."""
    places = [v.data_ptr() if isinstance(v, Tensor) and v.layout is torch.strided and v.numel() else None for v in values]
    return [None if p is None else len(places) - places[::-1].index(p) for p in places]


def same(compiled):
    (found, found_error), (expected, expected_error) = outcome(compiled, inputs()), outcome(run, inputs())
    if found_error is not None or expected_error is not None:
        print(f"with kvfix: {{found_error or 'runs'!r}}; without: {{expected_error or 'runs'!r}}")
        return found_error is not None and expected_error is not None
    if len(found) != len(expected):
        print(f"with kvfix and without: {{len(found)}} results and arguments, {{len(expected)}}")
        return False
    results, args = EXACT
    names = [f"result {{i}}" for i in range(len(found) - len(args))] + [f"argument {{i}}" for i in range(len(args))]
    exact = [results] * (len(found) - len(args)) + args
    alike = shares(found) == shares(expected)
    if not alike:
        print(f"which of {{names}} begin at one address, with kvfix and without: {{shares(found)}}, {{shares(expected)}}")
    return all([compare(*each) for each in zip(names, found, expected, exact, strict=True)]) and alike


graph = instance({name})

if __name__ == "__main__":
    compiled = torch.compile(run, backend="kvfix", options=OPTIONS)
    outcome(compiled, moved(inputs()))
    alike = [same(compiled) for _ in range(3)]
    print("no difference" if all(alike) else "they differ")
    sys.exit(not all(alike))
'''

LOADED = """    args, held = torch.load(pathlib.Path(__file__).with_name("inputs.pt"), weights_only=False)"""
"""Inputs that lie beside the script."""

MADE = """    torch.manual_seed(0)
    args = [
{args}
    ]
    held = {{{held}}}"""
"""Inputs that are made at random; an index keeps its values."""
