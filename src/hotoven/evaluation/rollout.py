"""Playing levels with a policy: every level exactly once, on the device, in one program."""

from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from hotoven.devices import at_once, join, spread
from hotoven.trees import where
from hotoven.types import CATASTROPHE, RUNNING, Decision, Env, PyTree, TimeStep, Trace

Probe = Callable[[PyTree, jax.Array], PyTree]  # (state, obs) before an action -> what to record
Form = tuple[Any, tuple[int, ...]]  # of a tree: its structure, and which array is in which place


class Episodes(NamedTuple):
    """How each level ended; leaves [L] (one level: [])."""

    outcome: jax.Array  # int8  SOLVED, CATASTROPHE, TIMEOUT or FAILED
    cause: jax.Array  # int8  index into env.causes
    length: jax.Array  # int32  steps
    episode_return: jax.Array  # float32  sum of rewards
    num_blocked: jax.Array  # int32  steps at which the wanted action was blocked
    num_false_blocks: jax.Array  # int32  those at which the wanted action was not catastrophic
    num_all_blocked: jax.Array  # int32  steps at which every action was blocked


class _Anchor(NamedTuple):
    """A situation an episode was in, and its tally then."""

    situation: PyTree
    tally: Episodes


class _Slot(NamedTuple):
    """One episode being played."""

    level: jax.Array  # int32[]  its index; the number of levels where the slot is idle
    state: PyTree
    obs: jax.Array
    memory: PyTree
    tally: Episodes
    anchor: _Anchor


def dangerous_actions(env: Env, state: PyTree) -> jax.Array:
    """bool[A]: which actions would end the episode as a catastrophe in this very step."""
    actions = jnp.arange(env.num_actions, dtype=jnp.int32)
    return jax.vmap(lambda action: env.step(state, action)[1].outcome)(actions) == CATASTROPHE


def _no_probe(state: PyTree, obs: jax.Array) -> PyTree:
    """Records nothing."""
    return ()


def play(env: Env, policy: Any, levels: PyTree, key: jax.Array, num_slots: int = 128) -> Episodes:
    """Each of `levels` (leaves [L, ...]) played once by `policy`; Episodes with leaves [L].

    Pure: jit it, and vmap it over policies. Level i is played with `key` folded with i, so that
    the result does not depend on `num_slots`, the number of levels played side by side: a slot
    whose episode has ended takes the next level. An episode of a deterministic policy that comes
    back to a situation it has been in can only repeat itself until the time limit; whole rounds of
    it are counted, not played.
    """
    num_levels = jax.tree.leaves(levels)[0].shape[0]

    def step(slot: _Slot, key: jax.Array) -> tuple[_Slot, tuple]:
        before = slot.state
        slot, decision, _ = _step(env, policy, slot, key)
        slot = slot._replace(tally=_count_blocks(env, before, decision, slot.tally))
        return _skip_repeats(env, policy, slot), ()

    def keep(
        results: Episodes, before: _Slot, after: _Slot, ended: jax.Array, _: tuple
    ) -> Episodes:
        row = jnp.where(ended, after.level, num_levels)  # beyond the last row nothing is kept
        return jax.tree.map(
            lambda kept, new: kept.at[row].set(new, mode="drop"), results, after.tally
        )

    def nothing(slots: _Slot, rows: tuple) -> Episodes:
        return jax.tree.map(lambda leaf: jnp.zeros(num_levels, leaf.dtype), slots.tally)

    keys = level_keys(key, num_levels)
    return _play_each(env, policy, levels, keys, num_slots, step, keep, nothing)


def record(
    env: Env,
    policy: Any,
    levels: PyTree,
    key: jax.Array,
    probe: Probe = _no_probe,
    truth: bool = True,
    num_slots: int = 32,
) -> Trace:
    """As `play`, step by step: a Trace with leaves [L, max_steps, ...], zeros after the last step.

    The same key gives the same episodes as `play`; nothing is skipped.

    Args:
      probe: called with every state and observation before the action, e.g. for all members'
        outputs.
      truth: whether to ask the environment which actions are a catastrophe at once. That takes one
        step of the environment per action; without it `dangerous` is ().
      num_slots: levels played side by side.
    """
    keys = level_keys(key, jax.tree.leaves(levels)[0].shape[0])
    return _record(env, policy, levels, keys, probe, truth, num_slots)


def record_all(
    env: Env,
    policy: Any,
    levels: PyTree,
    key: jax.Array,
    probe: Probe = _no_probe,
    truth: bool = True,
    num_slots: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Trace:
    """As `record`, with the levels spread over devices (all there are); a Trace of host arrays.

    Played side by side are `num_slots` levels on each device; if None 32, or on an accelerator
    1024, for which a step of many takes little longer than one of few.

    Compiled once per device, kind of policy and kind of probe. Let a probe of networks be a
    `jax.tree_util.Partial` of a function and their parameters: as leaves these may change without
    another compilation. An array that is in both policy and probe is handed over once, so that
    what both compute from it is computed once.
    """
    num_levels = jax.tree.leaves(levels)[0].shape[0]
    keys = level_keys(key, num_levels)
    arrays, form = distinct((policy, as_pytree(probe)))

    def work(device: jax.Device, part: slice) -> Trace:
        given = jax.device_put((arrays, _part(levels, part), keys[part]), device)
        slots = num_slots or (32 if device.platform == "cpu" else 1024)
        return jax.device_get(_record_distinct(*given, env, form, truth, slots))

    groups = spread(num_levels, devices or jax.devices())
    return join(at_once(work, *zip(*groups, strict=True)))


@partial(jax.jit, static_argnames=("env", "form", "truth", "num_slots"))
def _record_distinct(
    arrays: list[jax.Array],
    levels: PyTree,
    keys: jax.Array,
    env: Env,
    form: Form,
    truth: bool,
    num_slots: int,
) -> Trace:
    """`_record` of a policy and a probe in pieces."""
    policy, probe = rebuilt(arrays, form)
    return _record(env, policy, levels, keys, probe, truth, num_slots)


def _record(
    env: Env,
    policy: Any,
    levels: PyTree,
    keys: jax.Array,
    probe: Probe,
    truth: bool,
    num_slots: int,
) -> Trace:
    """`record` with a key for each level, [L]."""

    def step(slot: _Slot, key: jax.Array) -> tuple[_Slot, Trace]:
        probes = probe(slot.state, slot.obs)
        dangerous = dangerous_actions(env, slot.state) if truth else ()
        slot, decision, shown = _step(env, policy, slot, key)
        row = Trace(
            decision, shown.outcome, shown.cause, shown.reward, dangerous, probes, jnp.bool_(True)
        )
        return slot, row

    def keep(trace: Trace, before: _Slot, after: _Slot, ended: jax.Array, rows: Trace) -> Trace:
        at = before.level, before.tally.length  # an idle slot's level is beyond the last one
        return jax.tree.map(lambda kept, new: kept.at[at].set(new, mode="drop"), trace, rows)

    def nothing(slots: _Slot, rows: Trace) -> Trace:
        empty = lambda leaf: jnp.zeros((len(keys), env.max_steps, *leaf.shape[1:]), leaf.dtype)  # noqa: E731
        return jax.tree.map(empty, rows)

    return _play_each(env, policy, levels, keys, num_slots, step, keep, nothing)


def _play_each(
    env: Env,
    policy: Any,
    levels: PyTree,
    keys: jax.Array,
    num_slots: int,
    step: Callable[[_Slot, jax.Array], tuple[_Slot, Any]],
    keep: Callable[[Any, _Slot, _Slot, jax.Array, Any], Any],
    nothing: Callable[[Any, Any], Any],
) -> Any:
    """What `keep` has made of all steps of all levels, each played once in one of the slots.

    Args:
      keys: [L], one for each level.
      step: the slot after a step, and the row that this step leaves.
      keep: what is kept, after a step: (kept, slots before, slots after, bool[W] ended, rows).
      nothing: what is kept before the first step, from the shapes of slots and rows.
    """
    check_policy(policy)
    num_levels = len(keys)
    if not num_levels:
        raise ValueError("there must be levels to play, got none")
    num_slots = min(num_slots, num_levels)

    def start(index: jax.Array) -> _Slot:
        """A slot at the start of level `index`; an index beyond the last is an idle slot."""
        at = jnp.minimum(index, num_levels - 1)
        state, shown = env.reset(jax.tree.map(lambda leaf: leaf[at], levels))
        memory = policy.init(jax.random.fold_in(keys[at], 0))
        tally = _no_steps(shown)
        anchor = _Anchor(_situation(env, policy, state, memory), tally)
        return _Slot(index, state, shown.obs, memory, tally, anchor)

    def step_all(slots: _Slot) -> tuple[_Slot, Any]:
        own = keys[jnp.minimum(slots.level, num_levels - 1)]
        return jax.vmap(step)(slots, jax.vmap(jax.random.fold_in)(own, slots.tally.length + 1))

    def body(carry: tuple) -> tuple:
        before, queued, kept = carry
        slots, rows = step_all(before)
        ended = slots.tally.outcome != RUNNING
        # an environment that breaks its promise to end is left, its outcome RUNNING
        ended |= slots.tally.length >= env.max_steps
        ended &= slots.level < num_levels
        kept = keep(kept, before, slots, ended, rows)
        following = jnp.minimum(queued + jnp.cumsum(ended) - 1, num_levels)
        fresh = jax.vmap(start)(jnp.where(ended, following, slots.level).astype(jnp.int32))
        slots = where(ended, fresh, slots)
        return slots, jnp.minimum(queued + ended.sum(), num_levels), kept

    def goes_on(carry: tuple) -> jax.Array:
        return (carry[0].level < num_levels).any()

    slots = jax.vmap(start)(jnp.arange(num_slots, dtype=jnp.int32))
    kept = nothing(*jax.eval_shape(step_all, slots))
    return jax.lax.while_loop(goes_on, body, (slots, jnp.int32(num_slots), kept))[2]


def check_policy(policy: Any) -> None:
    """Raises ValueError if a compiled function may take the policy for one of another class."""
    todo: list[Any] = [jax.tree.structure(policy)]
    while todo:
        node = todo.pop()
        todo += node.children()
        kind, about = node.node_data() or (type(None), None)
        named = isinstance(about, tuple) and any(one is kind for one in about)
        if is_dataclass(kind) and not named:
            raise ValueError(
                f"{kind.__name__}, of which a policy is made, must be registered by "
                "hotoven.trees.register_dataclass; by JAX's own, a compiled function may take "
                "another class with equal fields for it"
            )


def level_keys(key: jax.Array, num_levels: int) -> jax.Array:
    """One key per level, which does not depend on how many levels there are."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_levels))


def as_pytree(function: Callable[..., Any]) -> Partial:
    """The function as an argument of compiled ones; the leaves of a Partial stay its leaves."""
    return function if isinstance(function, Partial) else Partial(function)


def distinct(tree: PyTree) -> tuple[list[jax.Array], Form]:
    """The arrays of a tree, each once however often it is there, and how to put them together."""
    leaves, treedef = jax.tree.flatten(tree)
    arrays = {id(leaf): leaf for leaf in leaves}
    order = {name: index for index, name in enumerate(arrays)}
    return list(arrays.values()), (treedef, tuple(order[id(leaf)] for leaf in leaves))


def rebuilt(arrays: list[jax.Array], form: Form) -> PyTree:
    """The tree of which `distinct` gave the form."""
    treedef, places = form
    return jax.tree.unflatten(treedef, [arrays[place] for place in places])


def _no_steps(shown: TimeStep) -> Episodes:
    zero = jnp.int32(0)
    return Episodes(shown.outcome, shown.cause, zero, jnp.float32(0.0), zero, zero, zero)


def _step(env: Env, policy: Any, slot: _Slot, key: jax.Array) -> tuple[_Slot, Decision, TimeStep]:
    """The slot after a step of the policy, without its count of blocks."""
    memory, decision = policy.act(slot.memory, slot.obs, key)
    state, shown = env.step(slot.state, decision.action)
    tally = slot.tally._replace(
        outcome=shown.outcome,
        cause=shown.cause,
        length=slot.tally.length + 1,
        episode_return=slot.tally.episode_return + shown.reward,
    )
    return slot._replace(state=state, obs=shown.obs, memory=memory, tally=tally), decision, shown


def _count_blocks(env: Env, state: PyTree, decision: Decision, tally: Episodes) -> Episodes:
    """The tally with the blocks of a decision taken in `state`."""
    blocked = decision.blocked[decision.wanted]
    would_be = env.step(state, decision.wanted)[1].outcome
    return tally._replace(
        num_blocked=tally.num_blocked + blocked,
        num_false_blocks=tally.num_false_blocks + (blocked & (would_be != CATASTROPHE)),
        num_all_blocked=tally.num_all_blocked + decision.blocked.all(),
    )


def _situation(env: Env, policy: Any, state: PyTree, memory: PyTree) -> PyTree:
    """What decides the rest of the episode besides the time left; () where that is not known."""
    if not getattr(policy, "deterministic", False):
        return ()
    return jax.tree.map(_words, (env.situation(state), memory))


def _skip_repeats(env: Env, policy: Any, slot: _Slot) -> _Slot:
    """Counts the whole rounds of a repeating episode that fit into its time; else changes nothing.

    The anchor moves to the present at steps 1, 2, 4, 8, ..., so that every round is noticed.
    Source: Brent 1980, "An improved Monte Carlo factorization algorithm", section 2.
    """
    situation = _situation(env, policy, slot.state, slot.memory)
    if not jax.tree.leaves(situation):
        return slot
    before, now = slot.anchor.tally, slot.tally
    same = [
        (a == b).all()
        for a, b in zip(*map(jax.tree.leaves, (situation, slot.anchor.situation)), strict=True)
    ]
    repeats = jnp.stack(same).all() & (now.outcome == RUNNING)
    period = jnp.maximum(now.length - before.length, 1)
    rounds = jnp.where(repeats, (env.max_steps - 1 - now.length) // period, 0)
    outcome, cause, *_ = now
    counted = [
        count + (rounds * (count - was)).astype(count.dtype)
        for count, was in zip(now[2:], before[2:], strict=True)
    ]
    tally = Episodes(outcome, cause, *counted)
    moves = (now.length & (now.length - 1)) == 0  # a power of two
    anchor = jax.tree.map(
        lambda new, old: jnp.where(moves, new, old), _Anchor(situation, tally), slot.anchor
    )
    state = env.skip(slot.state, rounds * period)
    return slot._replace(state=state, tally=tally, anchor=anchor)


def _part(tree: PyTree, part: slice) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[part], tree)


def _words(leaf: jax.Array) -> jax.Array:
    """Random keys as their raw words, which can be compared; other arrays as they are."""
    leaf = jnp.asarray(leaf)  # a policy's memory may be a plain number
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf
