"""How policy-gradient agents act, one by one and as ensembles: by a member, by means, by a vote.

Preferences are probabilities of actions, and actions are drawn with them, as in training. With
`greedy` the likeliest action is taken instead. Ensembles keep params with leaves [M, ...]; `apply`
is `(params, obs) -> AgentOutput` of one network. For mechanisms of Q-values see `member`, `mean`
and `vote`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np

from hotoven.mechanisms.vote import share_of_votes
from hotoven.trees import register_dataclass
from hotoven.types import AgentOutput, Decision, PyTree

Apply = Callable[[PyTree, jax.Array], AgentOutput]

# Names for tables, in the order of reports.
ACTING: Final = (
    "single",
    "random_step",
    "random_hold",
    "random_episode",
    "mean",
    "mean_logits",
    "vote",
    "mean_hysteresis",
)

EVERY_STEP: Final = 1  # for RandomMember.hold
WHOLE_EPISODE: Final = 2**31 - 1  # the same: longer than any episode
_LEAST: Final = np.finfo(np.float32).tiny  # so that every probability has a finite logarithm


def policies(
    members: PyTree, apply: Apply, hold: int, margin: float, greedy: bool = False
) -> dict[str, Any]:
    """Every way of acting of one ensemble, by its name in ACTING.

    "single" is every member on its own, with the members' axis [M] on its leaves: vmap over it, or
    take one. "random_hold" keeps a member for `hold` steps; "mean_hysteresis" has that `margin`.
    """

    def random(steps: int) -> RandomMember:
        return RandomMember(members, jnp.int32(steps), apply, greedy)

    found = {
        "single": Single(members, apply, greedy),
        "random_step": random(EVERY_STEP),
        "random_hold": random(hold),
        "random_episode": random(WHOLE_EPISODE),
        "mean": Combined(members, apply, mean_probabilities, greedy),
        "mean_logits": Combined(members, apply, mean_logits, greedy),
        "vote": DrawnVote(members, apply, greedy),
        "mean_hysteresis": Hysteresis(members, jnp.float32(margin), apply, greedy),
    }
    return {name: found[name] for name in ACTING}


def outputs(apply: Apply, members: PyTree, obs: jax.Array) -> AgentOutput:
    """What every member says of one observation; leaves [M, ...]."""
    return jax.vmap(apply, (0, None))(members, obs)


def mean_probabilities(probabilities: jax.Array) -> jax.Array:
    """float32[A]: the mean over members of [M, A]: any member can make an action likely."""
    return probabilities.mean(axis=0)


def mean_logits(probabilities: jax.Array) -> jax.Array:
    """float32[A]: softmax of the members' mean log-probabilities: any member can rule one out."""
    return jax.nn.softmax(jnp.log(jnp.maximum(probabilities, _LEAST)).mean(axis=0))


def draw(probabilities: jax.Array, key: jax.Array, greedy: bool) -> jax.Array:
    """int32[]: an action drawn with these probabilities; with `greedy` the likeliest one."""
    if greedy:
        return probabilities.argmax().astype(jnp.int32)
    return jax.random.categorical(key, jnp.log(probabilities)).astype(jnp.int32)


@final
@register_dataclass(data_fields=["params"], meta_fields=["apply", "greedy"])
@dataclass(frozen=True)
class Single:
    """One network acting on its own (params without a members' axis); its risk is minus its value.

    The same for an ensemble's members, one by one, is a `vmap` over params.
    """

    params: PyTree
    apply: Apply
    greedy: bool = False

    @property
    def deterministic(self) -> bool:
        """Whether the key is not read."""
        return self.greedy

    def init(self, key: jax.Array) -> PyTree:
        """Nothing is remembered."""
        return ()

    def act(self, memory: PyTree, obs: jax.Array, key: jax.Array) -> tuple[PyTree, Decision]:
        """An action drawn from the network's policy."""
        said = self.apply(self.params, obs)
        action = draw(said.preferences, key, self.greedy)
        return memory, _take(action, said.preferences, said.value)


class _Turn(NamedTuple):
    """Whose turn it is, and for how many steps it has been."""

    member: jax.Array  # int32[]
    num_steps: jax.Array  # int32[]


@final
@register_dataclass(data_fields=["params", "hold"], meta_fields=["apply", "greedy"])
@dataclass(frozen=True)
class RandomMember:
    """A member drawn at random acts for `hold` steps, then one is drawn anew (perhaps the same).

    The first is drawn at the start of the episode. The risk is that of the ensemble, not the
    acting member's own.
    """

    params: PyTree
    hold: jax.Array  # int32[], at least 1: EVERY_STEP, WHOLE_EPISODE, or steps
    apply: Apply
    greedy: bool = False

    deterministic: ClassVar[bool] = False  # the key decides whose turn it is

    def init(self, key: jax.Array) -> _Turn:
        """The member that begins."""
        return _Turn(self._any_member(key), jnp.int32(0))

    def act(self, memory: _Turn, obs: jax.Array, key: jax.Array) -> tuple[_Turn, Decision]:
        """An action drawn from the policy of the member whose turn it is."""
        k_member, k_act = jax.random.split(key)
        over = memory.num_steps >= self.hold
        member = jnp.where(over, self._any_member(k_member), memory.member)
        num_steps = jnp.where(over, 0, memory.num_steps) + 1
        # all are asked: a choice of parameters for every episode would cost more
        said = outputs(self.apply, self.params, obs)
        probabilities = said.preferences[member]
        action = draw(probabilities, k_act, self.greedy)
        return _Turn(member, num_steps), _take(action, probabilities, said.value.mean())

    def _any_member(self, key: jax.Array) -> jax.Array:
        num_members = jax.tree.leaves(self.params)[0].shape[0]
        return jax.random.randint(key, (), 0, num_members, jnp.int32)


@final
@register_dataclass(data_fields=["params"], meta_fields=["apply", "combine", "greedy"])
@dataclass(frozen=True)
class Combined:
    """Acts by one policy made of all members': `combine` turns [M, A] into probabilities [A]."""

    params: PyTree
    apply: Apply
    combine: Callable[[jax.Array], jax.Array]  # mean_probabilities or mean_logits
    greedy: bool = False

    @property
    def deterministic(self) -> bool:
        """Whether the key is not read."""
        return self.greedy

    def init(self, key: jax.Array) -> PyTree:
        """Nothing is remembered."""
        return ()

    def act(self, memory: PyTree, obs: jax.Array, key: jax.Array) -> tuple[PyTree, Decision]:
        """An action drawn from the combined policy."""
        said = outputs(self.apply, self.params, obs)
        probabilities = self.combine(said.preferences)
        action = draw(probabilities, key, self.greedy)
        return memory, _take(action, probabilities, said.value.mean())


@final
@register_dataclass(data_fields=["params"], meta_fields=["apply", "greedy"])
@dataclass(frozen=True)
class DrawnVote:
    """Every member draws an action of its own; the one that most have drawn is taken.

    Of actions with equally many votes the one with the highest mean probability wins. Equal
    members are likelier to do what each of them does most: a vote of equals is no draw of one.
    Preferences are shares of votes; the mean's ranks are added as fractions of less than a vote.
    """

    params: PyTree
    apply: Apply
    greedy: bool = False

    @property
    def deterministic(self) -> bool:
        """Whether the key is not read."""
        return self.greedy

    def init(self, key: jax.Array) -> PyTree:
        """Nothing is remembered."""
        return ()

    def act(self, memory: PyTree, obs: jax.Array, key: jax.Array) -> tuple[PyTree, Decision]:
        """The action with the most votes."""
        said = outputs(self.apply, self.params, obs)
        keys = jax.random.split(key, len(said.preferences))
        drawn = jax.vmap(partial(draw, greedy=self.greedy))(said.preferences, keys)
        preferences = share_of_votes(drawn, said.preferences.mean(axis=0))
        action = preferences.argmax().astype(jnp.int32)
        return memory, _take(action, preferences, said.value.mean())


@final
@register_dataclass(data_fields=["params", "margin"], meta_fields=["apply", "greedy"])
@dataclass(frozen=True)
class Hysteresis:
    """The mean of the members' policies, which does not change its mind without a reason.

    The last action is kept while its mean probability is at least (1 - margin) of the largest one;
    else an action is drawn anew. A margin of 1 keeps the first action for ever.
    """

    params: PyTree
    margin: jax.Array  # float32[], 0 to 1
    apply: Apply
    greedy: bool = False

    @property
    def deterministic(self) -> bool:
        """Whether the key is not read."""
        return self.greedy

    def init(self, key: jax.Array) -> jax.Array:
        """int32[]: no action has been taken, which is -1."""
        return jnp.int32(-1)

    def act(self, memory: jax.Array, obs: jax.Array, key: jax.Array) -> tuple[jax.Array, Decision]:
        """The last action, or one drawn anew."""
        said = outputs(self.apply, self.params, obs)
        probabilities = mean_probabilities(said.preferences)
        enough = (1 - self.margin) * probabilities.max()
        keeps = (memory >= 0) & (probabilities[memory] >= enough)
        action = jnp.where(keeps, memory, draw(probabilities, key, self.greedy))
        return action, _take(action, probabilities, said.value.mean())


def _take(action: jax.Array, preferences: jax.Array, value: jax.Array) -> Decision:
    """The decision to take `action` in a state of that value, blocking none."""
    none = jnp.zeros(preferences.shape, bool)
    return Decision(action, action, preferences, -value, none, jnp.bool_(False))
