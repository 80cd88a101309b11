"""``python -m fxpass`` is ``kvfix``."""

from fxpass.cli import app

app(prog_name="kvfix")
