"""The rules, one family a file. Importing this package registers them all."""

from . import (  # noqa: F401
    attention,
    contractions,
    copies,
    factories,
    joins,
    lookups,
    norms,
    orders,
    pads,
    pointwise,
    reductions,
    scatters,
    slices,
    sorts,
    stores,
    views,
)
