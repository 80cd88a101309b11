"""transformers' Llama, unedited, with its default DynamicCache, on a CPU: ``pip install transformers``.

The cache is made longer by `cat` at each step, so that each has another size. kvfix compiles one static decode step all the
same; `generate` runs on it, greedy and with beams. Printed: whether the tokens are eager's, the graphs, and how the last one
was cut. The model is tiny, with random weights.
"""

from __future__ import annotations

import sys
import warnings

import torch
from torch._dynamo.utils import counters

import fxpass

warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|torch")

try:
    from transformers import LlamaConfig, LlamaForCausalLM
except ImportError as error:
    sys.exit(f"{error}. This example needs one more package: pip install transformers")

CONFIG = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                     vocab_size=128, max_position_embeddings=512, bos_token_id=1, eos_token_id=None,
                     pad_token_id=0)  # fmt: skip


def main() -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG).eval()
    prompt = torch.randint(2, CONFIG.vocab_size, (2, 12))
    ways = {"greedy": {"do_sample": False}, "three beams": {"num_beams": 3}}
    wanted = {name: model.generate(prompt, max_new_tokens=56, **way) for name, way in ways.items()}
    model.forward = torch.compile(model.forward, backend="kvfix", options={"compiler": "eager"})
    same = True
    for name, way in ways.items():
        tokens = model.generate(prompt, max_new_tokens=56, **way)
        same &= torch.equal(tokens, wanted[name])
        print(f"{name}: {tokens.shape[1]} tokens, as in eager: {torch.equal(tokens, wanted[name])}")
        print(f"  graphs so far: {counters['stats']['unique_graphs']}, breaks: {sum(counters['graph_break'].values())}")
        print(f"  {str(fxpass.reports()[-1]).splitlines()[0]}")
    for symbol in fxpass.reports()[-1].symbols:
        print(f"{symbol.of}: {symbol.kind}")
    sys.exit(not same)


if __name__ == "__main__":
    main()
