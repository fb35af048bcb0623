"""models pull, against a hub on loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from test_pair import a_pair
from ttsolve import cli, paths, pull
from ttsolve.errors import MissingExtra, PairError, TtsolveError, UsageError
from ttsolve.pair import list_pairs, load_pair

pytest.importorskip("huggingface_hub")
REPO = "somebody/tiny-pair"
LARGE = bytes(range(256)) * 4096  # a MiB


class Hub(ThreadingHTTPServer):
    """Serves a folder as the hub serves a repository."""

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder = folder
        self.asked: list[tuple[str, str | None]] = []  # (file, range)
        self.breaks: dict[str, int] = {}  # by file: how many bytes to send before hanging up


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        name = self.path.removeprefix(f"/{REPO}/resolve/main/")
        byte_range = self.headers["Range"]
        self.server.asked.append((name, byte_range))
        file = self.server.folder / name
        if name == self.path or not file.is_file():
            self.send_error(404)
            return
        data, start = file.read_bytes(), 0
        if byte_range:
            start = int(byte_range.removeprefix("bytes=").removesuffix("-"))
        if start >= len(data) > 0:
            self.send_error(416)
            return
        self.send_response(206 if byte_range else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        sent = self.server.breaks.pop(name, len(data))
        self.wfile.write(data[start:][:sent])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    a_pair(tmp_path / "repo", "tiny")
    server = Hub(tmp_path / "repo")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(pull.time, "sleep", lambda _: None)
    yield server
    server.shutdown()
    server.server_close()


def enlarge(hub: Hub) -> None:
    """A generator that takes more than one chunk."""
    file = hub.folder / "pair.toml"
    (hub.folder / "generator.gguf").write_bytes(LARGE)
    old, new = (pull.file_sha256(hub.folder / name) for name in ("verifier.onnx", "generator.gguf"))
    lines = file.read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if line.startswith("sha256") and old not in line)
    lines[at] = f'sha256 = "{new}"\n'
    file.write_text("".join(lines))


def test_a_pair_is_fetched_whole(hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    (hub.folder / "verifier.toml").write_text("family = 'x'\n")
    with pytest.raises(SystemExit) as ended:
        cli.main(["models", "pull", REPO])
    assert ended.value.code == 0
    assert capfd.readouterr().out == "tiny: A pair for tests.\n"
    folder = paths.user_pairs() / "tiny"
    assert {file.name for file in folder.iterdir()} == {file.name for file in hub.folder.iterdir()}
    assert load_pair("tiny").about == "A pair for tests."
    assert not (paths.user_pairs() / ".pull").exists()


def test_it_goes_on_where_the_connection_broke(hub: Hub) -> None:
    enlarge(hub)
    hub.breaks["generator.gguf"] = 300_000
    pull.pull_pair(REPO)
    ranges = [asked for name, asked in hub.asked if name == "generator.gguf"]
    assert ranges == [None, "bytes=300000-"]
    assert (paths.user_pairs() / "tiny" / "generator.gguf").read_bytes() == LARGE


def test_it_goes_on_in_another_run(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    enlarge(hub)
    hub.breaks["generator.gguf"] = 300_000
    monkeypatch.setattr(pull, "TRIES", 1)
    with pytest.raises(TtsolveError, match=r"run the same command again .* goes on from here"):
        pull.pull_pair(REPO)
    assert [pair.name for pair in list_pairs() if pair.name == "tiny"] == []
    hub.asked.clear()
    pull.pull_pair(REPO)
    assert hub.asked[1] == ("generator.gguf", "bytes=300000-")


def test_what_is_whole_is_not_fetched_again(hub: Hub) -> None:
    hub.breaks["tokenizer.json"] = 0
    hub.folder.joinpath("tokenizer.json").write_bytes(b"[]")  # not what pair.toml says
    with pytest.raises(PairError, match=r"another sha256 than its pair.toml says"):
        pull.pull_pair(REPO)
    hub.folder.joinpath("tokenizer.json").write_bytes(b"{}")
    hub.asked.clear()
    pull.pull_pair(REPO)
    assert [name for name, _ in hub.asked][:2] == ["pair.toml", "tokenizer.json"]


@pytest.mark.parametrize(
    ("repo", "error", "says"),
    [
        ("tiny", UsageError, "write OWNER/NAME"),
        ("../x/y", UsageError, "write OWNER/NAME"),
        ("nobody/none", PairError, "There is no pair.toml in nobody/none"),
    ],
)
def test_what_cannot_be_pulled(hub: Hub, repo: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        pull.pull_pair(repo)


def test_a_pair_that_is_there_stays(hub: Hub) -> None:
    pull.pull_pair(REPO)
    with pytest.raises(PairError, match=r"There is a pair in .* already"):
        pull.pull_pair(REPO)


def test_nobody_elses_pair_sends_questions_to_a_server(hub: Hub) -> None:
    file = hub.folder / "pair.toml"
    file.write_text(file.read_text().replace('"generator.gguf"', '"https://example.com/v1"'))
    with pytest.raises(PairError, match=r"sends what it is asked to https://example\.com/v1"):
        pull.pull_pair(REPO)


def test_nobody_elses_pair_takes_the_name_of_one_that_is_there(hub: Hub) -> None:
    file = hub.folder / "pair.toml"
    file.write_text(file.read_text().replace('"tiny"', '"pocket"'))
    with pytest.raises(PairError, match=r"There is a pair in .* already"):
        pull.pull_pair(REPO)


def test_a_pair_cannot_lead_out_of_its_folder(hub: Hub) -> None:
    file = hub.folder / "pair.toml"
    file.write_text(file.read_text().replace('"tokenizer.json"', '"../../tokenizer.json"'))
    with pytest.raises(PairError, match="a file inside the pair's folder"):
        pull.pull_pair(REPO)


def test_without_a_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(TtsolveError, match=r"The hub does not send pair.toml"):
        pull.pull_pair(REPO)


def test_without_the_extra(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub.errors", None)
    with pytest.raises(MissingExtra, match=r"pip install 'ttsolve\[hub\]'"):
        pull.pull_pair(REPO)


def test_nothing_else_asks_the_network(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The bare command, with models or dice, and the commands about pairs."""

    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for arguments in (["1 + 1?", "--budget", "2", "--pair", "sim"], ["models", "list"]):
        with pytest.raises(SystemExit):
            cli.main(arguments)
        assert "network" not in capfd.readouterr().err
