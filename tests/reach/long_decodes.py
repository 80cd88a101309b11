"""Caches that grow, in packages, unedited, through a prompt and 300 steps.

export PYTHONPATH=.:tests:tests/execute/buffers
python -m tests.reach.long_decodes --json benchmarks/results/long_decodes.json
python -m tests.reach.long_decodes --only gpt2 --steps 40

Outputs and caches are compared with eager's after each step, and tokens where the package has the loop. For each way: graphs,
breaks, how often a core was compiled, the buffers that were made, and the largest difference. The models are tiny.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import typer
from compilations import parts_compiled
from torch import nn

import fxpass
from fxpass.report import store
from fxpass.tools import figures
from fxpass.tools.counting import counting

from .cases import SMALL

Compile = Callable[[Any], Any]
Step = tuple[torch.Tensor, list[torch.Tensor]]
PROMPT = 9
LONG = {**SMALL, "max_position_embeddings": 1024, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}


def _causal(name: str) -> nn.Module:
    """A model of transformers with the weights that it begins with."""
    import transformers

    torch.manual_seed(0)
    if name == "GPT2":
        sizes = {"vocab_size": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 1024}
        config = transformers.GPT2Config(**sizes, bos_token_id=None, eos_token_id=None, pad_token_id=0)
        model: nn.Module = transformers.GPT2LMHeadModel(config)
    else:
        model = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**LONG))
    return model.eval()


def _spread(model: nn.Module) -> nn.Module:
    """``model`` with weights far enough apart that two tokens are never as good as each other."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def _tokens(steps: int, size: int = 32, rows: int = 2) -> list[torch.Tensor]:
    every = torch.randint(1, size, (rows, PROMPT + steps), generator=torch.Generator().manual_seed(0))
    return [every[:, :PROMPT], *every[:, PROMPT:].split(1, 1)]


def direct(name: str) -> Callable[[Compile, int], Iterator[Step]]:
    """A model of transformers with its DynamicCache, called directly."""

    def run(compiled: Compile, steps: int) -> Iterator[Step]:
        forward, cache = compiled(_causal(name)), None
        for tokens in _tokens(steps):
            out = forward(tokens, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            yield out.logits, [t for layer in cache.layers for t in (layer.keys, layer.values)]

    return run


def generated(name: str, assistant: bool = False, **how: Any) -> Callable[[Compile, int], Iterator[Step]]:
    """``generate``, with all defaults but ``how``."""

    def run(compiled: Compile, steps: int) -> Iterator[Step]:
        model: Any = _spread(_causal(name))
        model.forward = compiled(model.forward)
        if assistant:
            how["assistant_model"] = _spread(_causal(name))
        (prompt, *_) = _tokens(0, rows=1 if assistant or "prompt_lookup_num_tokens" in how else 2)
        yield model.generate(prompt, max_new_tokens=steps, do_sample=False, **how).clone(), []

    return run


def whisper_of_transformers(compiled: Compile, steps: int) -> Iterator[Step]:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2,
             "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 32,
             "num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": 448, "pad_token_id": 0,
             "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}  # fmt: skip
    model = _spread(WhisperForConditionalGeneration(WhisperConfig(**sizes)))
    encoded = model.model.encoder(torch.randn(2, 8, 20, generator=torch.Generator().manual_seed(0)))
    forward, cache = compiled(model), None
    for tokens in _tokens(steps):
        out = forward(encoder_outputs=encoded, decoder_input_ids=tokens, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        caches = (cache.self_attention_cache, cache.cross_attention_cache)
        yield out.logits, [t for one in caches for layer in one.layers for t in (layer.keys, layer.values)]


def whisper_of_openai(compiled: Compile, steps: int) -> Iterator[Step]:
    """Its own loop: hooks, greedy, what comes after a beginning of nine tokens."""
    from whisper.decoding import DecodingOptions, DecodingTask
    from whisper.model import ModelDimensions, Whisper

    torch.manual_seed(0)
    sizes = ModelDimensions(n_mels=80, n_audio_ctx=10, n_audio_state=16, n_audio_head=2, n_audio_layer=1, n_vocab=51864,
                            n_text_ctx=448, n_text_state=16, n_text_head=2, n_text_layer=2)  # fmt: skip
    model = _spread(Whisper(sizes))
    model.decoder = compiled(model.decoder)
    task = DecodingTask(model, DecodingOptions(fp16=False, without_timestamps=True, suppress_blank=False, sample_len=steps,
                                               suppress_tokens=[50256], language="en"))  # fmt: skip
    (result,) = task.run(torch.randn(1, 80, 20, generator=torch.Generator().manual_seed(0)))
    yield torch.tensor(result.tokens), []
    yield torch.tensor(result.avg_logprob), []


def x_transformers(compiled: Compile, steps: int) -> Iterator[Step]:
    from x_transformers import Decoder, TransformerWrapper

    torch.manual_seed(0)
    layers = Decoder(dim=16, depth=2, heads=2, attn_dim_head=8, rotary_pos_emb=True)
    model = _spread(TransformerWrapper(num_tokens=32, max_seq_len=512, attn_layers=layers))
    forward, cache, seen = compiled(model), None, torch.empty(2, 0, dtype=torch.long)
    for tokens in _tokens(steps):
        seen = torch.cat([seen, tokens], 1)
        out, cache = forward(seen, return_intermediates=True, cache=cache)
        yield out[:, -1], [t for layer in cache.attn_intermediates for t in layer.cached_kv]


def by_hand(name: str) -> Callable[[Compile, int], Iterator[Step]]:
    """A model of `tests/execute/buffers/test_growth.py`: a tuple in and out, a list, a dict by module, an object."""

    def run(compiled: Compile, steps: int) -> Iterator[Step]:
        import test_growth as models

        torch.manual_seed(0)
        model = getattr(models, name)().eval()
        generator = torch.Generator().manual_seed(0)
        forward, cache = compiled(model), models.start(model)
        for step in range(steps + 1):
            out, cache = forward(torch.randn(2, 1 if step else PROMPT, 16, generator=generator), cache)
            yield out, models.tensors(cache)

    return run


WAYS: dict[str, Callable[[Compile, int], Iterator[Step]]] = {
    "llama": direct("Llama"),
    "qwen2": direct("Qwen2"),
    "mistral": direct("Mistral"),
    "gpt2": direct("GPT2"),
    "llama, greedy": generated("Llama"),
    "qwen2, greedy": generated("Qwen2"),
    "gpt2, three beams": generated("GPT2", num_beams=3),
    "llama, three beams": generated("Llama", num_beams=3),
    "llama, assisted": generated("Llama", assistant=True),
    "llama, prompt lookup": generated("Llama", prompt_lookup_num_tokens=3),
    "whisper of transformers": whisper_of_transformers,
    "openai-whisper": whisper_of_openai,
    "x-transformers": x_transformers,
    "a tuple": by_hand("Attention"),
    "a list": by_hand("Listed"),
    "a dict by module": by_hand("Hooked"),
    "an object": by_hand("Held"),
}


@torch.no_grad()
def measure(name: str, compiler: str, steps: int) -> dict[str, Any]:
    """One way, compiled and in eager, side by side."""
    fxpass.reset()
    began, made, worst, capacities = time.perf_counter(), 0, 0.0, set()
    told = store.buffered

    def see(report: fxpass.Report, *args: Any) -> None:
        told(report, *args)
        capacities.update(kind for _, kind, _ in report.buffers)

    store.buffered = see
    try:
        with counting() as counts, parts_compiled(least=64) as parts:
            mine = WAYS[name](lambda f: torch.compile(f, backend="kvfix", options={"compiler": compiler}), steps)
            for (out, cache), (wanted, other) in zip(mine, WAYS[name](lambda f: f, steps), strict=True):
                for a, b in zip([out, *cache], [wanted, *other], strict=True):
                    assert a.shape == b.shape and a.dtype == b.dtype, (name, made, a.shape, b.shape)
                    worst = max(worst, ((a - b).abs().max() / b.abs().max().clamp_min(1)).item()) if a.numel() else worst
                made += 1
    finally:
        store.buffered = told
    whole = all(not (r.refused or r.unfit or r.unbuffered or r.outside) for r in fxpass.reports())
    return {"calls": made, "steps": steps, "difference": worst, "graphs": counts.graphs, "breaks": counts.breaks,
            "cores": parts.count("core"), "buffers": sorted(capacities), "whole": whole,
            "seconds": round(time.perf_counter() - began, 1)}  # fmt: skip


def main(only: list[str] | None = None, compiler: str = "eager", steps: int = 300, json: Path | None = None) -> None:
    """Run every way, or ``only`` these."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    found = {}
    for name in only or WAYS:
        try:
            found[name] = measure(name, compiler, steps)
        except Exception as error:  # the others are run all the same
            found[name] = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
        print(name, found[name], flush=True)
    if json is not None:
        figures.write_figures(json, {"compiler": compiler, **found})


if __name__ == "__main__":
    typer.run(main)
