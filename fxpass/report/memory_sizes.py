"""Sizes of memory, in words."""

from __future__ import annotations

import math


def in_words(size: int) -> str:
    """``size`` bytes in the largest unit that fits: ``1.5 MiB``."""
    power = min(int(math.log(max(size, 1), 1024)), 3)
    return f"{size} bytes" if not power else f"{size / 1024**power:.1f} {('KiB', 'MiB', 'GiB')[power - 1]}"
