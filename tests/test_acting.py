"""How policy-gradient agents act, on networks whose answers are written by hand."""

from collections.abc import Callable
from itertools import combinations, product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hotoven.mechanisms.acting import (
    ACTING,
    EVERY_STEP,
    WHOLE_EPISODE,
    Combined,
    DrawnVote,
    Hysteresis,
    RandomMember,
    Single,
    mean_logits,
    mean_probabilities,
    policies,
)
from hotoven.mechanisms.blocker import Blocker
from hotoven.types import AgentOutput, Decision, Net

OBS = jnp.zeros(3)
NUM_DRAWS = 20_000
KEYS = jax.random.split(jax.random.key(0), NUM_DRAWS)
HOLD, MARGIN = 3, 0.5

# Three members that disagree, and what they think the state is worth.
PROBABILITIES = jnp.array([[0.8, 0.1, 0.1, 0.0], [0.1, 0.7, 0.1, 0.1], [0.3, 0.3, 0.2, 0.2]])
VALUES = jnp.array([1.0, 2.0, 6.0])
MEMBERS = (PROBABILITIES, VALUES)


def spoken(params: Any, obs: jax.Array) -> AgentOutput:
    """The params are the answer."""
    return AgentOutput(*params)


def by_time(params: Any, obs: jax.Array) -> AgentOutput:
    """The params are answers for times to come, and the observation is the time."""
    probabilities, value = params
    return AgentOutput(probabilities[obs], value)


def first_acts(policy: Any) -> Decision:
    """Decisions at the start of many episodes, leaves [NUM_DRAWS]."""

    def one(key: jax.Array) -> Decision:
        k_init, k_act = jax.random.split(key)
        return policy.act(policy.init(k_init), OBS, k_act)[1]

    return jax.jit(jax.vmap(one))(KEYS)


def shares(actions: jax.Array, num_actions: int = 4) -> np.ndarray:
    return np.bincount(np.ravel(actions), minlength=num_actions) / np.size(actions)


def episode(policy: Any, observations: Any, key: jax.Array) -> tuple[Any, Decision]:
    """Memories and decisions of one episode, leaves [T]."""

    def step(memory: Any, seen: tuple) -> tuple[Any, Any]:
        obs, k_act = seen
        memory, decision = policy.act(memory, obs, k_act)
        return memory, (memory, decision)

    k_init, k_act = jax.random.split(key)
    keys = jax.random.split(k_act, len(observations))
    return jax.lax.scan(step, policy.init(k_init), (observations, keys))[1]


def vote_distribution(probabilities: np.ndarray) -> np.ndarray:
    """By all ways in which the members can vote."""
    num_members, num_actions = probabilities.shape
    mean = probabilities.mean(axis=0)
    found = np.zeros(num_actions)
    for votes in product(range(num_actions), repeat=num_members):
        counts = np.bincount(votes, minlength=num_actions)
        winner = max(range(num_actions), key=lambda action: (counts[action], mean[action]))
        found[winner] += np.prod(probabilities[np.arange(num_members), votes])
    return found


# Worked out by hand

MEAN = [0.4, 1.1 / 3, 0.4 / 3, 0.1]
EXPECTED: dict[str, Any] = {
    "random_step": MEAN,
    "random_hold": MEAN,
    "random_episode": MEAN,
    "mean": MEAN,
    "mean_hysteresis": MEAN,  # at the first step nothing is held
    # cube roots of 0.8 * 0.1 * 0.3, 0.1 * 0.7 * 0.3, 0.1 * 0.1 * 0.2, 0
    "mean_logits": np.cbrt([0.024, 0.021, 0.002, 0.0]) / np.cbrt([0.024, 0.021, 0.002]).sum(),
    "vote": vote_distribution(np.asarray(PROBABILITIES)),
}
ALL = policies(MEMBERS, spoken, HOLD, MARGIN)


def test_tables_have_one_name_for_each_way_of_acting():
    assert tuple(ALL) == ACTING
    assert {*EXPECTED, "single"} == set(ACTING)


def test_ways_of_acting_are_told_apart_by_their_structures():
    alike = {name: policy for name, policy in ALL.items() if not name.startswith("random_")}
    structures = [jax.tree.structure(policy) for policy in [*alike.values(), ALL["random_step"]]]
    pairs = combinations(structures, 2)
    assert not any(one == other for one, other in pairs)


@pytest.mark.parametrize("name", EXPECTED)
def test_actions_are_drawn_with_the_probabilities_worked_out_by_hand(name: str):
    decision = first_acts(ALL[name])
    # five standard deviations of a share of NUM_DRAWS
    assert shares(decision.action) == pytest.approx(EXPECTED[name], abs=5 * 0.5 / NUM_DRAWS**0.5)
    assert decision.wanted.tolist() == decision.action.tolist()
    assert not decision.blocked.any() and not decision.intervened.any()
    assert decision.risk == pytest.approx(np.full(NUM_DRAWS, -3.0))  # of all members


@pytest.mark.parametrize("name", ["mean", "mean_logits", "mean_hysteresis"])
def test_preferences_are_the_probabilities(name: str):
    assert first_acts(ALL[name]).preferences[0] == pytest.approx(np.asarray(EXPECTED[name]))


def test_a_single_member_draws_from_its_own_policy_at_its_own_risk():
    decision = first_acts(Single((PROBABILITIES[1], VALUES[1]), spoken))
    assert shares(decision.action) == pytest.approx([0.1, 0.7, 0.1, 0.1], abs=0.018)
    assert set(decision.risk.tolist()) == {-2.0}


def test_a_single_policy_over_all_members_is_each_of_them():
    many = jax.vmap(lambda policy: policy.act((), OBS, KEYS[0])[1])(ALL["single"])
    for member in range(3):
        alone = Single((PROBABILITIES[member], VALUES[member]), spoken)
        for field, one in zip(many, alone.act((), OBS, KEYS[0])[1], strict=True):
            assert (field[member] == one).all()


def test_the_mean_of_logits_lets_every_member_rule_an_action_out():
    # each rules out another one: none is left but 2, and no division by zero
    ruled = jnp.array([[0.0, 0.9, 0.1], [0.9, 0.0, 0.1]])
    assert mean_logits(ruled) == pytest.approx([0.0, 0.0, 1.0], abs=1e-6)
    assert mean_probabilities(ruled) == pytest.approx([0.45, 0.45, 0.1])
    nothing_left = mean_logits(jnp.array([[1.0, 0.0], [0.0, 1.0]]))
    assert nothing_left == pytest.approx([0.5, 0.5])


# Votes


def test_the_mean_decides_between_equally_many_votes():
    # sure voters for 0 and 2, and the third for 1 or 3: a tie of three, which the mean decides
    sure = jnp.array([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.5, 0.1, 0.4]])
    decision = first_acts(DrawnVote((sure, VALUES), spoken))
    assert set(decision.action.tolist()) == {2}
    # best first: the winner, others with a vote, then those without, by their mean
    third = jnp.array([0, 1, 3])
    drawn_three = np.asarray(decision.preferences)[:, third].argmin(axis=1) == 1
    row = np.flatnonzero(drawn_three)[0]
    assert np.argsort(-decision.preferences[row]).tolist() == [2, 0, 3, 1]


def test_a_vote_of_equals_does_oftener_what_each_does_most():
    alike = jnp.tile(jnp.array([0.6, 0.4]), (3, 1))
    found = shares(first_acts(DrawnVote((alike, VALUES), spoken)).action, 2)
    # two or three of three: 0.6^3 + 3 * 0.6^2 * 0.4
    assert found[0] == pytest.approx(0.648, abs=0.018)


# What is held


def turns(hold: int, num_episodes: int, num_steps: int = 60) -> np.ndarray:
    """int[episodes, steps]: which member acts. Member i takes action i, always."""
    policy = RandomMember((jnp.eye(4), jnp.zeros(4)), jnp.int32(hold), spoken)
    act = jax.jit(jax.vmap(lambda key: episode(policy, jnp.zeros((num_steps, 3)), key)))
    memory, decision = act(KEYS[:num_episodes])
    assert (memory.member == decision.action).all()
    return np.asarray(decision.action)


@pytest.mark.parametrize("hold", [EVERY_STEP, 2, 7])
def test_a_member_acts_for_as_many_steps_as_it_is_held_and_no_longer(hold: int):
    acted = turns(hold, 400)
    changes = np.flatnonzero((acted[:, 1:] != acted[:, :-1]).any(axis=0)) + 1
    assert changes.tolist() == list(range(hold, 60, hold))
    held = acted[:, ::hold]
    # a new draw may be the same member: one in four
    assert (held[:, 1:] == held[:, :-1]).mean() == pytest.approx(0.25, abs=0.04)
    assert shares(held) == pytest.approx([0.25] * 4, abs=0.04)


def test_one_member_may_act_for_the_whole_episode():
    acted = turns(WHOLE_EPISODE, 400)
    assert (acted == acted[:, :1]).all()
    assert shares(acted[:, 0]) == pytest.approx([0.25] * 4, abs=0.11)  # a new episode, a new draw


def hysteresis(margin: float, *probabilities: list[float]) -> np.ndarray:
    """int[20, T]: the actions of 20 episodes in which the policy changes with time."""
    over_time = jnp.array(probabilities)
    policy = Hysteresis((over_time[None], jnp.zeros(1)), jnp.float32(margin), by_time)
    times = jnp.arange(len(probabilities))
    act = jax.jit(jax.vmap(lambda key: episode(policy, times, key)[1].action))
    return np.asarray(act(KEYS[:20]))


@pytest.mark.parametrize(("share", "kept"), [(0.51, True), (0.49, False)])
def test_an_action_is_kept_while_it_is_likely_enough(share: float, kept: bool):
    # action 0, then one that is likelier; with a margin of a half
    low = share / (1 + share)
    acted = hysteresis(0.5, [1.0, 0.0], *[[low, 1 - low]] * 5)
    assert (acted[:, 0] == 0).all()
    assert (acted[:, 1:] == 0).all() == kept


def test_with_no_margin_only_the_likeliest_action_is_kept():
    acted = hysteresis(0.0, *[[0.55, 0.45]] * 30)
    for row in acted:
        first = np.argmax(row == 0)  # drawn at random until it is the likeliest, then for good
        assert (row[first:] == 0).all()
    assert (acted == 1).any()


def test_a_full_margin_keeps_the_first_action_for_ever():
    acted = hysteresis(1.0, [0.5, 0.5], *[[0.01, 0.99], [0.99, 0.01]] * 5)
    assert (acted == acted[:, :1]).all()
    assert set(acted[:, 0]) == {0, 1}


def test_nothing_is_held_from_one_episode_to_the_next():
    policy = ALL["mean_hysteresis"]
    assert int(policy.init(KEYS[0])) == int(policy.init(KEYS[1])) == -1
    assert int(ALL["random_hold"].init(KEYS[0]).num_steps) == 0


# All of them

ALIKE = (jnp.tile(PROBABILITIES[2], (3, 1)), jnp.full(3, 5.0))


@pytest.mark.parametrize("name", [name for name in ACTING if name not in ("single", "vote")])
def test_members_that_are_alike_act_as_one_of_them(name: str):
    decision = first_acts(policies(ALIKE, spoken, HOLD, MARGIN)[name])
    assert shares(decision.action) == pytest.approx([0.3, 0.3, 0.2, 0.2], abs=0.018)
    assert set(decision.risk.tolist()) == {-5.0}


@pytest.mark.parametrize("name", ["mean", "mean_logits", "vote", "mean_hysteresis"])
def test_greedy_ones_take_the_likeliest_action_whatever_the_key(name: str):
    policy = policies(MEMBERS, spoken, HOLD, MARGIN, greedy=True)[name]
    assert policy.deterministic and not ALL[name].deterministic
    assert set(first_acts(policy).action.tolist()) == {0}


def test_a_greedy_random_member_still_draws_whose_turn_it_is():
    policy = policies(MEMBERS, spoken, HOLD, MARGIN, greedy=True)["random_step"]
    assert not policy.deterministic
    # the third likes 0 and 1 alike and takes the first of them
    assert shares(first_acts(policy).action) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=0.018)


def one(name: str, found: dict[str, Any] = ALL) -> Any:
    """A policy that can act: of the single ones the last."""
    return jax.tree.map(lambda leaf: leaf[2], found[name]) if name == "single" else found[name]


@pytest.mark.parametrize("name", ACTING)
def test_decisions_have_the_shapes_and_types_of_the_record(name: str):
    policy = one(name)
    with jax.numpy_dtype_promotion("strict"):
        memory, decision = policy.act(policy.init(KEYS[0]), OBS, KEYS[1])
    again = jax.eval_shape(policy.act, memory, OBS, KEYS[2])[0]
    shape = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)  # noqa: E731
    assert shape(again) == shape(memory) == shape(policy.init(KEYS[0]))
    found = [(leaf.shape, leaf.dtype) for leaf in decision]
    assert found == [
        ((), jnp.int32), ((), jnp.int32), ((4,), jnp.float32), ((), jnp.float32), ((4,), bool),
        ((), bool),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ACTING)
def test_the_same_keys_give_the_same_episode_compiled_or_not(name: str):
    policy = one(name)
    plain = episode(policy, jnp.zeros((8, 3)), KEYS[0])[1]
    compiled = jax.jit(episode)(policy, jnp.zeros((8, 3)), KEYS[0])[1]
    assert plain.action.tolist() == compiled.action.tolist()


@pytest.mark.parametrize("name", ACTING)
def test_many_ensembles_by_vmap_are_the_loop(name: str):
    others = policies((PROBABILITIES[::-1], VALUES[::-1]), spoken, HOLD + 1, MARGIN / 2)
    settings = [one(name), one(name, others)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *settings)
    go: Callable = lambda policy: episode(policy, jnp.zeros((8, 3)), KEYS[3])[1].action  # noqa: E731
    swept = jax.vmap(go)(stacked)
    assert swept.tolist() == [go(policy).tolist() for policy in settings]


@pytest.mark.parametrize("name", ACTING)
def test_a_blocker_works_around_each(name: str):
    said = Net(lambda key: None, lambda params, obs, key=None: params)
    forbids_0 = Blocker(one(name), jnp.array([9.0, -9.0, -9.0, -9.0]), jnp.float32(0.5), said)
    decision = first_acts(forbids_0)
    assert 0 not in decision.action
    assert (decision.intervened == (decision.wanted == 0)).all()
    assert decision.intervened.any()


def test_combining_is_what_the_two_means_differ_in():
    def always_2(probabilities: jax.Array) -> jax.Array:
        return jax.nn.one_hot(2, probabilities.shape[1])

    assert set(first_acts(Combined(MEMBERS, spoken, always_2)).action.tolist()) == {2}
