"""The line that is typed in a session: edited, completed, and found again with the arrow keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.shortcuts import CompleteStyle


class LineEditor:
    """Reads lines at a terminal.

    Args:
        prompt: what stands before the line.
        earlier: the lines typed before, the last first.
        keep: hears of each new line.
        words: what Tab completes at the beginning of a line.
    """

    def __init__(
        self,
        prompt: str,
        earlier: Sequence[str],
        keep: Callable[[str], None],
        words: Sequence[str],
    ) -> None:
        keys = KeyBindings()
        keys.add("c-c")(_clear)
        self._session: PromptSession[str] = PromptSession(
            prompt,
            history=_Typed(earlier, keep),
            completer=WordCompleter(list(words), sentence=True),
            complete_style=CompleteStyle.READLINE_LIKE,
            complete_while_typing=False,
            key_bindings=keys,
        )

    def __call__(self) -> str | None:
        """The next line; None after Ctrl-D. Ctrl-C clears it."""
        while True:
            try:
                return self._session.prompt()
            except KeyboardInterrupt:  # as a signal, not as a key
                continue
            except EOFError:
                return None


def _clear(event: KeyPressEvent) -> None:
    event.current_buffer.reset()


class _Typed(History):
    """The lines typed before, wherever they are kept."""

    def __init__(self, earlier: Sequence[str], keep: Callable[[str], None]) -> None:
        super().__init__()
        self._earlier, self._keep = earlier, keep

    def load_history_strings(self) -> Iterable[str]:
        """The last first."""
        return self._earlier

    def store_string(self, string: str) -> None:
        """Keep one more."""
        self._keep(string)
