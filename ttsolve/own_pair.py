"""A pair of the user's own models: what its pair.toml is to say, read from what the files say."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ttsolve.engine import Sampling
from ttsolve.engines.prm_format import PrmFormat, load_format
from ttsolve.errors import ModelError, PairError, StorageError, UsageError
from ttsolve.files import ROOM, link
from ttsolve.gguf_file import GgufFile, read_gguf
from ttsolve.pair import (
    GeneratorFile,
    Pair,
    VerifierFiles,
    bare_pair,
    read_pair,
    write_pair,
)
from ttsolve.pair_files import file_sha256
from ttsolve.pair_rules import ENDPOINT, FILE, MOST, check_values
from ttsolve.prompts import BOXED, THOUGHT, PromptFormat, plain_format, system_prompt

CONTEXT, THINKING = 4096, 16384  # tokens of prompt and solution, at most, where memory allows
CHAT = Sampling(temperature=0.8, max_tokens=2048)  # as the field samples from chat models
SAID = "general.sampling."  # keys of a GGUF
ONNX, DATA, TOKENIZER = "verifier.onnx", "verifier.onnx.data", "tokenizer.json"


def is_endpoint(generator: str) -> bool:
    """Whether this is the address of an endpoint, and no file."""
    return GeneratorFile(generator).endpoint is not None


def own_generator(
    gguf: Path, few_shot: Path | None = None, verifier: PrmFormat | None = None
) -> Pair:
    """A pair made of a GGUF alone, with the prompt and sampling that its file asks for.

    With a chat template it is asked in chats; else its prompt is `few_shot`, a file with solved
    examples and {question} in it, or the question alone. Its steps are those that `verifier` reads.

    Raises:
        ModelError: the file is missing, no GGUF, or a part of a model.
        UsageError: the examples cannot be used.
    """
    if re.search(r"-\d{5}-of-\d{5}\.gguf$", gguf.name):
        raise ModelError(f"{gguf} is a part of a model: join all with llama-gguf-split --merge.")
    pair, file = bare_pair(gguf), read_gguf(gguf)
    prompt = prompt_for(file, few_shot, verifier)
    if prompt == PromptFormat() and not verifier:
        return pair
    return replace(
        pair,
        about=" ".join(filter(None, [file.name, file.quantization])),
        generator=replace(pair.generator, context=context_for(file)),
        prompt=prompt,
        sampling=sampling_for(file, prompt),
    )


def own_endpoint(
    url: str,
    model: str | None = None,
    few_shot: Path | None = None,
    verifier: PrmFormat | None = None,
) -> Pair:
    """A pair made of an endpoint alone: an OpenAI-compatible server, http://HOST/v1.

    Raises:
        UsageError: the address has no host, or the examples cannot be used.
    """
    if not re.match(ENDPOINT, url):
        raise UsageError(f"{url} is no address, as it has no host: write http://HOST/v1.")
    separator = verifier.separator if verifier else None
    prompt = chat_prompt(separator, _is_numbered(verifier))
    if few_shot is not None:
        prompt = plain_format(_examples(few_shot), separator or "\n")
    return Pair(
        folder=Path(),
        name=model or url,
        about=f"{model or 'The model'} at {url}",
        generator=GeneratorFile(url.rstrip("/"), model=model, context=CONTEXT),
        prompt=prompt,
        sampling=CHAT,
    )


def prompt_for(
    file: GgufFile, few_shot: Path | None = None, verifier: PrmFormat | None = None
) -> PromptFormat:
    """The prompt format for a generator, with steps as the verifier knows them.

    Raises:
        UsageError: the examples cannot be used.
    """
    separator = verifier.separator if verifier else None
    if few_shot is not None:
        return plain_format(_examples(few_shot), separator or "\n")
    if not file.chat_template:
        return PromptFormat(separator=separator or "\n")
    return chat_prompt(separator, _is_numbered(verifier))


def chat_prompt(separator: str | None = None, numbered: bool = False) -> PromptFormat:
    """The prompt format of a chat model, with steps that end with the separator."""
    separator = separator or "\n\n"
    return PromptFormat(
        template="{question}",
        separator=separator,
        answer=BOXED,
        chat=True,
        system=system_prompt(separator, numbered),
    )


def sampling_for(file: GgufFile, prompt: PromptFormat) -> Sampling:
    """How to sample: as the file recommends, else as the field does."""
    how = CHAT if prompt.chat else Sampling()
    if thinking(file):
        how = replace(how, max_tokens=THINKING - CONTEXT)
    said = {
        key.rpartition(".")[2]: value
        for key, value in file.metadata.items()
        if SAID in key and isinstance(value, float | int) and math.isfinite(value)
    }
    return replace(
        how,
        temperature=round(float(said.get("temp", how.temperature)), 4),
        top_k=min(MOST, max(0, int(said.get("top_k", how.top_k)))),  # llama.cpp: 0 or less is off
        top_p=round(float(said.get("top_p", how.top_p)), 4),
        min_p=round(float(said.get("min_p", how.min_p)), 4),
    )


def context_for(file: GgufFile) -> int:
    """Tokens of prompt and solution."""
    most = THINKING if thinking(file) else CONTEXT
    return min(file.context or most, most)


def thinking(file: GgufFile) -> bool:
    """Whether the model thinks before it answers, as its chat template shows."""
    return THOUGHT in file.chat_template


def add_pair(
    folder: Path,
    generator: str,
    verifier: Path | None = None,
    few_shot: Path | None = None,
    model: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Pair:
    """Make `folder` a pair of these models. It holds links to them: nothing large is copied.

    `generator`: a GGUF file, or an endpoint and which `model` of it; `verifier`: a folder that
    `models export-prm` wrote.

    Raises:
        ModelError, PairError: a file is missing or of the wrong kind; the pair is there already.
        UsageError: the examples cannot be used, or a GGUF is given a `model`.
        StorageError: the folder cannot be written.
    """
    if (folder / FILE).exists():
        raise PairError(f"There is a pair in {folder} already: choose another name.")
    if model and not is_endpoint(generator):
        raise UsageError("--model belongs to an endpoint: give http://HOST/v1 with it.")
    how = _format(verifier) if verifier else None
    files = _verifier_files(verifier, how, report) if verifier and how else None
    links = {"verifier": verifier} if verifier else {}
    if is_endpoint(generator):
        pair = own_endpoint(generator, model, few_shot, how)
    else:
        gguf = Path(generator)
        pair = own_generator(gguf, few_shot, how)
        report(f"hashing {gguf}")
        pair = replace(pair, generator=replace(pair.generator, sha256=file_sha256(gguf)))
        links[gguf.name] = gguf
    about = pair.about.removesuffix(" without a verifier.")
    family = f"with a verifier of the family {how.family}" if how else "without a verifier"
    pair = replace(
        pair, folder=folder, name=folder.name, about=f"{about} {family}.", verifier=files
    )
    check_values(pair)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, target in links.items():
            link(folder / name, target)
    except OSError as error:
        raise StorageError(f"Cannot write into {folder} ({error.strerror}): {ROOM}.") from error
    write_pair(pair)
    return read_pair(folder / FILE)


def _format(folder: Path) -> PrmFormat:
    for name in (ONNX, TOKENIZER, "verifier.toml"):
        if not (folder / name).is_file():
            raise PairError(f"There is no {name} in {folder}: write one with `models export-prm`.")
    return load_format(folder / ONNX)


def _verifier_files(folder: Path, how: PrmFormat, report: Callable[[str], None]) -> VerifierFiles:
    report(f"hashing {folder / ONNX}")
    data = folder / DATA
    return VerifierFiles(
        file=f"verifier/{ONNX}",
        sha256=file_sha256(folder / ONNX),
        tokenizer=f"verifier/{TOKENIZER}",
        tokenizer_sha256=file_sha256(folder / TOKENIZER),
        aggregation=how.aggregation,
        data_sha256=file_sha256(data) if data.is_file() else None,
    )


def _is_numbered(verifier: PrmFormat | None) -> bool:
    return bool(verifier and "{number}" in verifier.step)


def _examples(few_shot: Path) -> str:
    try:
        text = few_shot.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Cannot read {few_shot} ({error}): give a text file.") from error
    if text.count("{question}") != 1:
        raise UsageError(
            f"{few_shot} holds examples but no single {{question}}: write it where the problem is "
            "to stand."
        )
    return text.removesuffix("\n")  # an editor's; what the prompt ends with stands before it
