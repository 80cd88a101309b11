"""The rules, one family a file. Importing this package registers them all."""

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
    pointwise,
    reductions,
    reshapes,
    scatters,
    slices,
    sorts,
    stores,
    views,
)
