"""GGUF generators through llama.cpp, in process.

Turns solutions into token prefixes and back. Batching, sharing of prefixes and stopping are the
decode loop's (`decode`), of which a small model has several (`loops`); llama.cpp itself is behind
`llama_model` and `llama_context`.

KV layout. "split" gives each sequence its own cells: attention reads only its own, a fork copies.
"unified" lets sequences share cells: forks are free, attention runs over the cells of all. On a CPU
split was 3 to 5 times faster at width 64 for a small model, so "auto" is split there. On a GPU it
is unified, for its memory is scarcer: a rule that no measurement stands behind yet.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ttsolve.chat import chat_format
from ttsolve.core import Solution, Usage
from ttsolve.engine import Sampling, Watch
from ttsolve.engines.decode import DecodeLoop
from ttsolve.engines.kvtree import KVTree
from ttsolve.engines.llama_context import MOST, open_contexts
from ttsolve.engines.llama_model import LlamaModel
from ttsolve.engines.llama_open import open_undisturbed
from ttsolve.engines.loops import Loops
from ttsolve.engines.request import Request
from ttsolve.engines.rollouts import Known
from ttsolve.errors import ModelError, ProblemTooLong, UsageError
from ttsolve.gguf_file import read_gguf
from ttsolve.pair_files import fingerprint
from ttsolve.prompts import PromptFormat, thinks

BREAK = "\ufdd0"  # no character: where a text is cut so that no control token is read there


class LlamaGenerator:
    """A GGUF model as a generator, with room for `width` running samples.

    `adapter`: a LoRA adapter over the model; its weights are read from one file with those of a
    generator without it, which the system keeps in memory once (but not on a GPU).
    `width`: None: 64 (of a small model 16 for each core, if those are more), or what 2 GiB of cache
    allow of sequences of the `context` named. `context`: tokens of one sequence, prompt and
    solution (None: what the model was trained for, at most 4096 and what 2 GiB of cache allow).
    `gpu_layers`: layers on the GPU, if there is one; -1: all. `loops`: how many decode side by side
    and share the width (None: one; of a small model on the CPU one for each core, if there are 16
    sequences for each); a new prompt is decoded once in each that gets a part of its samples.
    `threads`: CPU threads of a loop (None: one if there are several loops or the model is small,
    else what is fastest). `kv`: the layout, see above.

    Raises:
        ModelError: when the file is missing, damaged, or not a text generator, or has no chat
            template for a prompt that is a chat.
        UsageError: when `width` is not from 1 to 256, or `loops` not from 1 to `width`.
    """

    def __init__(
        self,
        path: Path,
        prompt: PromptFormat,
        *,
        adapter: Path | None = None,
        width: int | None = None,
        context: int | None = None,
        gpu_layers: int = -1,
        threads: int | None = None,
        loops: int | None = None,
        kv: Literal["auto", "unified", "split"] = "auto",
    ) -> None:
        if width is not None and not 1 <= width <= MOST:
            raise UsageError(f"A width of {width} is not possible: choose one from 1 to {MOST}.")
        prompt = _with_template(prompt, path) if prompt.chat else prompt
        model, contexts = open_undisturbed(
            partial(LlamaModel, path, adapter=adapter, gpu_layers=gpu_layers),
            partial(
                open_contexts, width=width, context=context, threads=threads, loops=loops, kv=kv
            ),
        )
        self.prompt = prompt
        files = "-".join(fingerprint(file) for file in (path, adapter) if file)
        self.name = f"{files}-{blake2b(repr(prompt).encode(), digest_size=4).hexdigest()}"
        self.params = model.params
        self.vocab_size = model.vocab_size
        self.width = sum(context.width for context in contexts)
        self.context, self.kv = contexts[0].context, contexts[0].kv
        self.loops, self.threads = len(contexts), contexts[0].threads  # threads of each loop
        self.device = model.gpu or _in_words(self.loops, self.threads)
        self._model = model
        known = Known(self.vocab_size)
        self._loops = [
            DecodeLoop(c, prompt, KVTree(c.width, c.context, c.cells), known) for c in contexts
        ]
        self._serving = Loops(self._loops)
        # At exit too: the interpreter must not take llama.cpp's memory from under its threads.
        self._close = weakref.finalize(self, _close, self._serving, model)
        self._prompt_ids = lru_cache(maxsize=1024)(self._render)
        self._begins_thinking = prompt.chat and thinks(prompt.render(""))

    def sample(
        self,
        prefixes: Sequence[Solution],
        how: Sequence[Sampling],
        watch: Watch | None = None,
        stop: threading.Event | None = None,
    ) -> tuple[list[Solution], Usage]:
        """Continue each prefix as its `Sampling` says: see `ttsolve.engine.Generator`.

        A continuation that reaches the end of the context finishes with "length". Of the earlier
        attempts the oldest are left out where they would leave no room for another one: what comes
        back holds those that were shown. On Ctrl-C this call's samples are dropped within a second,
        and the generator stays usable.

        Raises:
            ProblemTooLong: when a problem leaves no room for a solution.
        """
        out = list(prefixes)
        place: dict[int, int] = {}  # request (by its id) -> its prefix
        requests: list[Request] = []
        for i, (prefix, sampling) in enumerate(zip(prefixes, how, strict=True)):
            if prefix.done:
                continue
            out[i], request = self._request(prefix, sampling)
            if request is None:
                out[i] = out[i].grow(finish="length")
                continue
            request.thinks = thinks(prefix.text, self._begins_thinking)
            place[id(request)] = i
            requests.append(request)

        def heard(request: Request) -> None:
            i = place[id(request)]
            out[i] = out[i].grow(*request.steps, finish=request.finish)
            if watch:
                watch(i, out[i])

        self._serving.serve(requests, heard, stop)
        return out, Usage(
            generated_tokens=sum(request.generated for request in requests),
            prompt_tokens=sum(request.decoded for request in requests),
            reused_tokens=sum(request.reused for request in requests),
        )

    def tokenize(self, text: str) -> list[int]:
        """The generator's token ids of a text."""
        return self._model.tokenize(text)

    def timing(self) -> tuple[float, float]:
        """Seconds spent in all decode loops so far, and how many of them inside llama_decode."""
        return sum(x.seconds for x in self._loops), sum(x.model.seconds for x in self._loops)

    def decoded(self) -> int:
        """Tokens decoded so far: prompts, and once what several samples share."""
        return sum(loop.model.decoded for loop in self._loops)

    def close(self) -> None:
        """Free the model; safe to call twice."""
        self._close()

    def __enter__(self) -> LlamaGenerator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _render(self, question: str, attempts: tuple[str, ...] = ()) -> NDArray[np.int32]:
        text = self.prompt.render(self._plain(question), [self._plain(a) for a in attempts])
        ids = self._tokens(text, start=True)
        if len(ids) >= self.context and not attempts:  # these can be left out
            raise ProblemTooLong(
                f"The problem takes {len(ids)} tokens of the generator's context of {self.context} "
                "and leaves no room for a solution: shorten it, or use a pair with a longer one."
            )
        return np.array(ids, np.int32)

    def _request(self, prefix: Solution, how: Sampling) -> tuple[Solution, Request | None]:
        """The prefix as it is shown, and what to ask of the loop; None: it fills the context."""
        ids = self._before(prefix)
        while prefix.attempts and not prefix.steps and len(ids) + how.max_tokens > self.context:
            prefix = replace(prefix, attempts=prefix.attempts[1:])
            ids = self._before(prefix)
        if prefix.steps:
            ids = np.concatenate([ids, self._ids(prefix)])
        room = min(how.max_tokens, self.context - len(ids))
        if room <= 0:
            return prefix, None
        return prefix, Request(ids, how, room, chained=prefix.chain is not None)

    def _before(self, prefix: Solution) -> NDArray[np.int32]:
        """The tokens of the prompt: the question before each of the earlier attempts, and again."""
        question = prefix.problem.question
        if self.prompt.chat or not prefix.attempts:
            return self._prompt_ids(question, tuple(attempt.text for attempt in prefix.attempts))
        # Attempts as they were generated, whatever a tokenizer would make of them: the cache has
        # them so.
        again = np.array(self._tokens(self.prompt.again(self._plain(question))), np.int32)
        parts = [part for a in prefix.attempts for part in (self._ids(a, ended=True), again)]
        return np.concatenate([self._prompt_ids(question, ()), *parts])

    def _tokens(self, text: str, start: bool = False) -> list[int]:
        """The token ids of a text that may be cut."""
        parts = enumerate(text.split(BREAK))
        return [t for i, part in parts for t in self._model.tokenize(part, start=start and i == 0)]

    def _plain(self, text: str) -> str:
        """What somebody wrote, cut within each control token that it would be read as."""
        for control in self._model.controls:
            text = text.replace(control, f"{control[0]}{BREAK}{control[1:]}")
        return text

    def _ids(self, solution: Solution, ended: bool = False) -> NDArray[np.int32]:
        """The tokens of a solution's steps; `ended`: with the separator that it may lack."""
        said = (step.ids or self._tokens(self._plain(step.text)) for step in solution.steps)
        ids = [token for tokens in said for token in tokens]
        if ended and not solution.text.endswith(self.prompt.separator):
            ids += self.tokenize(self.prompt.separator)
        return np.array(ids, np.int32)


def _with_template(prompt: PromptFormat, path: Path) -> PromptFormat:
    """The format with the chat template of the generator's file."""
    file = read_gguf(path)
    if not file.chat_template:
        raise ModelError(
            f"{path} has no chat template: give examples for a plain prompt with --few-shot FILE, "
            "or take `chat` out of its pair.toml."
        )
    return chat_format(prompt, file.chat_template, file.bos, file.eos)


def _in_words(loops: int, threads: int) -> str:
    each = "1 thread" if threads == 1 else f"{threads} threads"
    return f"CPU, {each}" if loops == 1 else f"CPU, {loops} loops of {each}"


def _close(serving: Loops, model: LlamaModel) -> None:
    serving.close()
    model.close()
