"""``python -m fxpass`` is ``kvfix``."""

from fxpass.cli import app

if __name__ == "__main__":
    app(prog_name="kvfix")
