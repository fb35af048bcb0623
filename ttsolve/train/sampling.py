"""Plain batched decoding in PyTorch: the slow twin of the real engine, for a look in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from ttsolve.train.model import LanguageModel, Past, causal_mask
from ttsolve.train.tokenizer import special_ids

AT_ONCE = 50  # prompts in one batch


@torch.no_grad()
def sample(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    temperature: float = 0.0,
    min_p: float = 0.0,
    dice: torch.Generator | None = None,
    done: Callable[[list[int]], bool] = lambda ids: False,
    limit: int = 200,
) -> list[list[int]]:
    """What the model says behind each prompt, without EOS; temperature 0 is greedy.

    done: whether what was said is all that is wanted, EOS or not. limit: new tokens, at most (and
    no more than the model's context holds). Prompts of one batch may differ in length.
    """
    bos, eos = special_ids(tokenizer)
    device = model.embedding.weight.device
    out: list[list[int]] = []
    for start in range(0, len(prompts), AT_ONCE):
        group = prompts[start : start + AT_ONCE]
        width = max(map(len, group))
        ids = torch.tensor([[bos] * (width - len(p)) + list(p) for p in group], device=device)
        real = [[0] * (width - len(p)) + [1] * len(p) for p in group]
        attention = torch.tensor(real, device=device)
        positions = (attention.cumsum(1) - 1).clamp(min=0)
        past: list[Past] | None = None
        said: list[list[int]] = [[] for _ in group]
        running = set(range(len(group)))
        for _ in range(min(limit, model.shape.context - width)):
            hidden, past = model(ids, positions, causal_mask(attention, ids.shape[1]), past)
            ids = _drawn(model.logits(hidden[:, -1]), temperature, min_p, dice)
            positions = positions[:, -1:] + 1
            attention = F.pad(attention, (0, 1), value=1)
            for row in tuple(running):
                if (token := int(ids[row])) != eos:
                    said[row].append(token)
                if token == eos or done(said[row]):
                    running.remove(row)
            if not running:
                break
        out += said
    return out


def _drawn(
    logits: Tensor, temperature: float, min_p: float, dice: torch.Generator | None
) -> Tensor:
    """One token of each row: [batch, 1]."""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    # As llama.cpp's chain does it: the threshold is applied before the temperature.
    probabilities = logits.softmax(-1)
    unlikely = probabilities < min_p * probabilities.max(-1, keepdim=True).values
    heated = (logits / temperature).masked_fill(unlikely, -torch.inf).softmax(-1)
    return torch.multinomial(heated.cpu(), 1, generator=dice).to(logits.device)
