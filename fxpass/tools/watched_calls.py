"""What has been compiled and recorded after each call of a compiled function, and what the last call launches."""

from __future__ import annotations

import dataclasses
from typing import Any

import fxpass
from fxpass.tools.counting import graphs, launched, recordings


@dataclasses.dataclass
class Watched:
    """Calls of what is compiled, in the order in which they are made.

    made: after each call, the graphs compiled, the CUDA graphs recorded and the reports made so far.
    launches: those of the last call, where it could be a CUDA graph.
    """

    recorded: bool
    made: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)
    launches: tuple[int, int] | None = None

    def of(self, fn: Any) -> Any:
        """``fn``, watched."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if not self.recorded:
                out = fn(*args, **kwargs)
            else:
                with launched() as counts:
                    out = fn(*args, **kwargs)
                self.launches = counts.graphs, counts.kernels
            self.made.append((graphs(), recordings() if self.recorded else 0, len(fxpass.reports())))
            return out

        return call
