"""Whether what a generator writes is what a verifier has learnt to read: one line where it is not.

The lines go to the log "ttsolve", each kind once, and from there to stderr.
"""

from __future__ import annotations

import logging

from ttsolve.engines.prm_format import PrmFormat

LOG = logging.getLogger("ttsolve")
LONG = 500  # tokens: more than a step of reasoning has


class Misfits:
    """What did not fit one verifier so far."""

    def __init__(self, context: int, whole: bool):
        self._context = context  # tokens that the verifier reads
        self._whole = whole  # it judges solutions, not steps
        self._told: set[str] = set()

    def separator(self, generator: str, verifier: PrmFormat) -> None:
        """Look at what ends the generator's steps."""
        if not fits(generator, verifier):
            self._tell(
                "separator",
                f"The generator's steps end with {generator!r}, and the verifier learnt from steps "
                f"that end with {verifier.separator!r}: its scores may mislead; set the separator "
                "in pair.toml.",
            )

    def solution(self, tokens: int, longest: int) -> None:
        """Look at a solution of so many tokens, question included, and its longest step."""
        if tokens > self._context:
            self._tell(
                "solution",
                f"A solution has {tokens:,} tokens, and the verifier reads {self._context:,}: "
                "steps beyond them score 0; lower max_tokens, or use a verifier that reads more.",
            )
        if longest > LONG and not self._whole:
            self._tell(
                "step",
                f"A step has {longest:,} tokens, and the verifier has learnt to judge short ones: "
                "see in pair.toml what ends a step, and what the prompt asks for.",
            )

    def _tell(self, kind: str, sentence: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            LOG.warning(sentence)


def fits(separator: str, verifier: PrmFormat) -> bool:
    """Whether the verifier has seen steps that end so."""
    lines = verifier.lines and separator.startswith("\n")
    return separator == verifier.separator or lines or verifier.whole
