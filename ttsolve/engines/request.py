"""One continuation in the making, and how tokens become its steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ttsolve.core import Finish, Step
from ttsolve.engine import Sampling
from ttsolve.engines.cache import Cells, Ints
from ttsolve.prompts import PromptFormat, thinks


@dataclass(eq=False, slots=True)
class Request:
    """One continuation: what was asked, and what has grown so far."""

    prefix: Ints  # at least one token
    how: Sampling
    room: int  # new tokens it may have, at least 1; prefix and room fit into the context
    done: Callable[[Request], None] = lambda _: None  # called once, from the loop's thread
    owner: object = None  # whose request it is, for `DecodeLoop.cancel`
    chained: bool = False  # what it ends with may begin another's prefix: an attempt of a chain
    key: bytes = b""  # the prefix's content
    begun: int = 0  # position at which the step in hand began
    steps: list[Step] = field(default_factory=list)
    finish: Finish | None = None
    cells: Cells | None = None  # of its prefix, from another loop
    thinks: bool = False  # the steps so far end within <think>…</think>
    over: bool = False  # it ended while it followed a rollout
    generated: int = 0  # tokens drawn, but for those of rollouts it agreed with
    decoded: int = 0  # prefix tokens computed for it
    reused: int = 0  # prefix tokens found in the cache

    def __post_init__(self) -> None:
        self.key = self.prefix.tobytes()
        self.begun = len(self.prefix)

    def alike(self, other: Request) -> bool:
        """Whether both draw from the same distribution, as long as they are the same text."""
        mine, its = self.how, other.how
        return self.room == other.room and (
            (mine.temperature, mine.top_k, mine.top_p, mine.min_p)
            == (its.temperature, its.top_k, its.top_p, its.min_p)
        )

    def extend(self, token: int) -> None:
        """Let a token that is drawn already join the prefix."""
        longer = np.append(self.prefix, np.int32(token))
        self.go_on(longer, longer.tobytes())

    def go_on(self, longer: Ints, key: bytes) -> None:
        """Let tokens that are drawn already join the prefix, which is then `longer`."""
        self.room -= len(longer) - len(self.prefix)
        self.prefix, self.key = longer, key

    def found(self, missing: int) -> None:
        """Note that all tokens of the prefix but so many were in the cache."""
        # Who drew in another lane before is there to decode what it drew last, which is among the
        # generated already.
        counted = 1 if self.generated else 0
        self.decoded += max(0, missing - counted)
        self.reused = max(self.reused, len(self.prefix) - self.generated - self.decoded)


class Steps:
    """Cuts what was generated into steps, and knows where a solution ends.

    A step ends with the first token that completes the separator (which may straddle tokens), after
    some text: blank lines belong to the step after them. Tokens are joined as bytes, so a character
    may straddle tokens too; a text that ends a solution as well.
    """

    def __init__(self, pieces: list[bytes], ends: NDArray[np.bool_], prompt: PromptFormat) -> None:
        self._pieces, self._ends, self._prompt = pieces, ends, prompt
        self._separator = prompt.separator.encode()
        lasts = {text.encode()[-1:] for text in (prompt.separator, *prompt.stop)}
        # [vocabulary]: tokens after which something may have ended; no other needs a look.
        completes = (any(last in piece for last in lasts) for piece in pieces)
        self.marks = ends | np.fromiter(completes, bool, len(pieces))

    def grow(self, request: Request, ids: list[int], over: bool) -> bool:
        """Add the step that the last of `ids`, the tokens of the step in hand, completes, if any.

        `over`: no further token is allowed. True: the request has ended, and says how.
        """
        if self._ends[ids[-1]]:
            self.close(request, ids[:-1])
            request.finish = "stop"
            return True
        if self._prompt.stop and (kept := self._before_stop(ids)) is not None:
            self.close(request, kept)
            request.finish = "stop"
            return True
        if self._separator in self._text(ids).lstrip():
            self.close(request, ids)
            if self._ends_solution(request):
                request.finish = "stop"
                return True
            if len(request.steps) == request.how.steps:
                return True
            ids = []
        if over:
            self.close(request, ids)
            request.finish = "length"
        return over

    def close(self, request: Request, ids: list[int]) -> None:
        """Make a step of `ids`; a blank one joins the step before it, if there is one."""
        text = self._decoded(ids)
        if text.strip():
            request.steps.append(Step(text, len(ids), tuple(ids)))
            request.thinks = thinks(text, request.thinks)
        elif request.steps:
            last = request.steps.pop()
            request.steps.append(Step(last.text + text, last.tokens + len(ids), (*last.ids, *ids)))
        request.begun += len(ids)

    def _ends_solution(self, request: Request) -> bool:
        return not request.thinks and self._prompt.ends_solution(request.steps[-1].text)

    def _before_stop(self, ids: list[int]) -> list[int] | None:
        """The tokens before a line that ends the solution; None: there is no such line."""
        place = self._prompt.stopped(self._decoded(ids))
        if place is None:
            return None
        kept = 0
        while len(self._decoded(ids[: kept + 1])) <= place:
            kept += 1
        return ids[:kept]

    def _decoded(self, ids: list[int]) -> str:
        return self._text(ids).decode(errors="replace")

    def _text(self, ids: list[int]) -> bytes:
        return b"".join([self._pieces[i] for i in ids])
