"""Generators behind an OpenAI-compatible endpoint: vLLM, SGLang, llama-server.

A prefix is continued by the completions API, as a stream, which is left as soon as the steps that
were asked for are there; a chat API cannot go on in the middle of an answer. Each sample is a
request of its own with a seed of its own, so that it can be kept and repeated: a server that caches
prefixes computes their prompt once.
"""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any

from ttsolve.core import Solution, Usage
from ttsolve.engine import Sampling, Watch
from ttsolve.engines.served import Server, served_format
from ttsolve.engines.textsteps import TextSteps
from ttsolve.errors import ProblemTooLong
from ttsolve.prompts import PromptFormat, thinks

KEY = "TTSOLVE_API_KEY"  # of the environment; it goes into no file and no message
AT_ONCE = 64  # requests
PATIENCE = 2.0  # seconds to wait for what is under way when a run is to stop
POLL = 0.05  # seconds between two looks at a caller's stop event

Jobs = queue.SimpleQueue[Callable[[], None] | None]


class EndpointGenerator:
    """A model behind `url`, http://HOST/v1; `model`: which (None: the first that it lists).

    Raises:
        ModelError: it does not answer, has no such model, or tells no chat template for a prompt
            that is a chat.
        UsageError: the address holds a password.
    """

    def __init__(
        self, url: str, prompt: PromptFormat, model: str | None = None, *, at_once: int = AT_ONCE
    ) -> None:
        self._server = server = Server(url, os.environ.get(KEY), at_once)
        try:
            self.model = model or server.first_model()
            self.prompt, self._extra = served_format(prompt, server, self.model)
        except Exception:
            server.close()
            raise
        self.device = f"{self.model} at {url}"
        self.params = 0  # nobody tells
        key = repr((url, self.model, prompt))
        self.name = f"endpoint-{blake2b(key.encode(), digest_size=12).hexdigest()}"
        self._render = lru_cache(maxsize=1024)(self.prompt.render)
        self._begins_thinking = prompt.chat and thinks(self._render(""))
        self._jobs: Jobs = queue.SimpleQueue()
        for _ in range(at_once):  # daemons: a silent server keeps nobody from leaving
            threading.Thread(target=_work, args=[self._jobs], daemon=True).start()
        self._close = weakref.finalize(self, _hang_up, server, self._jobs, at_once)

    def sample(
        self,
        prefixes: Sequence[Solution],
        how: Sequence[Sampling],
        watch: Watch | None = None,
        stop: threading.Event | None = None,
    ) -> tuple[list[Solution], Usage]:
        """Continue each prefix as its `Sampling` says: see `ttsolve.engine.Generator`.

        Tokens are counted as the server sends them.

        Raises:
            ProblemTooLong: when a problem leaves no room for a solution.
            TtsolveError: when the server fails for good.
        """
        out = list(prefixes)
        left = {i for i, prefix in enumerate(prefixes) if not prefix.done}
        ended: queue.SimpleQueue[tuple[int, TextSteps | Exception]] = queue.SimpleQueue()
        leave = threading.Event()  # for the requests of this call

        def job(i: int) -> None:
            ended.put((i, self._tried(prefixes[i], how[i], leave)))

        for i in sorted(left):
            self._jobs.put(partial(job, i))
        usage, patience = Usage(), PATIENCE
        try:
            while left and patience > 0:
                if stop is not None and stop.is_set():
                    leave.set()
                    patience -= POLL
                try:
                    i, grown = ended.get(timeout=POLL)
                except queue.Empty:
                    continue
                if isinstance(grown, Exception):
                    raise grown
                left.discard(i)
                usage += grown.usage
                out[i] = prefixes[i].grow(*grown.steps, finish=grown.finish)
                if watch:
                    watch(i, out[i])
        finally:
            leave.set()
        for i in left:  # a server that is silent when all is to stop
            out[i] = prefixes[i].grow(finish="budget")
        return out, usage

    def close(self) -> None:
        """Hang up; safe to call twice."""
        self._close()

    def _tried(
        self, prefix: Solution, how: Sampling, leave: threading.Event
    ) -> TextSteps | Exception:
        try:
            return self._continue(prefix, how, leave)
        except Exception as error:
            return error

    def _continue(self, prefix: Solution, how: Sampling, leave: threading.Event) -> TextSteps:
        attempts = tuple(attempt.text for attempt in prefix.attempts)
        text = self._render(prefix.problem.question, attempts) + prefix.text
        thinking = thinks(prefix.text, self._begins_thinking)

        def begin() -> TextSteps:
            return TextSteps(self.prompt, how.steps, thinking)

        while not leave.is_set() and how.max_tokens:
            if grown := self._server.complete(self._body(text, how), begin, leave):
                return grown
            how = replace(how, max_tokens=how.max_tokens // 2)  # it may fit then
        if not how.max_tokens and not prefix.steps:
            raise ProblemTooLong(
                "The problem leaves no room for a solution in the endpoint's context: shorten it, "
                "or serve the model with a longer one."
            )
        grown = begin()
        grown.end("budget" if how.max_tokens else "length")
        return grown

    def _body(self, text: str, how: Sampling) -> dict[str, Any]:
        optional = {"top_p": (how.top_p, 1), "top_k": (how.top_k, 0), "min_p": (how.min_p, 0)}
        return {
            "model": self.model,
            "prompt": text,
            "max_tokens": how.max_tokens,
            "temperature": how.temperature,
            "seed": how.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"stop": list(self.prompt.stop[:4])} if self.prompt.stop else {}),
            **{key: value for key, (value, off) in optional.items() if value != off},
            **self._extra,
        }


def _work(jobs: Jobs) -> None:
    while job := jobs.get():
        job()


def _hang_up(server: Server, jobs: Jobs, threads: int) -> None:
    server.close()
    for _ in range(threads):
        jobs.put(None)
