"""How products on few rows are cut into programs: rules over shapes, from what was fastest on an H100."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton

from fxpass.kernels.launches.launch import Gpu, gpu
from fxpass.kernels.launches.limits import MAX_PARTS


class Tile(NamedTuple):
    """How many outputs and columns a program takes at a time, and its warps. With ``is_part`` it takes no further columns.

    A thread gets at most so many ``registers``: where that lets all programs of a kernel start, none reads its weights late.
    """

    outputs: int
    columns: int
    warps: int
    is_part: bool = False
    registers: int | None = None


def best_parts(rows: int, outputs: Sequence[int], k: int, element_size: int, where: torch.device | Gpu) -> int:
    """The number of parts to cut the sums of layers of these ``outputs`` into.

    Where a tile is a part, each tile gets a program. Otherwise each processor gets one, as long as the parts stay long enough
    to be read at full speed.
    """
    device = where if isinstance(where, Gpu) else gpu(where)
    tile = tile_of(rows, outputs, k, element_size, device)
    if tile.is_part:
        return min(triton.cdiv(k, tile.columns), MAX_PARTS)
    wanted = device.processors / sum(triton.cdiv(n, tile.outputs) for n in outputs)
    least = 1024 // element_size
    if rows == 1:
        wanted, least = max(2 * wanted, k / 4096), 2 * tile.columns
    part = max(round(k / max(wanted, 1) / tile.columns) * tile.columns, least)
    return min(triton.cdiv(k, part), MAX_PARTS)


def tile_of(rows: int, outputs: Sequence[int], k: int, element_size: int, device: Gpu) -> Tile:
    """The tile that was the fastest on an H100 for shapes of this kind."""
    columns = max(16, triton.next_power_of_2(k))

    def blocks(size: int) -> int:
        return sum(triton.cdiv(n, size) for n in outputs)

    if rows == 1:
        return Tile(4, min(columns, 2048 // element_size), 4)
    if element_size == 2:
        return Tile(64, min(columns, 128 if blocks(64) >= 1.6 * device.processors else 256), 4)
    if blocks(128) >= 1.6 * device.processors:
        return Tile(128, min(columns, 64), 4)
    if rows > 16:  # so many are as much work to split as the weights
        return Tile(16, min(columns, 64), 2, is_part=True)
    if k >= 2048:
        return Tile(16, 512, 4, is_part=True)
    programs = blocks(16) * triton.cdiv(k, 256) / device.processors
    if rows <= 8 and 4 < programs <= 10:  # with half as many programs, five of them fit on a processor
        return Tile(32, min(columns, 256), 4, is_part=True, registers=96)
    return Tile(16, min(columns, 256), 4 if 2 <= programs <= 4 else 2, is_part=True)


def gated_tile(rows: int, outputs: Sequence[int], k: int, element_size: int, device: Gpu) -> Tile:
    """The tile for a function of layers, of each of which a program takes its outputs."""
    tile = tile_of(rows, outputs, k, element_size, device)
    return tile._replace(outputs=max(tile.outputs // len(outputs), 1 if rows == 1 else 16))
