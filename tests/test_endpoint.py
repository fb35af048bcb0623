"""Generators over HTTP, against a server on loopback that plays the protocol over dice."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from test_chat import CHAT, CHATML
from ttsolve import cli, paths
from ttsolve.core import Problem, Solution, Step
from ttsolve.engine import Engine, Sampling
from ttsolve.engines import served
from ttsolve.engines.endpoint import EndpointGenerator
from ttsolve.engines.sim import SimGenerator, SimVerifier
from ttsolve.engines.textsteps import TextSteps
from ttsolve.errors import ModelError, ProblemTooLong, TtsolveError, UsageError
from ttsolve.prompts import PromptFormat
from ttsolve.strategies import BeamSearch, BestOfN, Dvts, Strategy

PROMPT = PromptFormat()
QUESTION = Problem("six times seven, p=0.7")


class Fake(ThreadingHTTPServer):
    """A server of the completions API: dice behind it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.asked: list[tuple[str, dict[str, Any], str | None]] = []  # path, body, key
        self.answers: dict[str, Any] = {"/v1/models": {"data": [{"id": "dice"}]}}
        self.failures: list[tuple[int, str]] = []  # to be answered first
        self.continues: Callable[[dict[str, Any]], str] = continued
        self.stream = True
        self.sends: list[bytes] = []  # each to be sent once as the events of a completion
        self.delay = 0.0  # seconds before each event
        self.hold = 0.0  # seconds before the first
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()


class Answer(BaseHTTPRequestHandler):
    server: Fake
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.say(self.server.answers.get(self.path))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body, self.headers["Authorization"]))
        if self.path != "/v1/completions":
            found = self.server.answers.get(self.path)
            self.say(found(body) if callable(found) else found)
            return
        with self.server.lock:
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
            failure = self.server.failures.pop() if self.server.failures else None
        time.sleep(self.server.hold)
        with self.server.lock:  # before the first word: nobody can have left before it
            self.server.at_once -= 1
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has heard enough
            self.complete(body, failure)

    def complete(self, body: dict[str, Any], failure: tuple[int, str] | None) -> None:
        if failure:
            self.say({"error": {"message": failure[1]}}, failure[0])
            return
        text = self.server.continues(body)
        pieces = [text[i : i + 3] for i in range(0, len(text), 3)]
        finish = "length" if len(pieces) > body["max_tokens"] else "stop"
        pieces = pieces[: body["max_tokens"]]
        usage = {
            "prompt_tokens": len(body["prompt"]),
            "completion_tokens": len(pieces),
            "prompt_tokens_details": {"cached_tokens": 5},
        }
        end = [{"text": "", "finish_reason": finish}]
        if not self.server.stream:
            whole = [{"text": "".join(pieces), "finish_reason": finish}]
            self.say({"choices": whole, "usage": usage})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        if self.server.sends:
            self.wfile.write(self.server.sends.pop())
            return
        for piece in pieces:
            time.sleep(self.server.delay)
            self.event({"choices": [{"text": piece, "finish_reason": None}]})
        self.event({"choices": end})
        self.event({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def event(self, what: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(what).encode() + b"\n\n")
        self.wfile.flush()

    def say(self, what: dict[str, Any] | None, status: int = 200) -> None:
        data = json.dumps(what or {}).encode()
        self.send_response(status if what is not None else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def continued(body: dict[str, Any]) -> str:
    """What the dice write behind a prompt and the steps that follow it."""
    question, *lines = body["prompt"].splitlines()
    steps = [Step(f"{line}\n", 10) for line in lines]
    prefix = Solution(Problem(question), tuple(steps))
    how = Sampling(seed=body["seed"], temperature=body["temperature"])
    (grown,), _ = SimGenerator().sample([prefix], [how])
    return grown.text.removeprefix(prefix.text)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    monkeypatch.setattr(served, "WAIT", 0.01)
    server = Fake()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def generator(fake: Fake) -> Iterator[EndpointGenerator]:
    generator = EndpointGenerator(fake.url, PROMPT, at_once=8)
    yield generator
    generator.close()


def texts(solutions: list[Solution]) -> list[tuple[tuple[str, ...], str | None]]:
    return [(tuple(step.text for step in s.steps), s.finish) for s in solutions]


# --- what it samples --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strategy", [BestOfN.sized(8), BeamSearch.sized(8, width=4), Dvts.sized(8, width=2)]
)
def test_every_strategy_grows_what_the_dice_behind_it_grow(
    generator: EndpointGenerator, strategy: Strategy
) -> None:
    grown = []
    for behind in (generator, SimGenerator()):
        engine = Engine(behind, SimVerifier(), seed=3, budget=8)
        grown.append(texts(strategy(QUESTION, engine)))
    assert grown[0] == grown[1]


@pytest.mark.parametrize("stream", [True, False])
def test_steps_end_where_they_were_asked_to(
    fake: Fake, generator: EndpointGenerator, stream: bool
) -> None:
    fake.stream = stream
    how = [Sampling(seed=i, steps=2) for i in range(4)]
    two, usage = generator.sample([QUESTION.root] * 4, how)
    assert [(len(s.steps), s.finish) for s in two] == [(2, None)] * 4
    whole, _ = generator.sample([QUESTION.root] * 4, [Sampling(seed=i) for i in range(4)])
    for short, long in zip(two, whole, strict=True):
        assert texts([short])[0][0] == texts([long])[0][0][:2]
        assert sum(step.tokens for step in long.steps) > 0
    assert usage.generated_tokens > 0


def test_the_bill_says_what_the_server_says(fake: Fake, generator: EndpointGenerator) -> None:
    fake.continues = lambda body: "no end"
    _, usage = generator.sample([QUESTION.root], [Sampling()])
    assert (usage.generated_tokens, usage.reused_tokens) == (2, 5)
    assert usage.prompt_tokens == len(QUESTION.question) + 1 - 5


def test_what_is_asked(fake: Fake, generator: EndpointGenerator) -> None:
    how = Sampling(seed=9, temperature=0.5, top_k=20, max_tokens=70)
    generator.sample([QUESTION.root], [how])
    path, body, key = fake.asked[-1]
    assert (path, key) == ("/v1/completions", None)
    assert body == {
        "model": "dice",
        "prompt": "six times seven, p=0.7\n",
        "max_tokens": 70,
        "temperature": 0.5,
        "seed": 9,
        "stream": True,
        "stream_options": {"include_usage": True},
        "top_k": 20,
    }


def test_no_more_requests_at_once_than_allowed(fake: Fake, generator: EndpointGenerator) -> None:
    fake.delay = 0.002
    fake.hold = 0.05
    heard: list[int] = []
    how = [Sampling(seed=i) for i in range(24)]
    generator.sample([QUESTION.root] * 24, how, lambda i, _: heard.append(i))
    assert 1 < fake.most_at_once <= 8
    assert sorted(heard) == list(range(24))


def test_an_end_by_length_is_one(fake: Fake, generator: EndpointGenerator) -> None:
    fake.continues = lambda body: "abc" * 100
    (grown,), _ = generator.sample([QUESTION.root], [Sampling(max_tokens=5)])
    assert texts([grown]) == [(("abc" * 5,), "length")]


def test_stop_brings_back_what_stands(fake: Fake, generator: EndpointGenerator) -> None:
    fake.continues = lambda body: "abc" * 10_000
    fake.delay = 0.01
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    how = [Sampling(max_tokens=10_000)] * 12
    out, _ = generator.sample([QUESTION.root] * 12, how, None, stop)
    assert {solution.finish for solution in out} == {"budget"}
    assert any(solution.text for solution in out)


# --- chats ------------------------------------------------------------------------------------


def test_the_chat_template_of_llama_server(fake: Fake) -> None:
    fake.answers["/props"] = {"chat_template": "{{ bos_token }}" + CHATML, "bos_token": "<s>"}
    generator = EndpointGenerator(fake.url, CHAT)
    fake.continues = lambda body: "So \\boxed{1}.\n\n"
    generator.sample([QUESTION.root], [Sampling()])
    body = fake.asked[-1][1]
    assert body["prompt"].startswith("<|im_start|>system\nStep by step.<|im_end|>\n")
    assert body["prompt"].endswith("<|im_start|>assistant\n")
    generator.close()


def test_the_chat_template_of_vllm(fake: Fake) -> None:
    """It lays a chat out as tokens, and tells their text; the text begins only once."""

    def tokenize(body: dict[str, Any]) -> dict[str, Any]:
        assert body["add_generation_prompt"]
        said = "".join(f"[{m['role']}]{m['content']}" for m in body["messages"])
        return {"tokens": [ord(c) for c in f"<s>{said}[assistant]"]}

    fake.answers["/tokenize"] = tokenize
    fake.answers["/detokenize"] = lambda body: {"prompt": "".join(map(chr, body["tokens"]))}
    generator = EndpointGenerator(fake.url, CHAT)
    fake.continues = lambda body: "So \\boxed{1}.\n\nMore."
    (grown,), _ = generator.sample([QUESTION.root], [Sampling()])
    _, body, _ = fake.asked[-1]
    assert body["prompt"] == f"<s>[system]Step by step.[user]{QUESTION.question}[assistant]"
    assert body["add_special_tokens"] is False
    assert texts([grown]) == [(("So \\boxed{1}.\n\n",), "stop")]
    generator.close()


def test_a_chat_that_is_not_laid_out_is_not_sent(fake: Fake) -> None:
    fake.answers["/tokenize"] = lambda body: {"tokens": [1]}
    fake.answers["/detokenize"] = lambda body: {"prompt": "[user]1 + 1[assistant]"}
    generator = EndpointGenerator(fake.url, CHAT)
    fake.answers["/tokenize"] = {}
    with pytest.raises(ModelError, match="refuses to lay a chat out"):
        generator.sample([QUESTION.root], [Sampling()])
    assert fake.asked[-1][0] == "/tokenize"
    generator.close()


def test_nobody_is_there_to_tell_a_template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "WAIT", 0.01)
    with pytest.raises(TtsolveError, match="does not answer"):
        EndpointGenerator("http://127.0.0.1:9/v1", CHAT, "model")


def test_a_server_that_tells_no_template(fake: Fake) -> None:
    with pytest.raises(ModelError, match=r"tells no chat template.* --few-shot FILE"):
        EndpointGenerator(fake.url, CHAT)


# --- what goes wrong --------------------------------------------------------------------------


def test_a_busy_server_is_asked_again(fake: Fake, generator: EndpointGenerator) -> None:
    fake.failures = [(429, "slow down"), (503, "loading"), (500, "oops")]
    (grown,), _ = generator.sample([QUESTION.root], [Sampling(seed=1)])
    expected, _ = SimGenerator().sample([QUESTION.root], [Sampling(seed=1)])
    assert texts([grown]) == texts(expected)
    assert len(fake.asked) == 4


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (503, "refuses .status 503: .*oops"),
        (404, "no such model or no completions API, without which no prefix can be continued"),
        (401, "refuses access: set TTSOLVE_API_KEY to its key"),
        (422, r"refuses \(status 422"),
    ],
)
def test_a_refusal_is_one_sentence(
    fake: Fake, generator: EndpointGenerator, status: int, says: str
) -> None:
    fake.failures = [(status, "oops")] * 9
    with pytest.raises(TtsolveError, match=says) as caught:
        generator.sample([QUESTION.root], [Sampling()])
    assert "\n" not in str(caught.value)


def test_where_the_context_is_full(fake: Fake, generator: EndpointGenerator) -> None:
    """The server says so; less is asked for, until it fits or nothing does."""
    full = (400, "This model's maximum context length is 10 tokens.")
    fake.failures = [full] * 2
    (grown,), _ = generator.sample([QUESTION.root], [Sampling(max_tokens=400)])
    assert fake.asked[-1][1]["max_tokens"] == 100
    assert grown.finish == "stop"
    fake.failures = [full] * 9
    prefix = QUESTION.root.grow(Step("right\n", 10))
    (grown,), _ = generator.sample([prefix], [Sampling(max_tokens=100)])
    assert (grown.finish, len(grown.steps)) == ("length", 1)
    fake.failures = [full] * 9
    with pytest.raises(ProblemTooLong, match="leaves no room"):
        generator.sample([QUESTION.root], [Sampling(max_tokens=100)])


def test_a_stream_that_breaks_off_is_no_solution(fake: Fake, generator: EndpointGenerator) -> None:
    expected = generator.sample([QUESTION.root], [Sampling(seed=1)])[0]
    begun = b'data: {"choices": [{"text": "So \\\\boxed{1"}]}\n\n'
    fake.sends = [begun + b"data: [DONE]\n\n", begun, b""]
    assert texts(generator.sample([QUESTION.root], [Sampling(seed=1)])[0]) == texts(expected)
    fake.sends = [b""] * 9
    with pytest.raises(TtsolveError, match=r"does not answer .it breaks off in the middle"):
        generator.sample([QUESTION.root], [Sampling()])


@pytest.mark.parametrize(
    "event", ["[1]", "{x", '{"choices": "a"}', '{"choices": [{"text": 5}]}', '{"usage": "a"}']
)
def test_what_is_no_completion_is_one_sentence(
    fake: Fake, generator: EndpointGenerator, event: str
) -> None:
    fake.sends = [f"data: {event}\n\n".encode()]
    with pytest.raises(TtsolveError, match=r"refuses .status 200: no completion"):
        generator.sample([QUESTION.root], [Sampling()])


def test_nobody_there() -> None:
    with pytest.raises(ModelError, match=r"does not answer .*: start the server"):
        EndpointGenerator("http://127.0.0.1:9/v1", PROMPT)


def test_a_server_of_something_else(fake: Fake) -> None:
    fake.answers["/v1/models"] = {"hello": 1}
    with pytest.raises(ModelError, match=r"lists no model .* ends with /v1"):
        EndpointGenerator(fake.url, PROMPT)


def test_the_key_goes_to_the_server_and_nowhere_else(
    fake: Fake,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TTSOLVE_API_KEY", "geheim-1234")
    (tmp_path / "plain.txt").write_text("{question}\n\n")
    options = ["--generator", fake.url, "--few-shot", str(tmp_path / "plain.txt"), "--budget", "2"]
    with pytest.raises(SystemExit) as ended:
        cli.main(["2 + 2?", *options])
    assert ended.value.code == 0
    assert fake.asked[-1][2] == "Bearer geheim-1234"
    assert b"geheim" not in paths.store_file().read_bytes()
    fake.failures = [(401, "no")] * 9
    with pytest.raises(SystemExit):
        cli.main(["9 + 2?", *options])
    out, err = capfd.readouterr()
    assert "geheim" not in out + err
    with pytest.raises(UsageError, match="set TTSOLVE_API_KEY"):
        EndpointGenerator("http://me:geheim@127.0.0.1/v1", PROMPT)
    for key in ("geheim\nX: 1", "geheim-ключ"):
        monkeypatch.setenv("TTSOLVE_API_KEY", key)
        with pytest.raises(UsageError, match="holds characters that no key has"):
            EndpointGenerator(fake.url, PROMPT)


def test_what_is_no_address() -> None:
    with pytest.raises(UsageError, match="is no address"):
        EndpointGenerator("http://[::1/v1", PROMPT)


# --- texts that arrive in pieces --------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_pieces_of_any_size_make_the_same_steps(size: int) -> None:
    text = "\na\n\n\nb b\n\n  \n\nAnswer: 1\n\nmore\n\n"
    grown = TextSteps(PromptFormat(separator="\n\n"), None)
    for i in range(0, len(text), size):
        if grown.feed(text[i : i + size]):
            break
    steps = [step.text for step in grown.steps]
    assert (steps, grown.finish) == (["\na\n\n", "\nb b\n\n", "  \n\nAnswer: 1\n\n"], "stop")


@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_stop_text_arrives_in_pieces(size: int) -> None:
    text = "a\nb\nProblem: c\nd"
    grown = TextSteps(PromptFormat(separator="\n\n", stop=("Problem:",)), None)
    for i in range(0, len(text), size):
        if grown.feed(text[i : i + size]):
            break
    assert ([step.text for step in grown.steps], grown.finish) == (["a\nb\n"], "stop")
