"""Episodes played and recorded: by hand on ASCII levels, and against a plain loop over env.step."""

from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from hotoven import nets
from hotoven.envs.lavagrid import LavaGrid
from hotoven.envs.lavagrid_levels import Level, from_ascii
from hotoven.evaluation import rollout
from hotoven.evaluation.help import play_with_help
from hotoven.evaluation.live import Live
from hotoven.evaluation.rollout import Episodes, dangerous_actions, play, record, record_all
from hotoven.mechanisms.blocker import Blocker
from hotoven.mechanisms.dropout import MCDropout
from hotoven.mechanisms.mean import Mean
from hotoven.mechanisms.member import Member
from hotoven.mechanisms.vote import Vote
from hotoven.trees import register_dataclass
from hotoven.types import CATASTROPHE, RUNNING, SOLVED, TIMEOUT, Decision

STRIP = LavaGrid(
    height=1, width=5, wall_density=0.0, lava_density=0.0, min_distance=1, max_steps=6
)  # fmt: skip
KEY = jax.random.key(0)


@register_dataclass(data_fields=["actions", "wanted", "blocked"])
@dataclass(frozen=True)
class Script:
    """Takes the actions of a script, step by step, and says what it wanted and blocked."""

    actions: jax.Array  # int32[T]
    wanted: jax.Array  # int32[T]
    blocked: jax.Array  # bool[T, A]

    def init(self, key: jax.Array) -> jax.Array:
        return jnp.int32(0)

    def act(self, memory: jax.Array, obs: jax.Array, key: jax.Array) -> tuple[Any, Decision]:
        action, wanted = self.actions[memory], self.wanted[memory]
        return memory + 1, Decision(
            action, wanted, jnp.zeros(4), jnp.float32(0), self.blocked[memory], action != wanted
        )


def script(path: str, wanted: str = "", blocked: tuple[str, ...] = ()) -> Script:
    """A script from letters u, r, d, l; `blocked` holds each step's blocked letters."""
    wanted = wanted or path
    blocked = blocked or ("",) * len(path)
    return Script(
        jnp.array(["urdl".index(letter) for letter in path], jnp.int32),
        jnp.array(["urdl".index(letter) for letter in wanted], jnp.int32),
        jnp.array([[letter in step for letter in "urdl"] for step in blocked]),
    )


def strips(*texts: str) -> Level:
    drawn = [from_ascii(text) for text in texts]
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x) for x in leaves]), *drawn)


def lists(episodes: Episodes) -> dict[str, list]:
    return {name: leaf.tolist() for name, leaf in episodes._asdict().items()}


# By hand

MAPS = ("S..LG", "L.S.G", "SG...", "S...G", "SL...")


@pytest.mark.parametrize("num_slots", [1, 2, 128])
def test_every_level_is_played_once_to_its_own_end(num_slots):
    # rrr.. : lava at step 3; goal at step 2; goal at 1; against the edge and back: never; lava at 1
    found = lists(play(STRIP, script("rrlrll"), strips(*MAPS), KEY, num_slots))
    assert found["outcome"] == [TIMEOUT, SOLVED, SOLVED, TIMEOUT, CATASTROPHE]
    assert found["length"] == [6, 2, 1, 6, 1]
    assert found["episode_return"] == [0.0, 1.0, 1.0, 0.0, -1.0]
    assert [STRIP.causes[cause] for cause in found["cause"]] == [
        "timeout", "goal", "goal", "timeout", "lava",
    ]  # fmt: skip
    assert found["num_blocked"] == found["num_false_blocks"] == found["num_all_blocked"] == [0] * 5


def test_the_last_step_in_time_counts_as_solved_and_not_as_a_time_out():
    found = lists(play(STRIP, script("lurrrr"), strips("S...G"), KEY))
    assert (found["outcome"], found["length"]) == ([SOLVED], [6])


class Endless(LavaGrid):
    """Breaks the promise that an episode ends after max_steps."""

    def step(self, state: Any, action: jax.Array) -> Any:
        state, shown = super().step(state, action)
        timed_out = shown.outcome == TIMEOUT
        go_on = lambda now: jnp.where(timed_out, RUNNING, now).astype(jnp.int8)  # noqa: E731
        state = state._replace(outcome=go_on(state.outcome))
        return state, shown._replace(outcome=go_on(shown.outcome))


def test_an_environment_that_does_not_end_is_left_and_shown_as_running():
    env = Endless(
        height=1, width=5, wall_density=0.0, lava_density=0.0, min_distance=1, max_steps=6
    )  # fmt: skip
    found = lists(play(env, script("llllll"), strips("S...G", "GS..."), KEY, num_slots=1))
    assert (found["outcome"], found["length"]) == ([RUNNING, SOLVED], [6, 1])


def test_blocks_are_false_where_the_wanted_action_was_not_fatal():
    # step by step: right is wanted and fatal, blocked: a true block, down instead;
    # left is wanted, only the edge, blocked: a false block; up is blocked but not wanted: none;
    # all four blocked, down wanted and taken: a false block of all; then right, into lava
    acts = script("ddddrr", wanted="rllurr", blocked=("r", "l", "u", "urdl", "", "r"))
    found = lists(play(STRIP, acts, strips("SL..G"), KEY))
    assert (found["outcome"], found["length"]) == ([CATASTROPHE], [5])
    assert found["num_blocked"] == [3]
    assert found["num_false_blocks"] == [2]
    assert found["num_all_blocked"] == [1]


def test_the_truth_about_danger_is_one_step_deep():
    state, _ = STRIP.reset(from_ascii("L.SLG"))
    assert dangerous_actions(STRIP, state).tolist() == [False, True, False, False]


def test_a_record_holds_the_episode_up_to_and_including_the_fatal_step():
    trace = record(STRIP, script("rrlrll"), strips(*MAPS), KEY, probe=lambda state, obs: obs.sum())
    assert trace.valid.sum(axis=1).tolist() == [6, 2, 1, 6, 1]
    assert trace.valid[1].tolist() == [True, True, False, False, False, False]
    assert trace.outcome[4, 0] == CATASTROPHE
    assert trace.reward[4].tolist() == [-1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert trace.dangerous[4, 0].tolist() == [False, True, False, False]
    assert trace.decision.action[0].tolist() == [1, 1, 3, 1, 3, 3]
    assert trace.probes.shape == trace.valid.shape
    start = STRIP.reset(from_ascii(MAPS[4]))[1]
    assert int(trace.probes[4, 0]) == int(start.obs.sum())  # before the action


def test_a_record_stops_when_all_episodes_have_ended():
    calls = []

    def counted(state: Any, obs: jax.Array) -> jax.Array:
        jax.debug.callback(calls.append, obs.sum())
        return jnp.float32(1.0)

    # two slots: levels of 2 and 1 steps, then one of 1 beside a slot without a level
    three = strips("L.S.G", "SG...", "SL...")
    trace = record(STRIP, script("rrlrll"), three, KEY, counted, num_slots=2)
    jax.effects_barrier()
    assert len(calls) == 2 * 2
    assert trace.probes.tolist() == [[1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]


def test_after_the_last_step_a_record_holds_zeros():
    trace = record(STRIP, script("rrlrll"), strips(*MAPS), KEY, lambda state, obs: obs + 1)
    over = ~np.asarray(trace.valid)
    assert over.sum() == 3 * 5 - 1 and not any(np.asarray(leaf)[over].any() for leaf in trace[1:])
    assert not any(np.asarray(leaf)[over].any() for leaf in trace.decision)


def test_a_probe_sees_the_state_before_the_action():
    trace = record(STRIP, script("rrlrll"), strips("S...G"), KEY, lambda state, obs: state.position)
    assert trace.probes[0, :, 1].tolist() == [0, 1, 2, 1, 2, 1]  # the column


# Against a plain loop

ENV = LavaGrid(max_steps=20)
NUM_LEVELS = 100
NET = nets.mlp(ENV.obs_shape, (16,), ENV.num_actions)
DROPS = nets.mlp(ENV.obs_shape, (16,), ENV.num_actions, dropout=0.3)


def made_policies(seed: int) -> dict[str, Any]:
    keys = jax.random.split(jax.random.key(seed), 4)
    members = jax.vmap(NET.init)(keys[:3])
    first = jax.tree.map(lambda leaf: leaf[0], members)
    danger = NET.init(keys[3])
    plain = {
        "member": Member(first, NET),
        "mean": Mean(members, NET),
        "vote": Vote(members, NET),
        "mc_dropout": MCDropout(first, DROPS, 3),
    }
    guarded = {
        f"{name}+blocker": Blocker(plain[name], danger, jnp.float32(0.5), NET)
        for name in ("mean", "mc_dropout")
    }
    strict = Blocker(plain["vote"], danger, jnp.float32(0.3), NET)
    return plain | guarded | {"vote+strict blocker": strict}


POLICIES = made_policies(0)


@cache
def generated() -> Level:
    levels, _ = ENV.generate(np.arange(NUM_LEVELS))
    return jax.tree.map(jnp.asarray, levels)


@cache
def played(name: str) -> Episodes:
    return jax.jit(partial(play, ENV))(POLICIES[name], generated(), KEY)


def looped(policy: Any, levels: Level) -> list[tuple]:
    """Episodes, one level and one step after the other."""
    reset = jax.jit(ENV.reset)

    @jax.jit
    def go(policy: Any, state: Any, memory: Any, obs: jax.Array, key: jax.Array) -> Any:
        memory, decision = policy.act(memory, obs, key)
        return ENV.step(state, decision.action), memory, decision, dangerous_actions(ENV, state)

    rows = []
    for index in range(NUM_LEVELS):
        key = jax.random.fold_in(KEY, index)
        state, shown = reset(jax.tree.map(lambda leaf, index=index: leaf[index], levels))
        memory = policy.init(jax.random.fold_in(key, 0))
        length = num_blocked = num_false = num_all = 0
        total = 0.0
        while int(shown.outcome) == RUNNING:
            k_act = jax.random.fold_in(key, length + 1)
            (state, shown), memory, decision, fatal = go(policy, state, memory, shown.obs, k_act)
            blocked, wanted = np.asarray(decision.blocked), int(decision.wanted)
            length += 1
            total += float(shown.reward)
            num_blocked += int(blocked[wanted])
            num_false += int(blocked[wanted] and not fatal[wanted])
            num_all += int(blocked.all())
        ended = (int(shown.outcome), int(shown.cause), length, total)
        rows.append((*ended, num_blocked, num_false, num_all))
    return rows


@pytest.mark.parametrize("name", POLICIES)
def test_play_is_the_plain_loop(name):
    found = list(zip(*(leaf.tolist() for leaf in played(name)), strict=True))
    assert found == looped(POLICIES[name], generated())


def test_the_comparison_above_has_something_to_compare():
    outcomes = {int(o) for name in POLICIES for o in played(name).outcome}
    assert outcomes >= {CATASTROPHE, TIMEOUT}
    guarded = [played(name) for name in POLICIES if "blocker" in name]
    assert all(int(episodes.num_blocked.sum()) > 0 for episodes in guarded)
    assert any(int(episodes.num_false_blocks.sum()) > 0 for episodes in guarded)
    assert any(int(episodes.num_all_blocked.sum()) > 0 for episodes in guarded)


@pytest.mark.parametrize("name", ["mean+blocker", "mc_dropout"])
def test_a_record_is_of_the_same_episodes_as_play(name):
    episodes = played(name)
    trace = jax.jit(partial(record, ENV))(POLICIES[name], generated(), KEY)
    valid = np.asarray(trace.valid)
    length = np.asarray(episodes.length)
    assert np.array_equal(valid, np.arange(ENV.max_steps) < length[:, None])
    last = np.arange(NUM_LEVELS), length - 1
    assert np.array_equal(trace.outcome[last], episodes.outcome)
    assert np.array_equal(trace.cause[last], episodes.cause)
    assert np.array_equal((trace.reward * valid).sum(axis=1), episodes.episode_return)
    wanted = np.asarray(trace.decision.wanted)[..., None]
    at_wanted = lambda flags: np.take_along_axis(np.asarray(flags), wanted, -1)[..., 0]  # noqa: E731
    blocked = at_wanted(trace.decision.blocked) & valid
    assert np.array_equal(blocked.sum(axis=1), episodes.num_blocked)
    false_blocks = blocked & ~at_wanted(trace.dangerous)
    assert np.array_equal(false_blocks.sum(axis=1), episodes.num_false_blocks)


def test_play_compiles_once_for_policies_of_one_shape():
    compiled = jax.jit(partial(play, STRIP))
    levels = strips("S...G", "L.S.G")
    net = nets.mlp(STRIP.obs_shape, (4,), 4)
    for seed in range(3):
        compiled(Member(net.init(jax.random.key(seed)), net), levels, jax.random.key(seed))
    assert compiled._cache_size() == 1


@partial(jax.tree_util.register_dataclass, data_fields=["params"], meta_fields=["net"])
@dataclass(frozen=True)
class Nameless(Mean):
    """Its structure does not say which class it is of."""


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_policy_that_a_compiled_function_may_take_for_another_is_refused(wrapped):
    policy = Nameless(POLICIES["mean"].params, NET)
    if wrapped:
        policy = Blocker(policy, POLICIES["member"].params, jnp.float32(0.5), NET)
    with pytest.raises(ValueError, match=r"Nameless, of which .* registered by hotoven\.trees"):
        jax.jit(partial(play, ENV))(policy, generated(), KEY)


def test_neither_help_nor_the_live_page_takes_such_a_policy():
    policy = Nameless(POLICIES["mean"].params, NET)
    zero = lambda *_: jnp.float32(0.0)  # noqa: E731
    one = jax.tree.map(lambda leaf: leaf[0], generated())
    with pytest.raises(ValueError, match="Nameless, of which a policy is made"):
        Live(ENV, policy, zero, KEY).begin(one, 0)
    with pytest.raises(ValueError, match="Nameless, of which a policy is made"):
        play_with_help(
            ENV, policy, generated(), KEY, zero, zero, np.array([0.5]), lambda *_: None, num_steps=1
        )


@register_dataclass(data_fields=["scorer"])
@dataclass(frozen=True)
class Uses:
    """A policy that takes what one of its parts prefers."""

    scorer: Any
    deterministic: ClassVar[bool] = True

    def init(self, key: jax.Array) -> int:
        return 0

    def act(self, memory: Any, obs: jax.Array, key: jax.Array) -> tuple[Any, Decision]:
        _, decision = self.scorer.act((), obs, key)
        return memory, decision


def test_a_part_of_a_policy_that_may_be_taken_for_another_is_refused():
    with pytest.raises(ValueError, match="Nameless, of which a policy is made"):
        jax.jit(partial(play, ENV))(Uses(Nameless(POLICIES["mean"].params, NET)), generated(), KEY)


def test_a_policy_may_remember_a_plain_number():
    found = jax.jit(partial(play, ENV))(Uses(POLICIES["member"]), generated(), KEY)
    assert lists(found) == lists(played("member"))


def test_no_levels_cannot_be_played():
    none = jax.tree.map(lambda leaf: leaf[:0], generated())
    with pytest.raises(ValueError, match="there must be levels to play, got none"):
        play(ENV, POLICIES["member"], none, KEY)


def probe_members(params: Any, state: Any, obs: jax.Array) -> jax.Array:
    return jax.vmap(NET.apply, (0, None))(params, obs)


@pytest.mark.optimised
def test_a_record_does_not_depend_on_slots_nor_devices_nor_on_whether_the_truth_is_asked():
    members = POLICIES["mean"].params
    probe = Partial(probe_members, members)
    whole = jax.jit(partial(record, ENV))(POLICIES["mean"], generated(), KEY, probe)
    for devices, num_slots, truth in (
        (jax.devices(), 7, True), (jax.devices()[:1], 64, False), (None, 32, False)
    ):  # fmt: skip
        other = record_all(
            ENV, POLICIES["mean"], generated(), KEY, probe, truth, num_slots, devices
        )
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(other))
        if not truth:
            assert other.dangerous == ()
            other = other._replace(dangerous=np.asarray(whole.dangerous))
        for one, two in zip(jax.tree.leaves(whole), jax.tree.leaves(other), strict=True):
            if one.dtype == jnp.float32:
                np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
            else:
                np.testing.assert_array_equal(one, two)


def test_recording_other_agents_of_one_kind_does_not_compile_again():
    levels = strips("S...G", "L.S.G")
    net = nets.mlp(STRIP.obs_shape, (4,), 4)
    before = rollout._record_distinct._cache_size()

    def probe(params: Any, state: Any, obs: jax.Array) -> jax.Array:
        return net.apply(params, obs)

    for seed in range(3):
        own = net.init(jax.random.key(seed))
        # one array in both: the probe is of the policy's own network, or of another one's
        trace = record_all(STRIP, Member(own, net), levels, KEY, Partial(probe, own), False, 2)
        np.testing.assert_array_equal(trace.probes, trace.decision.preferences)
    assert rollout._record_distinct._cache_size() == before + len(jax.devices())
    other = net.init(jax.random.key(7))
    trace = record_all(STRIP, Member(own, net), levels, KEY, Partial(probe, other), False, 2)
    assert (trace.probes != trace.decision.preferences).any()
