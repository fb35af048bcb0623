"""Fetches a pair from the Hugging Face hub.

Beside it only an export by a hub's id (in `train/`) and an endpoint that the user names
(`engines/served.py`) leave the machine.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from ttsolve import paths
from ttsolve.errors import MissingExtra, PairError, StorageError, TtsolveError, UsageError
from ttsolve.files import ROOM
from ttsolve.pair import Pair, read_pair
from ttsolve.pair_files import file_sha256
from ttsolve.pair_rules import FILE, check_new, files_of

TRIES = 5  # of a file; each goes on where the last one ended
TIMEOUT = 30.0  # seconds without a byte
OPTIONAL = ("policy.toml", "README.md")  # of a pair


def pull_pair(repo: str, report: Callable[[str], None] = lambda line: None) -> Pair:
    """Fetch the pair in `repo` (OWNER/NAME, or OWNER/NAME@REVISION) into the user's folder.

    HF_ENDPOINT names another hub. What was fetched before an interruption is not fetched again, and
    nothing becomes a pair before all files have their checksums.

    Raises:
        UsageError: that is no name of a repository.
        PairError: it holds no pair, or one that is there already, or a file is not what it was.
        TtsolveError: the hub does not answer.
        StorageError: the files cannot be written.
        MissingExtra: huggingface_hub is not installed.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", repo):
        raise UsageError(f"{repo!r} is no repository of the hub: write OWNER/NAME.")
    # Two levels below the pairs' folder, where nobody takes it for a pair.
    part = paths.user_pairs() / ".pull" / re.sub(r"[/@]", "--", repo)
    try:
        part.mkdir(parents=True, exist_ok=True)
        _fetch(repo, FILE, part / FILE, report)
        pair = read_pair(part / FILE)
        if pair.generator.endpoint:  # it would be told every question, and TTSOLVE_API_KEY
            raise PairError(
                f"{repo} sends what it is asked to {pair.generator.endpoint}: if you trust that "
                "server, name it to `ttsolve models add`."
            )
        check_new(pair.name)
        target = paths.user_pairs() / pair.name
        if target.exists():
            raise PairError(f"There is a pair in {target} already: remove that folder first.")
        for key, name, checksum in files_of(pair):
            if not _is(part / name, checksum):
                _fetch(repo, name, part / name, report)
                _check(part / name, checksum, f"{repo}: {key}")
        for name in _besides(pair):
            _fetch(repo, name, part / name, report, optional=True)
        os.replace(part, target)
    except OSError as error:
        raise StorageError(f"Cannot write {part} ({error.strerror}): {ROOM}.") from error
    shutil.rmtree(part.parent, ignore_errors=True)
    return read_pair(target / FILE)


def _besides(pair: Pair) -> list[str]:
    """Files that belong to a pair and that its pair.toml does not name."""
    verifiers = [pair.verifier, pair.reviser.verifier if pair.reviser else None]
    notes = [str(PurePosixPath(v.file).with_suffix(".toml")) for v in verifiers if v]
    return [*notes, *OPTIONAL]


def _is(path: Path, checksum: str) -> bool:
    return path.is_file() and file_sha256(path) == checksum


def _check(path: Path, checksum: str, what: str) -> None:
    if file_sha256(path) != checksum:
        path.unlink()
        raise PairError(f"{what} has another sha256 than its pair.toml says: pull it again later.")


def _fetch(
    repo: str, name: str, target: Path, report: Callable[[str], None], optional: bool = False
) -> None:
    """Fetch one file, going on with what is there of it; an `optional` one may be missing."""
    try:
        import httpx2
        from huggingface_hub.errors import OfflineModeIsEnabled
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"Pulling needs {error.name}, which is not installed: pip install 'ttsolve[hub]'."
        ) from error
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    for i in range(TRIES):
        try:
            status = _stream(repo, name, part, report)
        except (httpx2.TransportError, OfflineModeIsEnabled) as error:
            if i + 1 == TRIES or isinstance(error, OfflineModeIsEnabled):
                raise TtsolveError(
                    f"The hub does not send {name} of {repo} ({error}): run the same command again "
                    "when there is a network; it goes on from here."
                ) from error
            time.sleep(0.2 * 2**i)
            continue
        if status < 300 or status == 416:  # 416: all of it was there
            os.replace(part, target)
        elif status != 404 or not optional:
            raise PairError(_refused(repo, name, status))
        return


def _stream(repo: str, name: str, part: Path, report: Callable[[str], None]) -> int:
    """Append to `part` what the hub has beyond it; the HTTP status."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils._headers import build_hf_headers

    owner, _, revision = repo.partition("@")
    url = hf_hub_url(owner, name, revision=revision or None, endpoint=os.environ.get("HF_ENDPOINT"))
    there = part.stat().st_size if part.exists() else 0
    headers = build_hf_headers(library_name="ttsolve") | {"Accept-Encoding": "identity"}
    if there:
        headers["Range"] = f"bytes={there}-"
        report(f"{name}: going on after {there:,} bytes")
    session = get_session()
    with session.stream(
        "GET", url, headers=headers, follow_redirects=True, timeout=TIMEOUT
    ) as response:
        if response.status_code in (200, 206):
            if not there:
                report(f"{name}: {int(response.headers.get('Content-Length', 0)):,} bytes")
            with part.open("ab" if response.status_code == 206 else "wb") as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)
        return int(response.status_code)


def _refused(repo: str, name: str, status: int) -> str:
    if status in (401, 403):
        return f"{repo} is not there or is not for everybody: log in with `hf auth login`."
    if status == 404:
        return f"There is no {name} in {repo}: name a repository that holds a pair."
    return f"The hub refuses {name} of {repo} (status {status}): try again later."
