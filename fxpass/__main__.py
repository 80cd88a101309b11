"""``python -m fxpass`` is ``kvfix``."""

from fxpass.tools.command_line import app

if __name__ == "__main__":
    app(prog_name="kvfix")
