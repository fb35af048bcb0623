"""How likely an answer is right: the vote's share and the verifier's score, calibrated.

A logistic function of three numbers that a vote leaves behind, one for each strategy, since the
candidates of a search agree more easily than samples that know nothing of each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

FEATURES = 4
EDGE = 1e-3  # scores are taken to be at least so far from 0 and 1


@dataclass(frozen=True, slots=True)
class Calibration:
    """What turns a vote of one strategy's candidates into a probability."""

    strategy: str  # its name, without settings
    weights: tuple[float, ...]  # of the features

    def probability(self, share: float, score: float | None, count: int) -> float:
        """P(the answer is right), 0..1: see `features`."""
        terms = zip(self.weights, features(share, score, count), strict=True)
        return sigmoid(math.fsum(weight * value for weight, value in terms))


@dataclass(frozen=True, slots=True)
class Stop:
    """A promise, and the probability at which to stop so that it is kept.

    Looking again and again picks the lucky looks, so the threshold is often above the promise.
    """

    promise: float  # the share of right ones among the answers at which a run stops
    threshold: float  # above 1: it could not be kept, so no run stops


def features(share: float, score: float | None, count: int) -> tuple[float, ...]:
    """What is known of an answer, as terms of a logistic function.

    Args:
        share: the answer's part of the vote, 0..1; shrunk a little, as all of 2 says less than all
            of 64.
        score: of its best candidate, 0..1; None without a verifier.
        count: how many candidates there were.
    """
    part = (share * count + 0.5) / (count + 1)
    sure = min(max(0.5 if score is None else score, EDGE), 1 - EDGE)
    return 1.0, logit(part), logit(sure), math.log2(max(count, 1))


def stop_for(promise: float, stops: Sequence[Stop]) -> Stop:
    """Where to stop so that the promise is kept: where the next stricter one is; inf: nowhere."""
    kept = [stop for stop in stops if stop.promise >= promise - 1e-9]
    return min(kept, key=lambda stop: stop.promise, default=Stop(promise, math.inf))


def logit(p: float) -> float:
    """The log-odds of a probability inside 0..1."""
    return math.log(p / (1 - p))


def sigmoid(x: float) -> float:
    """The probability of which x is the log-odds."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
