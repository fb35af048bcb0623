"""The embedded generator behind llama-cpp-python's own server, where that is installed:
pip install 'llama-cpp-python[server]'."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx2
import pytest

from ttsolve.core import Problem
from ttsolve.engine import Engine
from ttsolve.engines.endpoint import EndpointGenerator
from ttsolve.pair import load_pair
from ttsolve.solve import open_models, solve
from ttsolve.strategies import BeamSearch, BestOfN, Strategy


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    for name in ("fastapi", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings"):
        pytest.importorskip(name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"model": load_pair("pocket").generator_path, "port": port, "n_ctx": 512}
    options |= {"interrupt_requests": "false", "host": "127.0.0.1"}  # it drops requests otherwise
    words = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
    command = [sys.executable, "-m", "llama_cpp.server", *words]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while server.poll() is None:
            try:
                httpx2.get(f"http://127.0.0.1:{port}/v1/models")
                break
            except httpx2.TransportError:
                time.sleep(0.1)
        assert server.poll() is None
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("strategy", [BestOfN.sized(8), BeamSearch.sized(8, width=4)])
def test_a_served_generator_solves_as_it_does_here(url: str, strategy: Strategy) -> None:
    pair = load_pair("pocket")
    here, verifier = open_models(pair)
    generator = EndpointGenerator(url, pair.prompt)
    engine = Engine(generator, verifier, seed=0, sampling=pair.sampling, budget=8)
    result = solve(Problem("Pay 52 with 4 coins of 7, 8, 10, 15."), engine, strategy, pair)
    steps = [step.text for one in result.candidates for step in one.steps[:-1]]
    assert all(step.endswith("\n") for step in steps)
    assert result.answer is not None
    assert result.answer.startswith("7 + 15")
    generator.close()
    here.close()
