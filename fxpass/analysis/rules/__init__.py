"""The rules, one family a file. Importing this package registers them all."""

from . import attention, contractions, copies, factories, pointwise, reductions, views  # noqa: F401
