"""The paper in one command: what is measured, a report that stands alone, going on where it was."""

from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import eval_maker
from ttsolve import batch
from ttsolve.claims import CLAIMS
from ttsolve.cli import main
from ttsolve.cli_reproduce import _lacking, _orm
from ttsolve.document import Document, Figure, Grid, Section, write_document
from ttsolve.engine import Engine
from ttsolve.engines.sim import SimGenerator
from ttsolve.evidence import BEAM, BEST, ratio_of
from ttsolve.grid import sizes
from ttsolve.reproduce import FULL, QUICK, Parts, evidence_of, longest_chains, revised
from ttsolve.solve import open_models, solve
from ttsolve.strategies import STRATEGIES, BestOfN
from ttsolve.train.data import read_problems

RATIOS = revised(4).strategies


@pytest.fixture
def ttsolve(capsys):
    """Runs the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def dice(tmp_path):
    """A file of problems for dice."""
    file = tmp_path / "dice.jsonl"
    records = [
        {"id": i, "problem": f"dice {i} p={(0.5, 0.8, 0.95)[i % 3]}", "answer": 42}
        for i in range(10)
    ]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


# --- the plan ---------------------------------------------------------------------------------


def test_the_papers_ratios() -> None:
    assert [ratio_of(name) for name in revised(4, 16).strategies] == [1 / 16, 1 / 4, 1, 4, 16]
    assert tuple(f"revisions:ratio={ratio}" for ratio in ("1:4", "1:1", "4:1")) == RATIOS


@pytest.mark.parametrize("plan", [QUICK, FULL])
def test_everything_planned_has_a_size_and_all_claims_of_search_their_budgets(plan) -> None:
    for grid in (plan.search, *plan.revisions):
        for text in grid.strategies:
            assert sizes(text, grid.budgets)[-1] == grid.budgets[-1]
    assert {BEST, BEAM, "auto"} <= set(plan.search.strategies)
    assert {4, 16, 64} <= set(plan.search.budgets)
    extremes = {n: {f"revisions:ratio={n}:1", f"revisions:ratio=1:{n}"} for n in (4, 16)}
    for n, names in extremes.items():
        assert any(n in grid.budgets and names <= set(grid.strategies) for grid in plan.revisions)


def test_quick_is_quick() -> None:
    """At 120 solutions a second, on two cores, it ends within 15 minutes."""
    assert QUICK.problems * QUICK.units / 120 < 15 * 60
    assert FULL.problems is None
    assert FULL.units > 5 * QUICK.units


# --- what was measured ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grids():
    search = eval_maker.measured(2, (BEST, BEAM, "auto"), (4,))
    return [search, eval_maker.measured(2, RATIOS, (4,))]


def test_grids_of_the_same_problems_become_one_table(grids) -> None:
    e = evidence_of(Parts(grids))
    assert {name for name, _ in e.table.rates} == {BEST, BEAM, "auto", *RATIOS}
    assert {rates.shape for rates in e.table.rates.values()} == {(10,)}
    assert e.searches == [BEST, BEAM]
    assert e.ratios(4) == {name: ratio_of(name) for name in RATIOS}
    assert e.table.seconds.keys() == e.table.rates.keys()


def test_only_problems_that_every_part_has_are_compared_in_one_order(grids) -> None:
    search, revisions = grids
    contents = [outcome.rows[0].content for outcome in search]
    failed = replace(search[3], rows=(), pools=(), record={"error": "too long"})
    right = {content: float(i) for i, content in enumerate(contents) if i != 5}
    parts = Parts([[*search[:3], failed, *search[4:]], revisions[::-1]], search[1:], right)
    e = evidence_of(parts, larger=("large", 2.0))
    kept = [i for i in range(10) if i not in (0, 3, 5)]
    assert e.table.contents == e.orm.contents == tuple(contents[i] for i in kept)
    assert e.larger.right.tolist() == kept
    assert (e.table.rates[BEST, 4] == e.orm.rates[BEST, 4]).all()


def test_the_chains_of_a_run_are_its_attempts_in_order(grids) -> None:
    """One chain of four, graded; parallel attempts are chains of one."""
    (outcome, *_) = grids[1]
    rates = {row.strategy: row for row in outcome.rows}
    assert {cell[0]: chains.shape for cell, chains in outcome.chains.items()} == {
        "revisions:ratio=1:4": (4, 1),
        "revisions:ratio=1:1": (2, 2),
        "revisions:ratio=4:1": (1, 4),
    }
    assert set(rates) == {cell[0] for cell in outcome.chains}
    assert longest_chains(grids[1], beside=1).shape == (10, 1, 4)
    assert longest_chains(grids[1], beside=2).shape == (10, 2, 2)
    assert longest_chains(grids[1], beside=5) is None
    assert longest_chains(grids[0]) is None
    attempts = evidence_of(Parts(grids)).attempts()
    assert np.isin(attempts * 4, range(5)).all()


# --- the report -------------------------------------------------------------------------------


class Outside(HTMLParser):
    """Whatever a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.pictures: list[bytes] = []

    def handle_starttag(self, tag, attrs) -> None:
        for key, value in attrs:
            if key == "src" and value.startswith("data:image/png;base64,"):
                self.pictures.append(base64.b64decode(value.partition(",")[2]))
            elif key in ("src", "href"):
                self.links.append(value)


def test_the_html_needs_no_other_file_and_the_markdown_lies_beside_its_figures(tmp_path) -> None:
    picture = b"\x89PNG\r\n\x1a\n of nothing"
    (tmp_path / "a.png").write_bytes(picture)
    table = Grid(("a|b", "c"), (("<script>", "holds"), ("+0.1", "x | y"), ("1,2 (3.4)", "1, 4")))
    figure = Figure(tmp_path / "a.png", "one < two")
    sections = (Section("S & T", ("1 < 2",), table, figure), Section("Empty"))
    markdown, html = write_document(Document("A & B", sections), tmp_path, "report")
    page = Outside()
    page.feed(html.read_text())
    assert (page.links, page.pictures) == ([], [picture])
    assert '<td>&lt;script&gt;</td><td class="holds">holds</td>' in html.read_text()
    assert "<p>1 &lt; 2</p>" in html.read_text()
    text = markdown.read_text()
    assert "| a\\|b | c |\n|---|---|\n| <script> | holds |\n| +0.1 | x \\| y |\n" in text
    assert '<td class="number">1,2 (3.4)</td><td>1, 4</td>' in html.read_text()
    assert "![one < two](a.png)" in text


# --- the command ------------------------------------------------------------------------------


def test_one_command_goes_on_where_it_was_stopped_and_writes_the_report(
    dice, tmp_path, ttsolve, monkeypatch
) -> None:
    folder = tmp_path / "report"
    plan = replace(QUICK, search=replace(QUICK.search, budgets=(1, 4)))
    monkeypatch.setattr("ttsolve.reproduce.QUICK", plan)
    results = tmp_path / "large.jsonl"
    records = [{"id": i, "correct": i % 2 == 0} for i in range(10)]
    results.write_text("".join(json.dumps(record) + "\n" for record in records))
    common = (
        *("reproduce", dice, "--pair", "sim", "--quick", "-o", folder, "--limit", 8),
        *("--larger-results", results, "--larger-params", "14e6"),
    )
    drawn, stops = [], []
    plain_grow, plain = SimGenerator._grow, batch.outcomes

    def grow(self, prefix, how):
        drawn.append(how.seed)
        if len(drawn) == 100:
            stops[0].set()  # as Ctrl-C does
        return plain_grow(self, prefix, how)

    def outcomes(entries, solver, stop, **more):
        stops.append(stop)
        return plain(entries, solver, stop, **more)

    monkeypatch.setattr(SimGenerator, "_grow", grow)
    monkeypatch.setattr(batch, "outcomes", outcomes)
    code, out, err = ttsolve(*common)
    assert (code, out, folder.exists()) == (130, "", False)
    assert "Interrupted: the same command goes on from here." in err
    first = len(drawn)
    code, out, err = ttsolve(*common)
    assert code == 0, err
    assert 0 < first < len(drawn)
    assert f"Written: {folder / 'report.md'} and {folder / 'report.html'}." in err
    check_report(folder, out)
    whole = len(drawn)
    monkeypatch.setattr("ttsolve.paper_report.write_report", lambda *given: ("a", "b"))
    assert ttsolve(*common)[:2] == (0, out)
    assert len(drawn) == whole


@pytest.mark.parametrize("below", ["", "report"])
def test_a_file_in_the_reports_place_is_told_before_anything_is_measured(
    dice, ttsolve, below
) -> None:
    code, out, err = ttsolve("reproduce", dice, "--pair", "sim", "-o", dice / below)
    assert (code, out) == (2, "")
    assert err == f"Error: {dice} is a file: name a folder with --output.\n"


def check_report(folder, out) -> None:
    text = (folder / "report.md").read_text()
    for claim in CLAIMS:
        assert f"| {claim.says} | {claim.section} |" in text
        assert f"{claim.says} (section {claim.section})" in out
    table = text.partition("## Search by budget")[0]
    verdicts = re.findall(r"\| (holds|does not hold|cannot tell) \|$", table, re.MULTILINE)
    assert len(verdicts) == len(CLAIMS)
    assert "the pair has no reviser" in text
    assert "no ORM was given (--orm)" in text
    for fact in ("sha256", "seed", "units", "tokens generated", "by the clock", "cores", "policy"):
        assert fact in text
    figures = re.findall(r"^!\[.+\]\((.+\.png)\)$", text, re.MULTILINE)
    names = ("claims", "search", "bins", "optimal", "aggregation", "stars")
    assert figures == [f"{name}.png" for name in names]
    page = Outside()
    page.feed((folder / "report.html").read_text())
    assert page.links == []
    assert page.pictures == [(folder / figure).read_bytes() for figure in figures]


def test_what_is_lacking_is_told(pocket) -> None:
    assert "orm" in _lacking(pocket, None)
    assert "orm" not in _lacking(pocket, pocket.folder)
    assert ("revisions" in _lacking(pocket, None)) == (pocket.reviser is None)
    assert "revisions" in STRATEGIES


def test_an_orm_is_an_onnx_that_reads_what_the_pairs_verifier_does(pocket, tmp_path) -> None:
    shutil.copyfile(pocket.verifier_path, tmp_path / "orm.onnx")
    with_orm = _orm(tmp_path / "orm.onnx", pocket)
    assert with_orm.verifier_path == tmp_path / "orm.onnx"
    (problem,) = read_problems(pocket.folder / "data" / "test.jsonl")[:1]
    results = []
    for pair in (pocket, with_orm):
        generator, verifier = open_models(pair)
        engine = Engine(generator, verifier, seed=0, sampling=pair.sampling, budget=2)
        results.append(solve(problem, engine, BestOfN(2), pair))
    assert results[0].candidates == results[1].candidates


def test_a_report_needs_a_folder(dice, ttsolve) -> None:
    content = dice.read_text()
    code, _, err = ttsolve("reproduce", dice, "--pair", "sim", "-o", dice)
    assert (code, f"{dice} is a file: name a folder" in err) == (2, True)
    assert dice.read_text() == content


def test_an_orm_must_judge_the_same_generator(dice, tmp_path, ttsolve, pocket) -> None:
    code, _, err = ttsolve("reproduce", dice, "--pair", "sim", "--orm", pocket.folder)
    assert code == 2
    assert "has another generator, or prompt, than sim" in err
    code, _, err = ttsolve("reproduce", dice, "--pair", "sim", "--orm", tmp_path)
    assert (code, "pair.toml" in err) == (2, True)
    code, _, err = ttsolve("reproduce", dice, "--pair", "sim", "--orm", "nope.onnx")
    assert (code, "There is no nope.onnx: name an ORM's ONNX" in err) == (2, True)
