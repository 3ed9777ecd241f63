"""Scores of danger: numbers worked out by hand, and none that looks ahead."""

import numpy as np
import pytest
from scipy import stats

from hotoven.evaluation import scores
from hotoven.evaluation.scores import NEVER, SCORES


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def outputs(seed: int, shape: tuple[int, ...] = (4, 9), members: int = 5, actions: int = 7):
    """Values [*shape, M] and action probabilities [*shape, M, A], in float32 as networks give."""
    rng = generator(seed)
    values = rng.normal(3.0, 2.0, (*shape, members)).astype(np.float32)
    probabilities = rng.dirichlet(np.full(actions, 0.3), (*shape, members)).astype(np.float32)
    return values, probabilities


def test_u_is_that_worked_out_by_hand():
    values = np.array([1.0, 3.0])  # mu 2, sigma 1 (divided by 2, not by 1)
    mu, sigma = scores.mean_value(values), scores.std_value(values)
    assert (mu, sigma) == (2.0, 1.0)
    assert scores.score(mu, sigma, *scores.MEAN_ONLY) == -2.0
    assert scores.score(mu, sigma, *scores.WITH_STD) == -1.0
    assert scores.score(mu, sigma, 0.5, 3.0) == 4.0


def test_policies_are_scored_by_their_mean():
    # two members, sure of different actions: the mean policy is a coin
    split = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert scores.entropy(split) == pytest.approx(np.log(2))
    assert scores.margin(split) == 0.0
    assert scores.disagreement(split) == 1.0
    same = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert scores.entropy(same) == 0.0
    assert scores.margin(same) == -1.0
    assert scores.disagreement(same) == 0.0


def test_disagreement_is_that_worked_out_by_hand():
    # pairs agree with probability 0.5, 0.5 and 1: the three differ with 0.5, 0.5 and 0
    three = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]])
    assert scores.disagreement(three) == pytest.approx(1 / 3)
    # the same unsure policy twice: draws of it differ all the same
    assert scores.disagreement(np.array([[0.5, 0.5], [0.5, 0.5]])) == 0.5


def test_disagreement_is_that_of_drawn_actions():
    _, probabilities = outputs(0, shape=(), members=3)
    rng = generator(1)
    draws = np.array([rng.choice(7, 40_000, p=p / p.sum()) for p in probabilities.astype(float)])
    differ = [np.mean(draws[i] != draws[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert scores.disagreement(probabilities) == pytest.approx(np.mean(differ), abs=0.01)


def test_entropy_agrees_with_scipy():
    _, probabilities = outputs(2)
    oracle = stats.entropy(probabilities.mean(axis=-2, dtype=float), axis=-1)
    np.testing.assert_allclose(scores.entropy(probabilities), oracle, rtol=1e-6)


@pytest.mark.parametrize("name", SCORES)
def test_a_score_of_all_steps_is_that_of_each_step(name):
    values, probabilities = outputs(3)
    whole = SCORES[name](values, probabilities)
    assert whole.shape == (4, 9)
    assert whole.dtype == np.float64
    for at in np.ndindex(4, 9):
        assert SCORES[name](values[at], probabilities[at]) == pytest.approx(whole[at], rel=1e-12)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("step", [0, 4, 7])
def test_a_score_does_not_see_what_comes_after_its_step(name, step):
    values, probabilities = outputs(4)
    other_values, other_probabilities = outputs(5)
    other_values[:, : step + 1] = values[:, : step + 1]
    other_probabilities[:, : step + 1] = probabilities[:, : step + 1]
    before = SCORES[name](values, probabilities)
    after = SCORES[name](other_values, other_probabilities)
    np.testing.assert_array_equal(before[:, : step + 1], after[:, : step + 1])
    assert (before[:, step + 1 :] != after[:, step + 1 :]).any()


def test_the_oracle_counts_the_steps_to_the_death():
    found = scores.oracle(np.array([3, 2, 4]), np.array([True, False, True]), max_steps=4)
    np.testing.assert_array_equal(
        found, [[-2, -1, 0, NEVER], [NEVER, NEVER, NEVER, NEVER], [-3, -2, -1, 0]]
    )


def test_random_scores_depend_on_their_seed_alone():
    np.testing.assert_array_equal(scores.random((3, 4), seed=1), scores.random((3, 4), seed=1))
    assert (scores.random((3, 4), seed=1) != scores.random((3, 4), seed=2)).all()


def test_what_one_member_or_one_action_cannot_tell_is_refused():
    with pytest.raises(ValueError, match="at least 2 members, got 1"):
        scores.disagreement(np.ones((4, 1, 3)))
    with pytest.raises(ValueError, match="at least 2 actions, got 1"):
        scores.margin(np.ones((4, 3, 1)))
