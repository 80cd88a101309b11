"""Which of our kernel and cuBLAS computes a product faster: measured when it is first compiled, and kept.

    up to 8 rows       ours                      cuBLAS was slower in all shapes that were tried
    9 to 64 rows       the one that was faster   measured on this GPU with weights that are in no cache, kept beside Inductor's
                                                 kernels, for this process and the next ones
    more               cuBLAS
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import logging
import os
import pathlib
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor

import torch

from fxpass.kernels.launches.limits import HAS_TRITON, MAX_ROWS, MEASURED_ROWS, SURE_ROWS

_logger = logging.getLogger(__name__)


def is_faster(rows: int, weight: torch.Tensor) -> bool:
    """Whether `linear_few_rows` is faster than ``torch.nn.functional.linear`` for ``rows`` rows and the ``weight`` (outputs,
    columns), of the same dtype and on the same device. The weight may be a fake tensor."""
    (outputs, columns), dtype, device = weight.shape, weight.dtype, weight.device
    if rows <= SURE_ROWS or rows > MEASURED_ROWS:
        return rows <= SURE_ROWS
    if device.type != "cuda" or not HAS_TRITON or not torch.cuda.is_available():
        return rows <= MAX_ROWS
    kept, name = _times(device), f"{rows} rows, {columns} to {outputs}, {str(dtype).removeprefix('torch.')}"
    if name not in kept:
        try:
            kept[name] = _measured(rows, outputs, columns, dtype, device)
            _keep(device, kept)
        except Exception:  # too little memory, for one; the product is then as stock has it
            _logger.warning("kvfix: a product of %s is left to cuBLAS", name, exc_info=True)
            kept[name] = []
    return bool(kept[name]) and kept[name][0] < kept[name][1]


@functools.cache
def _times(device: torch.device) -> dict[str, list[float]]:
    """Microseconds that our kernel takes, and those that cuBLAS takes, for each product that was measured on such a GPU; none
    where that failed, which is not kept."""
    try:
        return json.loads(_file(device).read_text())
    except (OSError, ValueError):
        return {}


def _keep(device: torch.device, times: dict[str, list[float]]) -> None:
    """Write ``times`` to their file, so that no process ever reads half of them."""
    file = _file(device)
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as new:
        json.dump({name: took for name, took in times.items() if took}, new, indent=1)
    os.replace(new.name, file)


def _file(device: torch.device) -> pathlib.Path:
    """Where the times of such a GPU, with this PyTorch and this kernel, are kept."""
    import triton

    from fxpass.torch_internals.inductor.names import triton_cache_dir

    from . import linear, multiply, tiles

    sources = [inspect.getsource(module).encode() for module in (linear, multiply, tiles)]
    kernel = hashlib.sha256(b"".join(sources)).hexdigest()[:12]
    parts = (torch.cuda.get_device_name(device), torch.__version__, triton.__version__, kernel)
    name = re.sub(r"[^\w.+-]+", "_", "-".join(parts))
    return pathlib.Path(triton_cache_dir(device.index or 0)) / "kvfix_products" / f"{name}.json"


def _measured(rows: int, outputs: int, columns: int, dtype: torch.dtype, device: torch.device) -> list[float]:
    """Microseconds of our kernel and of cuBLAS. They are measured in a thread of their own, where no mode of the compilation
    under way, and no default of the user's, holds."""

    def run() -> list[float]:
        from .clock import times_of_product

        with torch.no_grad(), torch.cuda.device(device):
            return times_of_product(rows, outputs, columns, dtype)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()
