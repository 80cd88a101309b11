"""A decode step in the shapes of Llama-3.2-1B: ``python benchmarks/llama_shapes.py --json FILE`` (a GPU, about seven minutes).

Unedited code of others with random weights, bf16, batch 1, capacity 1024, a prompt of 64 tokens. One line for each model and
each way to run it: ms of a step by CUDA events (the median, in place and with the host far ahead), seconds until the first
steps had run, and the distance of the logits from a float64 run of the same weights, relative to their norm.

    llama-models    Meta's, with a position as a Python int        eager, stock, reduce-overhead, kvfix
    litgpt          with ``input_pos_maxp1``                       eager, stock, reduce-overhead, kvfix
    litgpt-static   without: all of the cache is read each step    eager, stock, reduce-overhead, kvfix
    transformers    with its StaticCache, which is read in full    eager, stock, reduce-overhead, kvfix

``--ways eager kvfix --steps 500`` shows whether kvfix is further from the numbers of float64 than eager is. Needs what
``tests/reach/setup.sh`` installs. ``--tiny`` is for a look at it on a CPU.
"""

from __future__ import annotations

import argparse
import copy
import fnmatch
import pathlib
import statistics
import sys
import time
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch

import fxpass
from fxpass.tools import figures
from fxpass.tools.counting import counting

sys.path.append(str(pathlib.Path(__file__).parent.parent))
from tests.reach.cases import _stand_in_for_fairscale  # noqa: E402

CAPACITY, PROMPT, STEPS = 1024, 64, 160
FEW = 20
"""So many steps of what records or compiles for each position."""
Forward = Callable[..., torch.Tensor]
Call = Callable[[Forward, torch.Tensor, int], torch.Tensor]


def llama_models(tiny: bool, device: str, **more: int) -> tuple[Any, Forward, Call]:
    """The model, what is compiled of it, and how that is called with tokens and where they start."""
    _stand_in_for_fairscale()
    from llama_models.llama3.args import ModelArgs
    from llama_models.llama3.model import Transformer

    sizes = {"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 64, "multiple_of": 32}
    if not tiny:
        sizes = {"dim": 2048, "n_layers": 16, "n_heads": 32, "n_kv_heads": 8, "vocab_size": 128256, "multiple_of": 256,
                 "ffn_dim_multiplier": 1.5}  # fmt: skip
    with torch.device(device):
        model = Transformer(ModelArgs(**{**sizes, **more}, rope_theta=500000.0, max_batch_size=1, max_seq_len=CAPACITY)).eval()
    forward = types.MethodType(Transformer.forward.__wrapped__, model)  # without the decorator for inference
    return model, forward, lambda step, tokens, start: step(tokens, start)


def litgpt(tiny: bool, device: str, sliced: bool = True) -> tuple[Any, Forward, Call]:
    """The same of litgpt; ``sliced`` lets it read no more of its cache than is filled."""
    from litgpt.config import Config
    from litgpt.model import GPT

    sizes = {"n_layer": 2, "n_embd": 64, "n_head": 4, "n_query_groups": 2, "intermediate_size": 128, "padded_vocab_size": 64,
             "head_size": 16}  # fmt: skip
    with torch.device(device):
        model = GPT(Config.from_name("Llama-3.2-1B", **(sizes if tiny else {}))).eval()
    model.max_seq_length = CAPACITY
    model.set_kv_cache(batch_size=1, max_seq_length=CAPACITY, device=torch.device(device), dtype=torch.get_default_dtype())

    def call(step: Forward, tokens: torch.Tensor, start: int) -> torch.Tensor:
        end = start + tokens.shape[1]
        given = {"input_pos_maxp1": end} if sliced else {}
        return step(tokens, input_pos=torch.arange(start, end, device=device), **given)

    return model, model, call


def transformers(tiny: bool, device: str) -> tuple[Any, Forward, Call]:
    """The same of transformers, with one `StaticCache` for each dtype, emptied before a prompt."""
    from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 64}  # fmt: skip
    if not tiny:
        sizes = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
                 "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256}  # fmt: skip
    config = LlamaConfig(**sizes, max_position_embeddings=CAPACITY, rope_theta=500000.0, tie_word_embeddings=True)
    with torch.device(device):
        model = LlamaForCausalLM(config).eval().to(torch.get_default_dtype())
    caches: dict[torch.dtype, Any] = {}

    def call(step: Any, tokens: torch.Tensor, start: int) -> torch.Tensor:
        dtype = next(step.parameters()).dtype
        if dtype not in caches:
            caches[dtype] = StaticCache(config=config, max_cache_len=CAPACITY)
            heads, dim = sizes["num_key_value_heads"], sizes["head_dim"]
            caches[dtype].early_initialization(1, heads, dim, dtype=dtype, device=torch.device(device))
        if start == 0:
            caches[dtype].reset()
        positions = torch.arange(start, start + tokens.shape[1], device=device)[None]
        return step(tokens, past_key_values=caches[dtype], use_cache=True, position_ids=positions).logits

    return model, model, call


MODELS: dict[str, Callable[[bool, str], tuple[Any, Forward, Call]]] = {
    "llama-models": llama_models,
    "litgpt": litgpt,
    "litgpt-static": lambda tiny, device: litgpt(tiny, device, sliced=False),
    "transformers": transformers,
}
WAYS: dict[str, Callable[[Forward], Forward]] = {
    "eager": lambda forward: forward,
    "stock": torch.compile,
    "reduce-overhead": lambda forward: torch.compile(forward, mode="reduce-overhead"),
    "kvfix": lambda forward: torch.compile(forward, backend="kvfix"),
}


def decode(call: Call, step: Forward, tokens: torch.Tensor, steps: int) -> tuple[torch.Tensor, list[float]]:
    """The logits of so many steps behind the prompt, and the ms of each."""
    call(step, tokens[:, :PROMPT], 0)
    logits, times = [], []
    for i in range(PROMPT, PROMPT + steps):
        y, ms = timed(lambda i=i: call(step, tokens[:, i : i + 1], i))
        logits.append(y[:, -1].double())
        times.append(ms)
    return torch.cat(logits), [ms() for ms in times]


def timed(run: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], float]]:
    """What ``run`` gives, and what tells later how many ms it took."""
    if not torch.cuda.is_available():
        start = time.perf_counter()
        result, ms = run(), 1e3 * (time.perf_counter() - start)
        return result, lambda: ms
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    result = run()
    last.record()

    def between() -> float:
        last.synchronize()
        return first.elapsed_time(last)

    return result, between


def ahead(call: Call, step: Forward, tokens: torch.Tensor) -> float:
    """The ms of a step that the device was given long before it could begin; the median."""
    times = []
    call(step, tokens[:, :PROMPT], 0)
    for i in range(PROMPT, PROMPT + FEW):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda._sleep(20_000_000)
        times.append(timed(lambda i=i: call(step, tokens[:, i : i + 1], i))[1]())
    return statistics.median(times)


def measure(name: str, ways: list[str], tiny: bool, device: str, most: int) -> list[dict[str, Any]]:
    """A line for each of ``ways`` to run the model ``name``, of ``most`` steps, or of a few where these are slow."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model, forward, call = MODELS[name](tiny, device)
    torch.set_default_dtype(torch.float32)
    for parameter in model.parameters():
        parameter.normal_(std=0.02)
    tokens = torch.randint(0, 64 if tiny else 128256, (1, PROMPT + most), device=device)
    exact = copy.deepcopy(model).double()
    step = types.MethodType(forward.__func__, exact) if isinstance(forward, types.MethodType) else exact
    wanted, _ = decode(call, step, tokens, most)
    del exact, step
    rows = []
    for way in ways:
        fxpass.reset()
        step = WAYS[way](forward)
        moving = way in ("stock", "reduce-overhead") and name not in ("litgpt-static", "transformers")
        with counting() as counted:
            start = time.perf_counter()
            decode(call, step, tokens, 4)
            cold = time.perf_counter() - start
            steps = FEW if moving else most
            decode(call, step, tokens, steps)
            logits, times = decode(call, step, tokens, steps)
        error = ((logits - wanted[:steps]).norm() / wanted[:steps].norm()).item()
        rows.append({"model": name, "way": way, "step_ms": statistics.median(times), "device_ms": ahead(call, step, tokens),
                     "cold_s": cold, "error": error, "graphs": counted.graphs, "breaks": counted.breaks})  # fmt: skip
        print(*(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()), sep="  ", flush=True)
    return rows


def run(only: Sequence[str], json: pathlib.Path | None) -> int:
    """What ``kvfix bench --model llama-3.2-1b`` runs: all models and ways, or those whose names, as 'litgpt kvfix', match one
    of the patterns in ``only``."""
    chosen = {name: [way for way in WAYS if _matches(f"{name} {way}", only)] for name in MODELS}
    patterns = "".join(f" --only '{pattern}'" for pattern in only)
    record({n: ways for n, ways in chosen.items() if ways}, STEPS, False, f"kvfix bench --model llama-3.2-1b{patterns}", json)
    return 0


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def record(chosen: dict[str, list[str]], steps: int, tiny: bool, command: str, json: pathlib.Path | None) -> None:
    """Measure the ways ``chosen`` for each model, and write the lines to the file ``json``, if there is one."""
    torch.set_grad_enabled(False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = [row for name, ways in chosen.items() for row in measure(name, ways, tiny, device, steps)]
    if json:
        figures.write_figures(json, {"command": command, "rows": rows})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--steps", type=int, default=STEPS, metavar="N", help="at least 20")
    options = parser.parse_args()
    command = " ".join(["python", "benchmarks/llama_shapes.py", *sys.argv[1:]])
    record(dict.fromkeys(options.models, options.ways), options.steps, options.tiny, command, options.json)


if __name__ == "__main__":
    main()
