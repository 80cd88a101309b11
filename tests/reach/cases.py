"""Packages from PyPI as they are, tiny and with random weights: one case for each way in which they keep their position.

A case has ``steps(compiled, device)``. It makes its model on ``device`` from a fixed seed, hands the callable that is
to be compiled to ``compiled``, decodes with it, and yields after each call what came out and the buffers that the call may
have changed, as copies: what a CUDA graph returns lies in memory that the next call overwrites.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Compile = Callable[..., Callable[..., Any]]
Step = tuple[Tensor, list[Tensor]]
PROMPT, DECODED = 5, 8


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table.

    where, pattern: the file of the package, and how its position moves.
    ours: whether there is something to rewrite; a control must stay untouched.
    graphs, breaks: the most there may be; the breaks are the package's own, named in ``note``.
    blocks: how many blocks of the model are compiled, where they are compiled one by one.
    """

    name: str
    where: str
    pattern: str
    steps: Callable[[Compile, str], Iterator[Step]]
    ours: bool = True
    graphs: int = 2
    breaks: int = 0
    note: str = ""
    blocks: int = 1


@dataclasses.dataclass(frozen=True)
class Series:
    """What a forecast of `toto` is made of."""

    batch: int = 1
    variates: int = 2
    ids: bool = False
    exogenous: int = 0


def toto(
    compiled: Compile, device: str, series: Sequence[Series] = (Series(),), layers: Sequence[int] = (2,), **how: Any
) -> Iterator[Step]:
    """Models with so many ``layers``, one after the other, and a forecast of each of the ``series`` with each."""
    for number in layers:
        torch.manual_seed(0)
        with torch.device(device):
            model = _toto(number)
        forward = compiled(model.model.forward, **how)
        for one in series:
            yield from _forecast(model, forward, one, device)


def _toto(layers: int) -> Any:
    from toto.model.toto import Toto

    return Toto(
        patch_size=8,
        stride=8,
        embed_dim=16,
        num_layers=layers,
        num_heads=2,
        mlp_hidden_dim=32,
        dropout=0.0,
        spacewise_every_n_layers=layers if layers % 2 else 2,  # it has to divide them
        scaler_cls="<class 'model.scaler.CausalPatchStdMeanScaler'>",
        output_distribution_classes=["<class 'model.distribution.MixtureOfStudentTsOutput'>"],
        output_distribution_kwargs={"k_components": 2},
        use_memory_efficient_attention=False,
    ).eval()


def _forecast(model: Any, forward: Callable[..., Any], what: Series, device: str, context: int = 40) -> Iterator[Step]:
    from toto.data.util.dataset import MaskedTimeseries
    from toto.inference.forecaster import TotoForecaster

    steps: list[Step] = []

    def seen(**inputs: Any) -> Any:
        out, cache = forward(**inputs), inputs["kv_cache"]
        steps.append((out[0].mean.clone(), [t.clone() for t in (cache._keys, cache._values, cache._current_idx)]))
        return out

    shape, horizon = (what.batch, what.variates, context), 72
    series = torch.randn(shape)
    ids = torch.arange(what.variates)[:, None].remainder(2).expand(shape) if what.ids else torch.zeros(shape)
    inputs = MaskedTimeseries(
        series=series,
        padding_mask=torch.ones_like(series, dtype=torch.bool),
        id_mask=ids.float(),
        timestamp_seconds=torch.zeros_like(series),
        time_interval_seconds=torch.full(shape[:2], 60),
        **({"num_exogenous_variables": what.exogenous} if what.exogenous else {}),
    ).to(torch.device(device))
    given = torch.randn(what.batch, what.exogenous, horizon).to(device) if what.exogenous else None
    extra = {} if given is None else {"future_exogenous_variables": given}
    model.model.forward, stock = seen, model.model.forward
    try:
        made = TotoForecaster(model.model).forecast(
            inputs, prediction_length=horizon, num_samples=None, use_kv_cache=True, **extra
        )
    finally:
        model.model.forward = stock
    yield from [*steps, (made.mean, [])]


def timesfm(compiled: Compile, device: str) -> Iterator[Step]:
    from timesfm.timesfm_2p5.timesfm_2p5_torch import TimesFM_2p5_200M_torch_module as Stock

    class Tiny(Stock):
        config = _shrunk(Stock.config)

    torch.manual_seed(0)
    with torch.device(device):
        model = Tiny().eval()
    forward = compiled(model.forward)
    steps: list[Step] = []

    def seen(inputs: Tensor, masks: Tensor, caches: Any) -> Any:
        out = forward(inputs, masks, caches)
        made = [t.clone() for cache in out[-1] for t in (cache.key, cache.value, cache.next_index)]
        steps.append((torch.cat([t.flatten() for t in out[0]]), made))
        return out

    model.forward = seen  # type: ignore[method-assign]
    series = torch.randn(2, PROMPT * model.p).to(device)
    out = model.decode(model.o * (DECODED + 1), series, torch.zeros_like(series, dtype=torch.bool))
    yield from [*steps, (torch.cat([t.flatten() for t in out if isinstance(t, Tensor)]), [])]


def _shrunk(config: Any) -> Any:
    replace = dataclasses.replace
    width, heads = 16, 2
    block = replace(config.tokenizer, hidden_dims=width, output_dims=width, input_dims=16)
    out = replace(config.output_projection_point, input_dims=width, hidden_dims=width)
    transformer = replace(config.stacked_transformers.transformer, model_dims=width, hidden_dims=width, num_heads=heads)
    return replace(
        config,
        input_patch_len=8,
        output_patch_len=8,
        output_quantile_len=16,
        tokenizer=block,
        stacked_transformers=replace(config.stacked_transformers, num_layers=2, transformer=transformer),
        output_projection_point=replace(out, output_dims=8 * 10),
        output_projection_quantiles=replace(out, output_dims=16 * 10),
    )


def _litgpt(compiled: Compile, device: str, sliced: bool, blocks: bool = False, **extra: Any) -> Iterator[Step]:
    from litgpt.config import Config
    from litgpt.model import GPT

    torch.manual_seed(0)
    config = Config(
        block_size=16,
        n_layer=2,
        n_head=2,
        n_query_groups=1,
        n_embd=16,
        intermediate_size=32,
        vocab_size=32,
        padded_vocab_size=32,
        rotary_percentage=1.0,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
        bias=False,
        parallel_residual=False,
        **extra,
    )
    with torch.device(device):
        model = GPT(config).eval()
        model.set_kv_cache(batch_size=1, max_seq_length=16)
    forward = _one_by_one(compiled, model.transformer.h, model) if blocks else compiled(model)
    for tokens, start, end in _calls(device):
        positions = torch.arange(start, end, device=device)
        given = {"input_pos_maxp1": end} if sliced else {}
        yield forward(tokens, input_pos=positions, **given).clone(), [b.clone() for b in model.buffers()]


def _one_by_one(compiled: Compile, blocks: Any, model: Callable[..., Any]) -> Callable[..., Any]:
    """``model``, whose ``blocks`` are compiled each for itself."""
    for block in blocks:
        block.forward = compiled(block.forward)
    return model


def _calls(device: str) -> list[tuple[Tensor, int, int]]:
    """The prompt, then single tokens, each with where it starts and ends. Drawn before anything is compiled."""
    bounds = itertools.pairwise([0, *range(PROMPT, PROMPT + DECODED + 1)])
    return [(torch.randint(32, (1, end - start)).to(device), start, end) for start, end in bounds]


def litgpt_sliced(compiled: Compile, device: str) -> Iterator[Step]:
    return _litgpt(compiled, device, True)


def litgpt_static(compiled: Compile, device: str) -> Iterator[Step]:
    return _litgpt(compiled, device, False)


def litgpt_window(compiled: Compile, device: str) -> Iterator[Step]:
    return _litgpt(compiled, device, False, sliding_window_size=8, sliding_window_indices=[1, 1])


def llama(compiled: Compile, device: str, blocks: bool = False) -> Iterator[Step]:
    _stand_in_for_fairscale()
    from llama_models.llama3.args import ModelArgs
    from llama_models.llama3.model import Transformer

    torch.manual_seed(0)
    arguments = ModelArgs(
        dim=16, n_layers=2, n_heads=2, n_kv_heads=1, vocab_size=32, multiple_of=8, max_batch_size=2, max_seq_len=16
    )
    with torch.device(device):
        model = Transformer(arguments).eval()
    stock = types.MethodType(Transformer.forward.__wrapped__, model)
    forward = _one_by_one(compiled, model.layers, stock) if blocks else compiled(stock)
    for tokens, start, _ in _calls(device):
        with torch.inference_mode():  # in place of the method's decorator
            out = forward(tokens, start).clone()
        yield out, [t.clone() for layer in model.layers for t in (layer.attention.cache_k, layer.attention.cache_v)]


def _stand_in_for_fairscale() -> None:
    """fairscale's parallel layers on a single rank are plain ones."""

    def linear(fan_in: int, fan_out: int, bias: bool = True, **_: Any) -> nn.Linear:
        return nn.Linear(fan_in, fan_out, bias=bias)

    def embedding(rows: int, width: int, **_: Any) -> nn.Embedding:
        return nn.Embedding(rows, width)

    names = {
        "fairscale": {},
        "fairscale.nn": {},
        "fairscale.nn.model_parallel": {},
        "fairscale.nn.model_parallel.initialize": {"get_model_parallel_world_size": lambda: 1},
        "fairscale.nn.model_parallel.layers": {
            "ColumnParallelLinear": linear,
            "RowParallelLinear": linear,
            "VocabParallelEmbedding": embedding,
        },
    }
    for name, values in names.items():
        if name not in sys.modules:
            module = types.ModuleType(name)
            module.__dict__.update(values)
            sys.modules[name] = module
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)


SMALL: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
"""A model of transformers."""


def transformers_static(compiled: Compile, device: str, blocks: bool = False) -> Iterator[Step]:
    from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

    torch.manual_seed(0)
    config = LlamaConfig(**SMALL, max_position_embeddings=16)
    with torch.device(device):
        model = LlamaForCausalLM(config).eval()
    cache = StaticCache(config=config, max_cache_len=16)
    # What the package asks for where the prefill is compiled too.
    cache.early_initialization(1, num_heads=1, head_dim=8, dtype=torch.float32, device=torch.device(device))
    forward = _one_by_one(compiled, model.model.layers, model) if blocks else compiled(model)
    for tokens, start, end in _calls(device):
        positions = torch.arange(start, end, device=device)[None]
        out = forward(tokens, past_key_values=cache, position_ids=positions, use_cache=True).logits.clone()
        yield out, [t.clone() for layer in cache.layers for t in (layer.keys, layer.values)]


def transformers_dynamic(compiled: Compile, device: str, window: int | None = None) -> Iterator[Step]:
    from transformers import DynamicCache, MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(**SMALL, max_position_embeddings=64, sliding_window=window)
    with torch.device(device):
        model = MistralForCausalLM(config).eval()
    forward, cache = compiled(model), DynamicCache(config=config)
    for tokens, _, _ in _calls(device):
        out = forward(tokens, past_key_values=cache, use_cache=True).logits.clone()
        yield out, [t.clone() for layer in cache.layers for t in (layer.keys, layer.values)]


def x_transformers(compiled: Compile, device: str) -> Iterator[Step]:
    from x_transformers import Decoder, TransformerWrapper

    torch.manual_seed(0)
    layers = Decoder(dim=16, depth=2, heads=2, attn_dim_head=8, rotary_pos_emb=True)
    model = TransformerWrapper(num_tokens=32, max_seq_len=64, attn_layers=layers).eval().to(device)
    forward, cache, seen = compiled(model), None, torch.empty(1, 0, dtype=torch.long, device=device)
    for tokens, _, _ in _calls(device):
        seen = torch.cat([seen, tokens], 1)
        out, cache = forward(seen, return_intermediates=True, cache=cache)
        yield out[:, -1].clone(), [t.clone() for layer in cache.attn_intermediates for t in layer.cached_kv]


def whisper(compiled: Compile, device: str) -> Iterator[Step]:
    from whisper.model import ModelDimensions, Whisper

    torch.manual_seed(0)
    sizes = ModelDimensions(n_mels=8, n_audio_ctx=6, n_audio_state=16, n_audio_head=2, n_audio_layer=1, n_vocab=32,
                            n_text_ctx=64, n_text_state=16, n_text_head=2, n_text_layer=2)  # fmt: skip
    model = Whisper(sizes).eval().to(device)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    cache, hooks = model.install_kv_cache_hooks()
    audio, forward = torch.randn(1, 6, 16, device=device), compiled(model.decoder)
    for tokens, _, _ in _calls(device):
        out = forward(tokens, audio, kv_cache=cache).clone()
        yield out, [t.clone() for t in cache.values()]
    for hook in hooks:
        hook.remove()


WINDOW = "a third graph once the window is full: the package branches on it"
OUTSIDE = "its `inference_mode` is entered outside: AOTAutograd fails on it"
FILLED = "the window's fill, the step that fills it, and two layouts of the full one, are graphs, as in stock"

def _blocks(steps: Callable[..., Iterator[Step]], *args: Any) -> Callable[[Compile, str], Iterator[Step]]:
    return lambda compiled, device: steps(compiled, device, *args, blocks=True)


CASES = [
    Case("toto-ts", "model/util.py KVCache", "tensor index + `.item()`, tensor slice bounds", toto),
    Case("timesfm", "timesfm/torch/transformer.py", "write at `start = next_index[0]`, full read + mask", timesfm),
    Case("litgpt", "model.py, `input_pos_maxp1`", "int length read, tensor write, sliced mask", litgpt_sliced),
    Case(
        "litgpt, window",
        "model.py, sliding window",
        "`input_pos.max().item()`, rolling window",
        litgpt_window,
        graphs=3,
        note=WINDOW,
    ),
    Case("litgpt, static", "model.py, `input_pos_maxp1=None`", "already static", litgpt_static, ours=False),
    Case(
        "llama-models",
        "llama3/model.py Attention",
        "`start_pos: int`, `cache_k[:bsz, :start_pos + n]`",
        llama,
        note=OUTSIDE,
    ),
    Case("transformers", "Llama with StaticCache", "already static", transformers_static, ours=False),
    Case("transformers, dynamic", "DynamicCache", "`cat([past, new], -2)`", transformers_dynamic),
    Case(
        "transformers, dynamic window",
        "Mistral, DynamicCache",
        "`cat([past, new], -2)[:, :, -window + 1:]`",
        lambda compiled, device: transformers_dynamic(compiled, device, 9),
        graphs=5,
        note=FILLED,
    ),
    Case("x-transformers", "x_transformers.py", "`cat((ck, k), -2)`", x_transformers),
    Case("whisper", "model.py, hooks", "`cat([cache[module], output], 1)`", whisper),
    Case("litgpt, blocks", "model.py Block", "each block compiled; a mask cut to the length", _blocks(_litgpt, True), blocks=2),
    Case("llama-models, blocks", "llama3/model.py", "each block compiled; `start_pos: int`", _blocks(llama), blocks=2),
    Case(
        "transformers, blocks",
        "LlamaDecoderLayer",
        "each block compiled; already static",
        _blocks(transformers_static),
        ours=False,
        blocks=2,
    ),
]
