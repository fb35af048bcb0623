"""Plain batched decoding in PyTorch: the slow twin of the real engine, for a look in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from ttsolve.train.model import LanguageModel, Past, causal_mask
from ttsolve.train.tokenizer import special_ids
from ttsolve.train.work import SAMPLING

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
    limit: int = SAMPLING.max_tokens,
) -> list[list[int]]:
    """What the model says behind each prompt, without EOS; temperature 0 is greedy.

    done: whether what was said is all that is wanted, EOS or not. limit: new tokens, at most (and
    no more than the model's context holds). Prompts of one batch may differ in length.
    """
    bos, eos = special_ids(tokenizer)
    device = model.embedding.weight.device
    out: list[list[int]] = [[] for _ in prompts]
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(prompts), AT_ONCE):
        running = by_length[start : start + AT_ONCE]
        group = [prompts[i] for i in running]
        width = max(map(len, group))
        ids = torch.tensor([[bos] * (width - len(p)) + list(p) for p in group], device=device)
        real = [[0] * (width - len(p)) + [1] * len(p) for p in group]
        attention = torch.tensor(real, device=device)
        positions = (attention.cumsum(1) - 1).clamp(min=0)
        past: list[Past] | None = None
        for _ in range(min(limit, model.shape.context - width)):
            hidden, past = model(ids, positions, causal_mask(attention, ids.shape[1]), past)
            ids = _drawn(model.logits(hidden[:, -1]), temperature, min_p, dice)
            positions = positions[:, -1:] + 1
            attention = F.pad(attention, (0, 1), value=1)
            stay = []
            for row, (prompt, token) in enumerate(zip(running, ids[:, 0].tolist(), strict=True)):
                if token != eos:
                    out[prompt].append(token)
                if token != eos and not done(out[prompt]):
                    stay.append(row)
            if not stay:
                break
            if len(stay) < len(running):  # a short answer does not wait for the longest
                ids, positions, attention = ids[stay], positions[stay], attention[stay]
                past = [(keys[stay], values[stay]) for keys, values in past]
                running = [running[row] for row in stay]
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
