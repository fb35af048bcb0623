"""What a server of the OpenAI API is asked: the only module that imports httpx2."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from threading import Event
from typing import Any

import httpx2

from ttsolve.chat import ChatFormat, Turn, chat_format
from ttsolve.engines.textsteps import TextSteps
from ttsolve.errors import ModelError, TtsolveError, UsageError
from ttsolve.prompts import PromptFormat

TRIES = 5  # of a request
WAIT = 0.5  # seconds before the second try; doubled before each further one
LONGEST = 60.0  # seconds to wait where a server asks for more
TIMEOUT = httpx2.Timeout(30, connect=10, read=300, pool=None)  # seconds
FULL = ("context", "max_tokens", "too long")  # words of a refusal for want of room
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)  # statuses worth another try


class Server:
    """One server; any thread may ask.

    Raises:
        UsageError: the address is none or holds a password, or the key cannot be one.
    """

    def __init__(self, url: str, key: str | None = None, at_once: int = 64):
        try:
            user = httpx2.URL(url).userinfo
        except httpx2.InvalidURL as error:
            raise UsageError(f"{url} is no address ({error}): write http://HOST/v1.") from error
        if key and not (key.isascii() and key.isprintable()):  # a header's error would show it
            raise UsageError("TTSOLVE_API_KEY holds characters that no key has: set it again.")
        if user:
            raise UsageError(
                "The endpoint's address holds a password: take it out and set TTSOLVE_API_KEY."
            )
        self.url = url.rstrip("/")
        self._client = httpx2.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=TIMEOUT,
            limits=httpx2.Limits(max_connections=at_once),
        )

    def first_model(self) -> str:
        """The first model that it lists.

        Raises:
            ModelError: it does not answer, or lists none.
        """
        try:
            listed = self._client.get(f"{self.url}/models").raise_for_status().json()
            return str(listed["data"][0]["id"])
        except httpx2.TransportError as error:
            raise ModelError(self._silent(error)) from error
        except (httpx2.HTTPError, ValueError, LookupError, TypeError) as error:
            raise ModelError(
                f"The endpoint {self.url} lists no model ({error}): name one with --model, or "
                "correct the address, which ends with /v1."
            ) from error

    def tell(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """What it says at a path beside /v1; {}: it knows no such path, or refuses.

        Raises:
            TtsolveError: it does not answer.
        """
        url = f"{self.url.removesuffix('/v1')}/{path}"
        method = "GET" if body is None else "POST"
        for i in range(TRIES):
            try:
                answer = self._client.request(method, url, json=body)
                if answer.status_code not in AGAIN:
                    break
            except httpx2.TransportError as error:
                if i + 1 == TRIES:
                    raise TtsolveError(self._silent(error)) from error
            time.sleep(WAIT * 2**i)
        try:
            said = answer.json() if answer.is_success else {}
        except ValueError:
            return {}
        return said if isinstance(said, dict) else {}

    def complete(
        self, body: dict[str, Any], begin: Callable[[], TextSteps], leave: Event
    ) -> TextSteps | None:
        """What grows as the body asks, until `leave` is set; None: there is no room for it.

        `begin`: nothing grown yet, for each try.

        Raises:
            TtsolveError: it does not answer, or refuses for good.
        """
        for i in range(TRIES):
            grown, last = begin(), i + 1 == TRIES
            try:
                status, said, after = self._stream(body, grown, leave)
            except httpx2.TransportError as error:
                if last:
                    raise TtsolveError(self._silent(error)) from error
                status, said, after = 503, "", 0.0
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise TtsolveError(self._refused(200, f"no completion, {error}")) from error
            if status == 200:
                return grown
            if status == 400 and any(word in said for word in FULL):
                return None
            if status not in AGAIN or last:
                raise TtsolveError(self._refused(status, said))
            if leave.wait(min(after, LONGEST) or WAIT * 2**i):
                grown = begin()
                grown.end("budget")
                return grown
        raise AssertionError("the last try returns or raises")

    def _stream(
        self, body: dict[str, Any], grown: TextSteps, leave: Event
    ) -> tuple[int, str, float]:
        """The status, what a refusal says, and how many seconds to wait after it."""
        with self._client.stream("POST", f"{self.url}/completions", json=body) as answer:
            if answer.status_code != 200:
                after = answer.headers.get("Retry-After", "")
                said = answer.read().decode(errors="replace")
                return answer.status_code, said, float(after) if after.isdigit() else 0.0
            finish = "stop"
            for event, tokens in _events(answer):
                if "error" in event:
                    return 500, str(event["error"]), 0.0
                _count(event, grown)
                for choice in event.get("choices") or ():
                    finish = choice.get("finish_reason") or finish
                    if choice.get("text") and grown.feed(choice["text"], tokens):
                        return 200, "", 0.0
                if leave.is_set():
                    grown.end("budget")
                    return 200, "", 0.0
            grown.end("length" if finish == "length" else "stop")
            return 200, "", 0.0

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def _silent(self, error: Exception) -> str:
        reason = str(error) or type(error).__name__
        return (
            f"The endpoint {self.url} does not answer ({reason}): start the server, or correct "
            "the address."
        )

    def _refused(self, status: int, said: str) -> str:
        if status == 404:
            return (
                f"The endpoint {self.url} has no such model or no completions API, without which "
                "no prefix can be continued: see --model, and serve with vLLM or llama-server."
            )
        if status in (401, 403):
            return f"The endpoint {self.url} refuses access: set TTSOLVE_API_KEY to its key."
        return (
            f"The endpoint {self.url} refuses (status {status}: {' '.join(said.split())[:200]}): "
            "see its log."
        )


def _events(answer: httpx2.Response) -> Iterator[tuple[dict[str, Any], int]]:
    """What the server sends, a stream of events or one JSON text; each with its tokens.

    Raises:
        httpx2.ReadError: the stream breaks off: it ends without a reason (llama-cpp-python's server
            drops a request so for the next one, unless --interrupt_requests is false).
    """
    if "event-stream" not in answer.headers.get("Content-Type", ""):
        whole = json.loads(answer.read())
        yield whole, (whole.get("usage") or {}).get("completion_tokens") or 1
        return
    over = False
    for line in answer.iter_lines():
        data = line.removeprefix("data:").strip()
        if line.startswith("data:") and data != "[DONE]":
            event = json.loads(data)
            over = over or any(one.get("finish_reason") for one in event.get("choices") or ())
            yield event, 1
    if not over:
        raise httpx2.ReadError("it breaks off in the middle of a completion")


def _count(event: dict[str, Any], grown: TextSteps) -> None:
    usage = event.get("usage") or {}
    details = usage.get("prompt_tokens_details") or {}
    grown.prompt_tokens = usage.get("prompt_tokens") or grown.prompt_tokens
    grown.cached_tokens = details.get("cached_tokens") or grown.cached_tokens


# --- the chat template of a served model ----------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)
class ServedFormat(ChatFormat):
    """A chat that the server lays out."""

    ask: Callable[[Sequence[Turn]], str] = field(default=lambda turns: "", compare=False)

    def _rendered(self, turns: Sequence[Turn]) -> str:
        if text := self.ask(turns):
            return text
        raise ModelError("The endpoint refuses to lay a chat out: see its log.")


def served_format(
    prompt: PromptFormat, server: Server, model: str
) -> tuple[PromptFormat, dict[str, Any]]:
    """The prompt format with the served model's own chat template, if it is a chat; and what else
    a request must say so that a text does not begin twice.

    Raises:
        ModelError: the server tells no chat template.
    """
    if not prompt.chat:
        return prompt, {}
    told = server.tell("props")  # llama-server
    if told.get("chat_template"):
        # The server puts the token that begins a text itself.
        return chat_format(prompt, told["chat_template"], "", told.get("eos_token", "")), {}

    def lay_out(turns: Sequence[Turn]) -> str:  # vLLM
        messages = [{"role": role, "content": content} for role, content in turns]
        asked = {"model": model, "messages": messages, "add_generation_prompt": True}
        tokens = server.tell("tokenize", asked).get("tokens")
        text = server.tell("detokenize", {"model": model, "tokens": tokens}) if tokens else {}
        return str(text.get("prompt") or "")

    if lay_out([("user", "1 + 1")]):
        own = {f.name: getattr(prompt, f.name) for f in fields(PromptFormat)}
        return ServedFormat(**own, ask=lay_out), {"add_special_tokens": False}
    raise ModelError(
        f"The endpoint {server.url} tells no chat template, as vLLM and llama-server do: give "
        "solved examples with --few-shot FILE."
    )
