"""Which decode loop takes which request, where a model has several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ttsolve.engines.cache import WORTH, Ints
from ttsolve.engines.request import Request

LEAST = 8  # requests of one prefix, so that it is worth having in another loop as well


@dataclass(frozen=True, slots=True)
class Part:
    """Requests of one prefix that go to one loop."""

    requests: Sequence[Request]
    loop: int
    source: int | None  # the loop from which what it holds of the prefix is copied, if any


def place(
    requests: Sequence[Request], load: Sequence[int], held: Callable[[Ints], Sequence[int]]
) -> list[Part]:
    """Share out requests among loops that all have as much room and are as fast.

    Requests of one prefix compute what they share once, if they go together. So they do where every
    loop has as much to do as they bring; else they go in parts of `LEAST` or more. A part goes to
    the loop that holds most of its prefix, unless it would have less to do elsewhere, even with all
    of this part.

    load: requests that each loop has already. held: how many first tokens of a prefix stand in the
    cache of each.
    """
    load, loops, parts = list(load), range(len(load)), []
    for group in _by_prefix(requests):
        holds = held(group[0].prefix)
        home = max(loops, key=lambda loop: (holds[loop], -load[loop]))
        n = max(1, len(group) // LEAST) if min(load) < len(group) else 1
        for part in (group[i::n] for i in range(n)):
            idle = min(loops, key=lambda loop: (load[loop], -holds[loop]))
            loop = home if load[home] < load[idle] + len(part) else idle
            copies = holds[home] >= holds[loop] + WORTH
            parts.append(Part(part, loop, home if copies else None))
            load[loop] += len(part)
    return parts


def _by_prefix(requests: Sequence[Request]) -> list[list[Request]]:
    """The requests that have the same prefix together, in the order of the first of them."""
    groups: dict[bytes, list[Request]] = {}
    for request in requests:
        groups.setdefault(request.key, []).append(request)
    return list(groups.values())
