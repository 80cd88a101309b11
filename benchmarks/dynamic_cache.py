"""A cache that grows by `cat`: ``python benchmarks/dynamic_cache.py --json FILE`` (transformers, a GPU, about four minutes).

transformers' Llama, unedited, in the shapes of Llama-3.2-1B with random weights, bf16, batch 1. One line for each way to run it
and each length of the cache: ms of a decode step (the median, by CUDA events), its largest difference from eager relative to
eager's mean logit, and seconds until the first steps had run. The prompt is read in eager. ``crossing`` is how long kvfix takes
for a step from the largest capacity so far to the next.

    kvfix       DynamicCache, which the model makes longer at each step
    static      StaticCache of the next power of two, stock torch.compile(mode="reduce-overhead"): what it is compared with
    stock       DynamicCache, stock torch.compile
    eager       DynamicCache

``--tiny`` is for a look at it on a CPU.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import pathlib
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

import fxpass
from fxpass.tools import figures
from fxpass.tools.counting import counting

warnings.filterwarnings("ignore", category=FutureWarning)
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache  # noqa: E402

LENGTHS = (128, 1000, 4000)
STEPS = 32
"""So many are timed, up to the length."""
BASE = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "head_dim": 64,
        "num_key_value_heads": 8, "vocab_size": 128256, "rope_theta": 500000.0, "tie_word_embeddings": True}  # fmt: skip
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 64}  # fmt: skip
Step = Callable[..., Any]


def timed(step: Step, tokens: torch.Tensor, cache: Any) -> tuple[torch.Tensor, list[float]]:
    """The last logits of a step for each of ``tokens``, and the ms of each."""
    logits, marks = [], [_mark()]
    for i in range(tokens.shape[1]):
        logits.append(step(tokens[:, i : i + 1].clone(), past_key_values=cache, use_cache=True).logits[:, -1].float().clone())
        marks.append(_mark())
    if tokens.is_cuda:
        torch.cuda.synchronize()
        return torch.cat(logits), [a.elapsed_time(b) for a, b in itertools.pairwise(marks)]
    return torch.cat(logits), [1e3 * (b - a) for a, b in itertools.pairwise(marks)]


def _mark() -> Any:
    if not torch.cuda.is_available():
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def measure(name: str, step: Step, model: Any, prompt: torch.Tensor, tokens: torch.Tensor, like: Any) -> dict[str, Any]:
    """One line: ``step``, from a cache made ``like`` one and filled by ``prompt``. Measured are the second and third pass."""
    filled = like()
    model(prompt, past_key_values=filled, use_cache=True)
    fresh = (lambda: copy.deepcopy(filled)) if name != "static" else (lambda: refilled(filled, model, prompt))
    start = time.perf_counter()
    _, first = timed(step, tokens, fresh())
    cold = time.perf_counter() - start
    passes = [timed(step, tokens, fresh()) for _ in range(2)]
    times = [t for _, ms in passes for t in ms[2:]]
    return {"name": name, "length": prompt.shape[1] + tokens.shape[1], "step_ms": statistics.median(times),
            "slowest_ms": max(times), "first_slowest_ms": max(first), "cold_s": cold, "logits": passes[-1][0]}  # fmt: skip


def refilled(cache: Any, model: Any, prompt: torch.Tensor) -> Any:
    """The same static cache, whose address is recorded, with the prompt anew."""
    cache.reset()
    model(prompt, past_key_values=cache, use_cache=True)
    return cache


def crossing(step: Step, model: Any, length: int, tokens: torch.Tensor) -> dict[str, float]:
    """Seconds of the step, from one capacity to the next, for the first time and again; and of one that stays within."""
    row = {}
    cache = DynamicCache(config=model.config)
    model(tokens[:, : length - 6].clone(), past_key_values=cache, use_cache=True)
    for name in ("first_s", "again_s"):
        own, walls = copy.deepcopy(cache), []
        for i in range(12):
            start = time.perf_counter()
            step(tokens[:, i : i + 1].clone(), past_key_values=own, use_cache=True)
            if tokens.is_cuda:
                torch.cuda.synchronize()
            walls.append(time.perf_counter() - start)
        row[name] = max(walls[3:])
        row["within_s"] = statistics.median(walls)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--ways", nargs="+", default=["eager", "kvfix", "static", "stock"])
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = LlamaConfig(**(TINY if options.tiny else BASE), max_position_embeddings=8192)
    with torch.device(device):
        model = LlamaForCausalLM(config).eval().to(torch.float32 if options.tiny else torch.bfloat16)
        ids = torch.randint(0, config.vocab_size, (1, 2 * max(options.lengths)))
    makes: dict[str, Callable[[], Step]] = {
        "eager": lambda: model,
        "kvfix": lambda: torch.compile(model, backend="kvfix"),
        "static": lambda: torch.compile(model, mode="reduce-overhead", dynamic=False),
        "stock": lambda: torch.compile(model, dynamic=True),
    }
    rows: list[dict[str, Any]] = []
    crossed: dict[str, float] = {}
    for name in options.ways:
        torch._dynamo.reset()
        fxpass.reset()
        step = makes[name]()
        with counting() as counted:
            for length in options.lengths:
                prompt, tokens = ids[:, : length - STEPS].clone(), ids[:, length - STEPS : length].clone()

                def like(name: str = name, length: int = length) -> Any:
                    most = 1 << length.bit_length()
                    return StaticCache(config=config, max_cache_len=most) if name == "static" else DynamicCache(config=config)

                row = measure(name, step, model, prompt, tokens, like)
                wanted = next((r["logits"] for r in rows if r["length"] == length), row["logits"])
                row["difference"] = ((row["logits"] - wanted).abs().max() / wanted.abs().mean()).item()
                rows.append(row)
                print({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items() if k != "logits"}, flush=True)
        print(name, counted, flush=True)
        if name == "kvfix":
            last = fxpass.reports()[-1]
            print([(r.parts, r.unfit, r.unbuffered) for r in fxpass.reports()], flush=True)
            crossed = crossing(step, model, 1 << max(options.lengths).bit_length(), ids)
            print("crossing", crossed, last.rewritten, flush=True)
    ratios = {
        f"kvfix/static at {length}": _of(rows, "kvfix", length) / _of(rows, "static", length)
        for length in options.lengths
        if {"kvfix", "static"} <= set(options.ways)
    }
    print(ratios)
    if options.json:
        kept = [{k: v for k, v in row.items() if k != "logits"} for row in rows]
        command = "python benchmarks/dynamic_cache.py"
        figures.write_figures(options.json, {"command": command, "rows": kept, "crossing": crossed, **ratios})


def _of(rows: list[dict[str, Any]], name: str, length: int) -> float:
    return next(r["step_ms"] for r in rows if (r["name"], r["length"]) == (name, length))


if __name__ == "__main__":
    main()
