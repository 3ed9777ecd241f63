"""What each mechanism decides, on networks whose answers are written by hand."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hotoven.mechanisms.blocker import Blocker
from hotoven.mechanisms.dropout import MCDropout
from hotoven.mechanisms.mean import Mean
from hotoven.mechanisms.member import Member
from hotoven.mechanisms.vote import Vote
from hotoven.types import Decision, Net

OBS = jnp.zeros(3)
KEY = jax.random.key(0)


def spoken(params: Any, obs: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """The params are the answer."""
    return params


def masked(params: Any, obs: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """Each answer is kept or dropped, by the key."""
    return params if key is None else jnp.where(jax.random.bernoulli(key, 0.5, (4,)), params, 0.0)


SAYS = Net(lambda key: None, spoken)
DROPS = Net(lambda key: None, masked)


def act(policy: Any, obs: jax.Array = OBS) -> Decision:
    return policy.act(policy.init(KEY), obs, KEY)[1]


def log_odds(*probabilities: float) -> jax.Array:
    p = jnp.array(probabilities)
    return jnp.log(p) - jnp.log1p(-p)


def guard(inner: Any, *probabilities: float, threshold: float = 0.5) -> Blocker:
    return Blocker(inner, log_odds(*probabilities), jnp.float32(threshold), SAYS)


# One network, means and votes


def test_a_member_takes_its_best_action():
    decision = act(Member(jnp.array([1.0, 3.0, 2.0, -1.0]), SAYS))
    assert int(decision.action) == int(decision.wanted) == 1
    assert float(decision.risk) == -3.0
    assert decision.blocked.tolist() == [False] * 4
    assert not decision.intervened


def test_the_mean_averages_away_one_members_spurious_value():
    q = jnp.array([[9.0, 4.0], [0.0, 4.0], [0.0, 4.0]])  # sums 9 and 12
    assert int(act(Member(q[0], SAYS)).action) == 0
    decision = act(Mean(q, SAYS))
    assert int(decision.action) == 1
    assert decision.preferences.tolist() == [3.0, 4.0]
    assert float(decision.risk) == -4.0


def test_the_majority_wins_however_sure_the_others_are():
    q = jnp.array([[99.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    assert int(act(Mean(q, SAYS)).action) == 0
    decision = act(Vote(q, SAYS))
    assert int(decision.action) == 1
    assert float(decision.risk) == pytest.approx(-101 / 3)  # the members' own best values


def test_one_vote_outweighs_any_mean():
    # 5 members: 3 votes for action 3, whose mean is the lowest; 2 for action 0
    q = jnp.array([[9.0, 5.0, 5.0, 0.0]] * 2 + [[0.0, 0.5, 0.6, 1.0]] * 3)
    assert q.mean(axis=0).argmin() == 3
    assert int(act(Vote(q, SAYS)).action) == 3


@pytest.mark.parametrize(("sure", "winner"), [(5.0, 0), (1.0, 2)])
def test_the_mean_decides_between_equally_many_votes(sure, winner):
    # a vote each for 0 and 2; sums are `sure` and 2; action 1 has the best mean and no vote
    q = jnp.array([[sure, sure - 0.1, 0.0], [0.0, 1.9, 2.0]])
    assert int(act(Vote(q, SAYS)).action) == winner


def test_without_a_vote_the_mean_ranks_so_that_a_blocker_can_go_on():
    q = jnp.array([[9.0, 2.0, 1.0], [9.0, 1.0, 3.0]])
    decision = act(Vote(q, SAYS))
    assert np.argsort(-decision.preferences).tolist() == [0, 2, 1]


# MC-dropout


def test_mc_dropout_is_the_mean_over_its_masks():
    q = jnp.array([1.0, 2.0, 4.0, 3.0])
    policy = MCDropout(q, DROPS, num_samples=5)
    memory = policy.init(KEY)
    assert len(memory) == 5
    expected = np.mean([masked(q, OBS, key) for key in memory], axis=0)
    _, decision = policy.act(memory, OBS, KEY)
    assert decision.preferences == pytest.approx(expected)
    assert int(decision.action) == expected.argmax()


def test_mc_dropout_keeps_its_masks_through_an_episode_and_draws_new_ones_for_the_next():
    policy = MCDropout(jnp.array([1.0, 2.0, 4.0, 3.0]), DROPS, num_samples=5)
    memory = start = policy.init(KEY)
    seen = set()
    for step in range(4):
        memory, decision = policy.act(memory, OBS, jax.random.key(step))
        seen.add(tuple(decision.preferences.tolist()))
    assert len(seen) == 1
    assert (jax.random.key_data(memory) == jax.random.key_data(start)).all()
    _, other = policy.act(policy.init(jax.random.key(1)), OBS, KEY)
    assert tuple(other.preferences.tolist()) not in seen


# The blocker

WISH = Member(jnp.array([1.0, 4.0, 3.0, 2.0]), SAYS)  # prefers 1, then 2, 3, 0


def test_a_safe_wish_is_granted_even_where_other_actions_are_blocked():
    decision = act(guard(WISH, 0.9, 0.4, 0.9, 0.9))
    assert int(decision.action) == 1
    assert decision.blocked.tolist() == [True, False, True, True]
    assert not decision.intervened
    assert float(decision.risk) == pytest.approx(0.4)


def test_the_best_action_that_is_not_blocked_is_taken():
    decision = act(guard(WISH, 0.1, 0.9, 0.6, 0.4))
    assert int(decision.action) == 3
    assert int(decision.wanted) == 1
    assert decision.blocked.tolist() == [False, True, True, False]
    assert bool(decision.intervened)
    assert float(decision.risk) == pytest.approx(0.9)


def test_the_least_dangerous_action_is_taken_where_all_are_blocked():
    decision = act(guard(WISH, 0.9, 0.8, 0.7, 0.95))
    assert int(decision.action) == 2
    assert decision.blocked.tolist() == [True] * 4
    assert bool(decision.intervened)


def test_blocking_all_without_changing_the_action_is_no_intervention():
    decision = act(guard(WISH, 0.9, 0.6, 0.7, 0.95))
    assert int(decision.action) == 1
    assert decision.blocked.tolist() == [True] * 4
    assert not decision.intervened


def test_a_probability_at_the_threshold_is_not_blocked():
    assert act(Blocker(WISH, jnp.zeros(4), jnp.float32(0.5), SAYS)).blocked.tolist() == [False] * 4


Q = jnp.array([[1.0, 4.0, 3.0, 2.0], [0.0, 2.0, 3.0, 1.0]])
INNER = {
    "member": WISH,
    "mean": Mean(Q, SAYS),
    "vote": Vote(Q, SAYS),
    "mc_dropout": MCDropout(Q[0], DROPS, num_samples=3),
    "blocker": guard(WISH, 0.1, 0.9, 0.1, 0.1),
}


def test_policies_of_one_network_are_told_apart_by_their_structures():
    found = {kind: kind(Q, SAYS) for kind in (Member, Mean, Vote)}
    guarded = [guard(policy, 0.1, 0.9, 0.1, 0.1) for policy in found.values()]
    structures = [jax.tree.structure(policy) for policy in (*found.values(), *guarded)]
    pairs = itertools.combinations(structures, 2)
    assert not any(one == other for one, other in pairs)


@pytest.mark.parametrize("name", INNER)
def test_a_threshold_of_infinity_changes_nothing(name):
    inner = INNER[name]
    alone, decision = act(inner), act(guard(inner, 1.0, 1.0, 1.0, 1.0, threshold=jnp.inf))
    for field in ("action", "wanted", "preferences", "blocked", "intervened"):
        assert (getattr(decision, field) == getattr(alone, field)).all(), field


@pytest.mark.parametrize("name", INNER)
def test_it_works_around_every_policy(name):
    inner = INNER[name]
    wish = act(inner)
    dangers = [0.2] * 4
    dangers[int(wish.action)] = 0.9
    decision = act(guard(inner, *dangers))
    refused = [bool(flag) or p > 0.5 for flag, p in zip(wish.blocked, dangers, strict=True)]
    left = np.where(refused, -np.inf, wish.preferences)
    assert int(decision.action) == left.argmax()
    assert int(decision.wanted) == int(wish.wanted)
    assert decision.blocked.tolist() == refused
    assert bool(decision.intervened)


def test_a_sweep_of_thresholds_by_vmap_is_the_loop():
    thresholds = jnp.array([0.05, 0.3, 0.5, 0.7, jnp.inf])
    policy = guard(WISH, 0.1, 0.8, 0.6, 0.4)
    assert len(jax.tree.leaves(policy)) == 3  # the wish, the classifier, the threshold

    def at(threshold: jax.Array) -> Decision:
        return act(Blocker(policy.inner, policy.params, threshold, SAYS))

    swept = jax.vmap(at)(thresholds)
    assert swept.action.tolist() == [0, 0, 3, 2, 1]
    for index, threshold in enumerate(thresholds):
        for many, one in zip(swept, at(threshold), strict=True):
            assert (many[index] == one).all()
