"""A small Llama whose cache is sliced by a Python int, as in Llama's reference implementation: ``forward(tokens, start)``.

Stock Dynamo makes `start` a symbol, with which the sizes of what is read from the cache move at each step. kvfix compiles one
static decode step. Printed: whether the tokens are eager's, the graphs, and the sites of the decode step.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpass

WIDTH, HEADS, KV_HEADS, LAYERS, VOCABULARY, CAPACITY, STEPS = 64, 4, 2, 2, 128, 64, 32
DIM = WIDTH // HEADS


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Rotary embedding: pairs of channels of ``x``, (batch, rows, heads, dim), as complex numbers."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns[:, None]).flatten(-2)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(WIDTH) for _ in range(2))
        self.q, self.o = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.kv = nn.Linear(WIDTH, 2 * KV_HEADS * DIM, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(2 * WIDTH, WIDTH, bias=False)
        self.register_buffer("cache", torch.zeros(2, 1, CAPACITY, KV_HEADS, DIM), persistent=False)

    def forward(self, x: Tensor, start: int, turns: Tensor) -> Tensor:
        rows = self.norms[0](x)
        q = rotate(self.q(rows).unflatten(-1, (HEADS, DIM)), turns)
        k, v = self.kv(rows).unflatten(-1, (2, KV_HEADS, DIM)).unbind(2)
        end = start + x.shape[1]
        self.cache[0, :, start:end] = rotate(k, turns)
        self.cache[1, :, start:end] = v
        k, v = self.cache[:, :, :end].transpose(2, 3)
        attended = F.scaled_dot_product_attention(q.transpose(1, 2), k, v, is_causal=start == 0, enable_gqa=True)
        x = x + self.o(attended.transpose(1, 2).flatten(2))
        gate, up = self.up(self.norms[1](x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Llama(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm, self.head = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)
        angles = torch.outer(torch.arange(CAPACITY), 10000 ** -(torch.arange(0, DIM, 2) / DIM))
        self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles), persistent=False)

    def forward(self, tokens: Tensor, start: int) -> Tensor:
        x, turns = self.embedding(tokens), self.turns[start : start + tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, start, turns)
        return self.head(self.norm(x[:, -1]))


@torch.no_grad()
def generate(step, prompt: Tensor) -> Tensor:
    """The prompt, and as many tokens as there are steps, each the likeliest."""
    tokens, start = prompt, 0
    for _ in range(STEPS):
        following = step(tokens[:, start:], start).argmax(-1, keepdim=True)
        tokens, start = torch.cat([tokens, following], 1), tokens.shape[1]
    return tokens


def main() -> None:
    torch.manual_seed(0)
    model, prompt = Llama().eval(), torch.randint(VOCABULARY, (1, 8))
    expected = generate(model, prompt)
    # "eager" runs the rewritten graph as it is; leave the options out to have Inductor compile it.
    compiled = torch.compile(model, backend="kvfix", fullgraph=True, options={"compiler": "eager"})
    same = torch.equal(generate(compiled, prompt), expected)
    print(f"{STEPS} tokens, as in eager: {same}; graphs: {len(fxpass.reports())} (prefill and decode)\n")
    print(fxpass.reports()[-1])
    sys.exit(not same)


if __name__ == "__main__":
    main()
