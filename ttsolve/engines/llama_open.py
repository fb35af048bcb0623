"""Opens a model of llama.cpp and its contexts where no Ctrl-C can get lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from ttsolve.engines.llama_context import LlamaContext
from ttsolve.engines.llama_model import LlamaModel
from ttsolve.errors import TtsolveError

Opened = tuple[LlamaModel, list[LlamaContext]]


def open_undisturbed(
    model: Callable[[], LlamaModel], contexts: Callable[[LlamaModel], list[LlamaContext]]
) -> Opened:
    """The model and its contexts. After Ctrl-C what is still opening is freed when it is open.

    While llama.cpp works it calls a Python function (what it logs), and an exception there goes
    nowhere. Ctrl-C raises one in the main thread only: so this is another's work.

    Raises:
        TtsolveError: what `model` or `contexts` raise.
    """
    opening: Future[Opened] = Future()

    def work() -> None:
        try:
            opening.set_result(_open(model, contexts))
        except BaseException as error:
            opening.set_exception(error)

    try:  # no daemon: a process that ends waits for it, as llama.cpp must not be left running
        threading.Thread(target=work, name="ttsolve-open").start()
        return opening.result()
    except KeyboardInterrupt:
        opening.add_done_callback(_close)
        raise


def _open(
    opens: Callable[[], LlamaModel], contexts: Callable[[LlamaModel], list[LlamaContext]]
) -> Opened:
    model = opens()
    try:
        return model, contexts(model)
    except TtsolveError:
        model.close()
        raise


def _close(opening: Future[Opened]) -> None:
    """Free what was opened for nobody: a session goes on after Ctrl-C."""
    if opening.exception() is None:
        model, contexts = opening.result()
        for context in contexts:
            context.close()
        model.close()
