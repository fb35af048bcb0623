"""The two small models ttsolve trains: a Llama-architecture generator, the verifier grown from it.

Plain PyTorch, written so that one set of blocks serves training (packed rows), greedy decoding
(the twin of llama.cpp) and the export to ONNX (past keys and values in and out).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Past = tuple[Tensor, Tensor]  # keys, values: [batch, heads, past, width / heads]


@dataclass(frozen=True, slots=True)
class Apart:
    """A mask by which each document of a row attends to itself alone, causally.

    lengths: of the documents of each row, which fill it; padding behind them counts as one.
    """

    lengths: tuple[tuple[int, ...], ...]


Mask = Tensor | Apart  # [batch, 1, tokens, past + tokens], True = attend


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a language model."""

    vocabulary: int
    layers: int = 5
    width: int = 128
    heads: int = 4
    hidden: int = 352  # of the SwiGLU
    context: int = 512  # tokens
    rope_base: float = 10_000.0
    epsilon: float = 1e-5

    def as_dict(self) -> dict[str, int | float]:
        return asdict(self)


def rotate(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """Rotary position embedding on neighbouring pairs, as llama.cpp does it for `llama`.

    x: [batch, heads, tokens, size]; positions: [batch, tokens].
    """
    size = x.shape[-1]
    exponents = torch.arange(0, size, 2, dtype=torch.float32, device=x.device) / size
    angles = positions[:, None, :, None].float() * base**-exponents
    turns = torch.polar(torch.ones_like(angles), angles)
    pairs = torch.view_as_complex(x.float().unflatten(-1, (size // 2, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2)


class Block(nn.Module):
    """One pre-norm decoder layer: attention and SwiGLU."""

    def __init__(self, shape: Shape):
        super().__init__()
        width, hidden = shape.width, shape.hidden
        self.shape = shape
        self.attention_norm = nn.RMSNorm(width, eps=shape.epsilon)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.feed_norm = nn.RMSNorm(width, eps=shape.epsilon)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(
        self, x: Tensor, positions: Tensor, mask: Mask, past: Past | None = None
    ) -> tuple[Tensor, Past]:
        """x: [batch, tokens, width]."""
        y = self.attention_norm(x)
        q, k, v = (self._heads(p(y)) for p in (self.query, self.key, self.value))
        q = rotate(q, positions, self.shape.rope_base)
        k = rotate(k, positions, self.shape.rope_base)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        with torch.autocast("cpu", enabled=False):  # bfloat16 attention is slow backwards there
            attended = attend(q, k, v.to(q.dtype), mask)
        x = x + self.output(attended.transpose(1, 2).flatten(2))
        y = self.feed_norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y)), (k, v)

    def _heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.shape.heads, -1))
        return heads.transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
    """Attention: [batch, heads, tokens, size].

    Documents one by one cost what they are long; a mask costs the square of the row.
    """
    if isinstance(mask, Tensor):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    rows = []
    for row, lengths in enumerate(mask.lengths):
        own = [x[row, None].split(lengths, dim=2) for x in (q, k, v)]
        alone = [
            F.scaled_dot_product_attention(a, b, c, is_causal=True)
            for a, b, c in zip(*own, strict=True)
        ]
        rows.append(torch.cat(alone, dim=2))
    return torch.cat(rows)


class LanguageModel(nn.Module):
    """A decoder-only language model with tied embeddings."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        nn.init.normal_(self.embedding.weight, std=0.02)
        for name, weight in self.named_parameters():
            if name.endswith(("output.weight", "down.weight")):
                nn.init.normal_(weight, std=0.02 / (2 * shape.layers) ** 0.5)
            elif weight.dim() == 2 and not name.startswith("embedding"):
                nn.init.normal_(weight, std=shape.width**-0.5)

    def forward(
        self, ids: Tensor, positions: Tensor, mask: Mask, past: list[Past] | None = None
    ) -> tuple[Tensor, list[Past]]:
        """The normalised last hidden state [batch, tokens, width]; each layer's keys and values."""
        x = self.embedding(ids)
        present = []
        for i, block in enumerate(self.blocks):
            x, kv = block(x, positions, mask, past[i] if past else None)
            present.append(kv)
        return self.norm(x), present

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.embedding.weight)


class RewardModel(nn.Module):
    """A process reward model: the generator's own LM, its surprise at each token, and more layers.

    A small model that has to judge steps from its last hidden state learns how hard the problem is
    and little else: whether a token is the one the LM expected is not visible at that token, for
    the expectation was formed one position earlier. So that expectation is handed on: each position
    is told how surprised the LM was by its token; `judges` further layers weigh these surprises.
    """

    def __init__(self, trunk: LanguageModel, judges: int = 2):
        super().__init__()
        self.trunk = trunk
        self.shape = trunk.shape
        self.surprise = nn.Linear(3, trunk.shape.width)
        blocks = [Block(trunk.shape) for _ in range(judges)]
        self.judges = nn.ModuleList(blocks)
        self.norm = nn.RMSNorm(trunk.shape.width, eps=trunk.shape.epsilon)
        self.head = nn.Linear(trunk.shape.width, 1)
        for block in blocks:
            nn.init.normal_(block.output.weight, std=0.01)
            nn.init.normal_(block.down.weight, std=0.01)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, ids: Tensor, positions: Tensor, mask: Mask, past: list[Past] | None = None
    ) -> tuple[Tensor, list[Past]]:
        """Logits of P(correct | prefix up to here) [batch, tokens]; what to pass as `past` next.

        The past has one entry for each layer and a last one that carries the trunk's hidden states
        in the place of the keys (its values are empty), so that a caller treats all alike.
        """
        judged, _, present = self.heard(ids, positions, mask, past)
        return judged, present

    def heard(
        self, ids: Tensor, positions: Tensor, mask: Mask, past: list[Past] | None = None
    ) -> tuple[Tensor, Tensor, list[Past]]:
        """As `forward`; between its two the LM's log-probability of each token [batch, tokens].

        A document's first token has none; what stands there means nothing.
        """
        layers = len(self.trunk.blocks)
        hidden, present = self.trunk(ids, positions, mask, past[:layers] if past else None)
        states = self._split(hidden)
        if past:
            states = torch.cat((past[-1][0], states), dim=2)
        before = F.pad(states, (0, 0, 1, 0))[:, :, -ids.shape[1] - 1 : -1]
        # Nothing comes before a document's first token: in a packed row its neighbour is another's.
        before = before.transpose(1, 2).flatten(2) * (positions > 0)[..., None]
        surprise = self._surprise(before, ids)
        x = hidden + self.surprise(surprise.clamp(min=-12.0))
        for i, block in enumerate(self.judges):
            x, kv = block(x, positions, mask, past[layers + i] if past else None)
            present.append(kv)
        present.append((states, states[..., :0]))
        return self.head(self.norm(x)).squeeze(-1), surprise[..., 0], present

    def _surprise(self, before: Tensor, ids: Tensor) -> Tensor:
        """Each token's log-probability, the likeliest one's, the difference: [batch, tokens, 3]."""
        with torch.autocast(ids.device.type, enabled=False):  # exact, as where verifiers are used
            logs = F.log_softmax(self.trunk.logits(before.float()), dim=-1)
        own = logs.gather(-1, ids[..., None])
        best = logs.max(dim=-1, keepdim=True).values
        return torch.cat((own, best, own - best), dim=-1)

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.shape.heads, -1))
        return heads.transpose(1, 2)


def causal_mask(attention: Tensor, tokens: int) -> Tensor:
    """The mask of `tokens` new tokens behind a past.

    attention: [batch, past + tokens], 1 where a cell holds a token, 0 where it is padding.
    """
    cells = attention.shape[1]
    place = torch.arange(cells, device=attention.device)[None, :]
    rows = torch.arange(cells - tokens, cells, device=attention.device)[:, None]
    # A padded position attends to itself alone, so that no row is empty.
    return ((attention[:, None, :] > 0) & (place <= rows) | (place == rows))[:, None]
