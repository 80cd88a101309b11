"""What propagation leaves alone is what running every op again would give."""

from __future__ import annotations

import importlib
import sys

import pytest

import fxpass
from fxpass import handoff

propagation = sys.modules["fxpass.handoff.propagate"]
minimal = importlib.import_module("tests.reach.minimal")
