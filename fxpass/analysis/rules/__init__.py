"""The rules of operators, one family in each file. Importing this package registers all of them.

What several families use stands in `alignment` and `places`.
"""

from . import (  # noqa: F401
    attention,
    contractions,
    convolutions,
    copies,
    factories,
    joins,
    lookups,
    norms,
    orders,
    pads,
    parts,
    pointwise,
    puts,
    reductions,
    reshapes,
    rowwise,
    scatters,
    slices,
    sorts,
    stores,
    views,
)
