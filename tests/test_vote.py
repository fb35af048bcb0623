from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttsolve.core import Problem, Solution, Step
from ttsolve.vote import (
    best_of_all,
    best_of_n,
    best_of_n_weighted,
    chain_winners,
    hierarchical,
    majority,
    score_of,
)

PROBLEM = Problem("q")
VOTES = [best_of_n_weighted, best_of_n, majority, hierarchical]


def candidate(answer, *scores, finish="stop"):
    """A solution with these step scores, the last of them that of the answer."""
    *inner, last = scores or (None,)
    steps = [Step(f"{i}\n", 1, score=score) for i, score in enumerate(inner)]
    text = "no idea\n" if answer is None else f"Answer: {answer}\n"
    return Solution(PROBLEM, (*steps, Step(text, 1, score=last)), finish)


PICTURE = [
    candidate("1/2", 0.5),
    candidate("7", 0.75),
    candidate("0.5", 0.375),
    candidate("3", 0.125),
    candidate("3", 0.125),
    candidate("3", 0.125),
    candidate(None, 1.0),
]


def test_weighted():
    vote = best_of_n_weighted(PICTURE)
    assert vote.weights == (("1/2", 0.875, 2), ("7", 0.75, 1), ("3", 0.375, 3))
    assert (vote.answer, vote.share, vote.method) == ("1/2", 0.4375, "weighted")
    assert vote.best is PICTURE[0]


def test_best():
    vote = best_of_n(PICTURE)
    assert vote.weights == (("7", 0.75, 1), ("1/2", 0.5, 2), ("3", 0.125, 3))
    assert (vote.answer, vote.method, vote.best) == ("7", "best", PICTURE[1])


def test_majority():
    vote = majority(PICTURE)
    assert vote.weights == (("3", 3, 3), ("1/2", 2, 2), ("7", 1, 1))
    assert (vote.answer, vote.share, vote.best) == ("3", 0.5, PICTURE[3])


def test_the_answer_is_written_as_its_best_candidate_writes_it():
    assert best_of_n_weighted([candidate("0.5", 0.25), candidate("1/2", 0.5)]).answer == "1/2"


def test_without_scores_the_weighted_vote_is_a_majority_and_says_so():
    for vote in VOTES:
        out = vote([candidate("1"), candidate("2"), candidate("2"), candidate("1", 0.9)])
        assert (out.answer, out.share, out.method) == ("1", 0.5, "majority")
        assert vote([candidate("1"), candidate("2"), candidate("2")]).answer == "2"


@pytest.mark.parametrize("vote", VOTES)
def test_where_no_two_agree_the_best_score_decides(vote):
    hands = [candidate("4 * 6", 0.25), candidate("3 * 8", 0.5), candidate("12 + 12", 0.125)]
    assert vote(hands).answer == "3 * 8"
    assert vote([candidate("4 * 6"), candidate("3 * 8")]).answer == "4 * 6"


@pytest.mark.parametrize("vote", VOTES)
def test_ties_go_to_the_higher_score_then_to_the_first(vote):
    a, b, c = candidate("1", 0.5), candidate("2", 0.5), candidate("2", 0.5)
    assert vote([a, b]).answer == "1"
    assert vote([b, a]).answer == "2"
    assert vote([b, c]).best is b
    high, low = candidate("2", 0.75), candidate("2", 0.25)  # together as heavy as two of 0.5
    assert best_of_n_weighted([a, a, low, high]).answer == "2"
    assert majority([a, a, low, high]).answer == "2"


@pytest.mark.parametrize("vote", VOTES)
def test_nobody_votes(vote):
    for candidates in (
        [],
        [candidate(None, 0.5)],
        [PROBLEM.root],
        [candidate(None)] * 3,
    ):
        out = vote(candidates)
        assert (out.answer, out.share, out.best, out.weights) == (None, 0.0, None, ())


def test_scores_of_zero_share_by_number():
    vote = best_of_n_weighted([candidate("1", 0.0), candidate("2", 0.0), candidate("2", 0.0)])
    assert (vote.answer, vote.share) == ("1", pytest.approx(1 / 3))


def test_aggregation_of_steps():
    solution = candidate("1", 0.5, 0.25, 0.75)
    assert [score_of(solution, by) for by in ("last", "min", "prod")] == [0.75, 0.25, 0.09375]
    assert score_of(candidate("1", 0.5, None)) is None
    assert score_of(PROBLEM.root) is None
    steady, late = candidate("1", 0.5, 0.5), candidate("2", 0.125, 0.875)
    assert best_of_n([steady, late]).answer == "2"
    assert best_of_n([steady, late], by="min").answer == "1"


ballots = st.lists(
    st.tuples(st.sampled_from(["1", "1/2", "0.5", "2", "2 * 3", "3*2", None]), st.floats(0.01, 1)),
    max_size=12,
)


@given(ballots)
def test_shares_sum_to_one_and_all_who_vote_are_counted(ballot):
    for vote in VOTES:
        out = vote([candidate(*each) for each in ballot])
        voters = sum(answer is not None for answer, _ in ballot)
        assert sum(count for _, _, count in out.weights) == voters
        if voters:
            total = sum(weight for _, weight, _ in out.weights)
            others = sum(weight for _, weight, _ in out.weights[1:])
            assert out.share + others / total == pytest.approx(1)
            assert out.weights[0][0] == out.answer


@given(ballots, st.randoms())
def test_the_order_of_candidates_does_not_matter_up_to_ties(ballot, rng):
    for vote in VOTES:
        one = vote([candidate(*each) for each in ballot])
        two = vote([candidate(*each) for each in rng.sample(ballot, len(ballot))])
        assert one.share == two.share
        assert sorted(w[1:] for w in one.weights) == sorted(w[1:] for w in two.weights)


@given(ballots.filter(lambda ballot: len({score for _, score in ballot}) == len(ballot)))
def test_best_of_n_is_the_best_score(ballot):
    voters = [each for each in ballot if each[0] is not None]
    if voters:
        assert (
            best_of_n([candidate(*b) for b in ballot]).answer == max(voters, key=lambda v: v[1])[0]
        )


# --- chains of revisions ----------------------------------------------------------------------


def chained(chain, *candidates):
    return [replace(one, chain=chain) for one in candidates]


def test_chains_vote_first_among_themselves():
    """The first chain's answer is 5: two of 0.375 outweigh one of 0.5; its winner is the first.

    The others' winners have 7 with 0.25 each; so does a probe, which stands for itself.
    """
    five = [candidate("5", 0.375), candidate("5", 0.3125)]
    candidates = [
        *chained(0, candidate("8", 0.5), *five),
        *chained(1, candidate("7", 0.25), candidate(None, 1.0)),
        *chained(2, candidate("7", 0.25), candidate("6", 0.125)),
        candidate("5", 0.0625),
        *chained(3, candidate(None, 1.0)),
    ]
    assert chain_winners(candidates) == [candidates[i] for i in (1, 3, 5, 7)]
    vote = hierarchical(candidates)
    assert vote.weights == (("7", 0.5, 2), ("5", 0.4375, 2))
    assert (vote.answer, vote.method, vote.best) == ("7", "hierarchical", candidates[3])
    assert best_of_n_weighted(candidates).answer == "5"  # one vote of all is another


def test_the_attempts_of_a_chain_may_come_in_any_places():
    one = chained(0, candidate("1", 0.25), candidate("2", 0.5))
    two = chained(1, candidate("1", 0.375), candidate("3", 0.125))
    mixed = hierarchical([one[0], two[0], one[1], two[1]])
    assert mixed == hierarchical([*one, *two])


def test_unscored_chains_hold_one_vote_by_majority():
    """Each chain's own majority would be the first of equals: 1, 1 and 2."""
    chains = [("1", "2"), ("1", "2"), ("2", "3")]
    candidates = [c for i, pair in enumerate(chains) for c in chained(i, *map(candidate, pair))]
    vote = hierarchical(candidates)
    assert (vote.answer, vote.weights[0], vote.method) == ("2", ("2", 3, 3), "majority")


def test_candidates_are_voted_on_as_suits_them():
    scored, unscored = candidate("1", 0.5), candidate("1")
    assert best_of_all([scored]).method == "weighted"
    assert best_of_all([unscored]).method == "majority"
    assert best_of_all(chained(0, scored)).method == "hierarchical"
    assert best_of_all(chained(0, unscored)).method == "majority"


@given(ballots)
def test_chains_of_one_vote_as_if_there_were_none(ballot):
    candidates = [candidate(*each) for each in ballot]
    alone = [replace(one, chain=i) for i, one in enumerate(candidates)]
    plain, chains = best_of_n_weighted(candidates), hierarchical(alone)
    assert (chains.answer, chains.share, chains.weights) == (
        plain.answer,
        plain.share,
        plain.weights,
    )
    assert hierarchical(candidates) == replace(plain, method=hierarchical(candidates).method)
