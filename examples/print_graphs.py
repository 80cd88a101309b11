"""The graph of a decode step as it was captured, and the one that is compiled, with the user's names and lines.

``kvfix print toto_model.demo:decode_step --stage before`` prints the same from the command line, ``kvfix explain`` what was
decided at each place.
"""

from __future__ import annotations

import argparse

import fxpass
from toto_model.demo import decode_step

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--stage", choices=["before", "after", "core", "diff"], default="diff")
options = parser.parse_args()

model, args, kwargs = decode_step()
step = fxpass.explain(model, compiler="eager")
for _ in range(2):  # a position has to move before Dynamo takes it for one
    report = step(*args, **kwargs)
print(report.diff() if options.stage == "diff" else getattr(report, options.stage))
