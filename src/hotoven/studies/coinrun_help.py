"""What the agents of the CoinRun study play with a helper to ask, as rows of the run's tables."""

from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from hotoven import levels
from hotoven.envs.coinrun import physics
from hotoven.envs.coinrun.helpers import HELPERS
from hotoven.evaluation import knowing, scores
from hotoven.evaluation.alarms import peak_thresholds
from hotoven.evaluation.coinrun_help_claims import AT_RANDOM
from hotoven.evaluation.help import Helped, Helper, Score, discrimination, play_with_help
from hotoven.evaluation.rollout import Probe
from hotoven.mechanisms.acting import policies
from hotoven.progress import stage
from hotoven.storage import write_table
from hotoven.studies.coinrun_agents import PLAY, Ensemble, Players, Probes
from hotoven.studies.coinrun_parts import help_path, read_chosen, read_part
from hotoven.studies.coinrun_settings import PLANNER, WATCHED, CoinRunStudy, Sets
from hotoven.studies.parts import agent_key, repeat, stack
from hotoven.types import OUTCOMES, LevelSet

CHANCES: Final = (0.01, 0.03, 0.1)  # of a request in a step, where the planner is asked at random


def play_with_helpers(
    study: CoinRunStudy,
    sets: Sets,
    players: Players,
    ensemble: Ensemble,
    part: Path,
    size: int,
) -> None:
    """Episodes on unseen levels with a helper to ask, for every helper that has no table yet.

    The score is U with the pair chosen on validation levels; thresholds go from always asking to
    never asking by the peaks of the calibration levels. The planner is asked at random, too: what
    it is worth without an alarm that knows anything.
    """
    chosen = read_chosen(part)
    pair = knowing.coefficients_of(chosen, size, WATCHED, study.alarm_window) or scores.WITH_STD
    calibration = knowing.read_recorded(
        read_part(part, "steps", (WATCHED,)),
        "calibration",
        size,
        WATCHED,
        study.env.max_steps,
        ("mu", "sigma"),
    )
    known = scores.score(calibration.columns["mu"], calibration.columns["sigma"], *pair)
    peaks = peak_thresholds(known, calibration.num_steps, study.num_help_thresholds)
    thresholds = np.append(peaks, np.inf)
    asked = levels.take(sets.test, slice(0, study.num_help_levels))
    policy = policies(ensemble.members, players.apply, study.hold, study.margin)[WATCHED]
    key = agent_key(study.seed, PLAY, size)
    probe = Partial(players.probe, ensemble.members, ensemble.danger)
    score = Partial(_help_score, *map(jnp.float32, pair))
    ways: dict[str, tuple[Helper, Probe, Score, np.ndarray]]
    ways = {name: (HELPERS[name], probe, score, thresholds) for name in study.helpers}
    by_chance = np.array([1 - chance for chance in reversed(CHANCES)] + [np.inf])
    ways[AT_RANDOM] = (HELPERS[PLANNER], _chance, _as_it_is, by_chance)
    with stage(f"ask for help with the agents of {size} levels", len(ways)) as shown:
        for done, (name, (helper, seen, danger, limits)) in enumerate(ways.items(), start=1):
            if not help_path(part, name).exists():
                played = play_with_help(
                    study.env,
                    policy,
                    asked.levels,
                    key,
                    seen,
                    danger,
                    limits,
                    helper,
                    study.help_steps,
                )
                where = {"num_train_levels": size, "helper": name}
                blocks = [
                    _helped_rows(study, where | {"threshold": threshold}, asked, played, row)
                    for row, threshold in enumerate(limits.tolist())
                ]
                write_table(help_path(part, name), stack(blocks))
            shown.show(done, name)


def _chance(state: physics.State, obs: jax.Array) -> jax.Array:
    """float32[], from 0 to 1: a number that knows nothing of danger, anew in every state."""
    key = jax.random.key(0)
    for part in (state.x, state.y):
        key = jax.random.fold_in(key, jax.lax.bitcast_convert_type(part, jnp.uint32))
    return jax.random.uniform(jax.random.fold_in(key, state.num_steps))


def _as_it_is(score: jax.Array) -> jax.Array:
    return score


def _help_score(alpha: jax.Array, beta: jax.Array, probes: Probes) -> jax.Array:
    return discrimination(probes.values, alpha, beta)


def _helped_rows(
    study: CoinRunStudy, where: dict[str, Any], asked: LevelSet, played: Helped, row: int
) -> dict[str, Any]:
    """The rows of help.parquet at one threshold, the `row`th."""
    one = {name: values[row] for name, values in played._asdict().items()}
    count = len(asked)
    return {
        **repeat(where, count),
        "level_index": np.arange(count, dtype=np.int32),
        "level_id": asked.ids,
        "outcome": np.array(OUTCOMES)[one["outcome"]],
        "cause": np.array(study.env.causes)[one["cause"]],
        **{name: one[name] for name in ("length", "episode_return", "num_requests", "num_helped")},
        "first_request": one["first_request"].astype(np.float32).filled(np.nan),  # of none: absent
    }
