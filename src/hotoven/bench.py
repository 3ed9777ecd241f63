"""Speed, measured here and now beside the peers that are installed. Prints; asserts nothing.

Contestants take turns (ours, peer, ours, peer, ...), so that a busy machine slows them alike: read
the ratios before the figures. Peers are never imported when this module is, and never needed;
`pip install 'hotoven[bench]'` brings them.
"""

import importlib
import itertools
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib import metadata
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hotoven import levels, peers, runs
from hotoven.adapters.gymnasium import GymnasiumEnv
from hotoven.agents import make_chunk
from hotoven.devices import at_once, learns_in_turn, spread
from hotoven.envs.coinrun import level
from hotoven.envs.coinrun.env import CoinRun
from hotoven.envs.lavagrid import LavaGrid
from hotoven.evaluation import prediction, roc_bootstrap, scores
from hotoven.learners.dqn import DQNConfig, make_dqn
from hotoven.learners.experience import reset_all, step_all
from hotoven.learners.learner import Learner
from hotoven.learners.ppo import PPOConfig, make_net, make_ppo, rows_at_once
from hotoven.studies import coinrun_settings, lavagrid_agents, lavagrid_plays, lavagrid_settings
from hotoven.types import Env, PyTree

EXTRA: Final = "pip install 'hotoven[bench]'"
NUM_LEVELS: Final = 1000  # training levels in the env and the learning benchmark
PRODUCT_SIZES: Final = (512, 1024, 2048)  # square matrices tried for the peak

# As large as NAVIX's Empty-8x8, with its time limit.
ENV: Final = LavaGrid(height=8, width=8, max_steps=100)

# The network and the rhythm of the paper's agents; not double Q, which the peer does not have.
LEARNING: Final = DQNConfig(
    net="mlp",
    hidden=(256, 256, 512),
    optimizer="rmsprop",
    learning_rate=1e-4,
    gamma=0.99,
    batch_size=32,
    steps_per_update=4,
    target_period=1000,
    double_q=False,
)


class Contestant(NamedTuple):
    """One side of a measurement. The first two turns compile and are not counted."""

    unit: str
    turn: Callable[[], float]  # does a fixed amount of work; returns its figure in `unit`


class Result(NamedTuple):
    """What a measurement found: figures per turn, and what follows from them turn by turn."""

    title: str
    figures: Mapping[str, np.ndarray]  # contestant -> float64[turns]
    units: Mapping[str, str]  # contestant -> unit
    derived: Mapping[str, np.ndarray]  # e.g. a ratio with its aim -> float64[turns]
    notes: tuple[str, ...]  # what is missing, and how to get it


def run(what: str, repeats: int) -> None:
    """Measures one of MEASUREMENTS and prints the machine, the versions, figures and ratios."""
    if what not in MEASUREMENTS:
        raise ValueError(f"what must be one of {', '.join(MEASUREMENTS)}, got {what!r}")
    show(MEASUREMENTS[what](repeats))


def show(result: Result) -> None:
    """Prints the machine, the versions and a measurement's medians with their ranges."""
    machine = runs.hardware()
    loads = os.getloadavg() if hasattr(os, "getloadavg") else ()  # Windows has none
    busy = ", ".join(f"{load:.1f}" for load in loads) or "unknown"
    devices = runs.counted(machine["devices"])
    print(f"machine   {machine['processor']}, {machine['cores']} cores, jax on {devices}")
    print(f"load      {busy} (averages over 1, 5 and 15 minutes, this benchmark included)")
    print(f"versions  {', '.join(f'{name} {v}' for name, v in _versions().items())}")
    print(f"\n{result.title}: median of {_num_turns(result)} turns (lowest to highest)")
    for name, values in result.figures.items():
        print(f"  {name:<34} {_summary(values)} {result.units[name]}")
    for name, values in result.derived.items():
        print(f"  {name:<34} {_summary(values)}")
    for note in result.notes:
        print(f"  {note}")


def take_turns(
    contestants: Mapping[str, Contestant], repeats: int
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Every contestant's figures, float64[repeats], and its unit; a turn goes round all of them."""
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    for contestant in [*contestants.values()] * 2:  # a first turn's result may compile again
        contestant.turn()
    for _ in range(repeats):
        for name, contestant in contestants.items():
            figures[name].append(contestant.turn())
    units = {name: contestant.unit for name, contestant in contestants.items()}
    return {name: np.array(values) for name, values in figures.items()}, units


# Random steps


def env_speed(repeats: int, env: Env = ENV, batch: int = 4096, num_steps: int = 100) -> Result:
    """Random steps per second with observations and auto-reset, beside NAVIX's Empty-8x8.

    In both, actions are drawn the same way, every observation is added byte by byte to a total and
    every reward to another, and each turn goes on from the last one's states: nothing of a step can
    be left out.
    """
    ours, theirs = f"hotoven {env.name} {'x'.join(map(str, env.obs_shape))}", "NAVIX Empty-8x8"
    contestants = {ours: _our_steps(env, batch, num_steps)}
    navix, notes = _peer("navix")
    if navix is not None:
        contestants[theirs] = _navix_steps(navix, batch, num_steps)
    figures, units = take_turns(contestants, repeats)
    derived = {}
    if navix is not None:
        derived["ratio (aim: at least 2)"] = figures[ours] / figures[theirs]
    title = f"random steps with observations, batch {batch}, {num_steps} steps a turn"
    return Result(title, figures, units, derived, notes)


def _our_steps(env: Env, batch: int, num_steps: int) -> Contestant:
    training = jax.tree.map(jnp.asarray, env.generate(np.arange(NUM_LEVELS))[0])
    num_levels = jnp.int32(NUM_LEVELS)

    def step(carry: PyTree, action: jax.Array, key: jax.Array) -> tuple[PyTree, Any, Any]:
        state, obs, new, _ = step_all(env, training, num_levels, carry[0], carry[1], action, key)
        return (state, obs), obs, new.reward

    state, shown = reset_all(env, training, num_levels, batch, jax.random.key(0))
    return _random_steps(step, (state, shown.obs), shown.obs, env.num_actions, num_steps)


def _navix_steps(navix: Any, batch: int, num_steps: int) -> Contestant:
    env = navix.make("Navix-Empty-8x8-v0")  # its resets draw from keys of their own

    def step(carry: PyTree, action: jax.Array, key: jax.Array) -> tuple[PyTree, Any, Any]:
        shown = jax.vmap(env.step)(carry, action)
        return shown, shown.observation, shown.reward

    shown = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), batch))
    return _random_steps(step, shown, shown.observation, len(env.action_set), num_steps)


def _random_steps(
    step: Callable[..., tuple[PyTree, Any, Any]],
    start: PyTree,
    obs: jax.Array,
    num_actions: int,
    num_steps: int,
) -> Contestant:
    """Turns of `num_steps` random actions of a batch; `step(carry, action, key)` is batched."""
    batch = obs.shape[0]

    @jax.jit
    def play(carry: PyTree, seen: jax.Array, key: jax.Array) -> tuple[PyTree, jax.Array, jax.Array]:
        def body(running: tuple, key: jax.Array) -> tuple[tuple, jax.Array]:
            carry, seen = running
            k_act, k_step = jax.random.split(key)
            # a byte each: randint would take a third of the time of a step, in both alike
            action = jax.random.bits(k_act, (batch,), jnp.uint8) % jnp.uint8(num_actions)
            carry, obs, reward = step(carry, action.astype(jnp.int32), k_step)
            return (carry, seen + obs), reward.sum()

        (carry, seen), rewards = jax.lax.scan(body, (carry, seen), jax.random.split(key, num_steps))
        return carry, seen, rewards

    now = (start, jnp.zeros_like(obs))
    turns = 0

    def turn() -> float:
        nonlocal now, turns
        turns += 1
        began = time.perf_counter()
        *now, _ = jax.block_until_ready(play(*now, jax.random.key(turns)))
        return batch * num_steps / (time.perf_counter() - began) / 1e6

    return Contestant("million steps/s", turn)


# CoinRun


def coinrun_speed(
    repeats: int, batch: int | None = None, num_steps: int = 100, peer_steps: int = 20_000
) -> Result:
    """Random steps per second of CoinRun in pixels and in symbols, beside EnvPool and procgen2.

    Hard levels, actions drawn anew for every step, every observation added byte by byte to a total
    and every reward to another, on all sides. Ours is spread over the devices there are; `batch` is
    how many are played side by side, by default 1024, or 16,384 on a GPU.
    """
    batch = batch or (1024 if jax.default_backend() == "cpu" else 16_384)
    pixels, symbols = "hotoven, pixels", "hotoven, symbols"
    contestants = {
        name: _on_every_device(partial(_our_steps, env), batch, num_steps)
        for name, env in ((pixels, CoinRun(obs="pixels")), (symbols, CoinRun(obs="symbolic")))
    }
    notes: list[str] = []
    playing = {}
    for name in peers.ENGINES:
        try:
            playing[name] = peers.Peer(name)
        except peers.MissingPeer as error:
            notes.append(f"{name} is not measured: {error}")
            continue
        contestants[f"{name}, pixels"] = _peer_steps(playing[name], peer_steps)
        notes.append(f"{name}: {playing[name].num_envs} environments, its best")
    try:
        figures, units = take_turns(contestants, repeats)
    finally:
        for peer in playing.values():
            peer.close()
    derived = {}
    for ours, name, aim in (
        (pixels, "envpool", " (aim: at least 8)"),
        (symbols, "envpool", " (aim: at least 15)"),
        (pixels, "procgen2", ""),
    ):
        if name in playing:
            ratio = figures[ours] / figures[f"{name}, pixels"]
            derived[f"{ours.split()[-1]} / {name}{aim}"] = ratio
    notes += _memory_notes()
    title = f"CoinRun, random steps with observations, batch {batch}, {num_steps} steps a turn"
    return Result(title, figures, units, derived, tuple(notes))


def levels_speed(repeats: int, count: int = 1000) -> Result:
    """Levels of CoinRun made per second, on one core, and seconds to load a set from the cache."""
    ids = np.arange(count)

    def making(mode: str) -> Contestant:
        def turn() -> float:
            began = time.perf_counter()
            level.generate(ids, mode)
            return count / (time.perf_counter() - began)

        return Contestant("levels/s", turn)

    def loading() -> float:
        began = time.perf_counter()
        levels.split(CoinRun(), 0, 0, count)
        return time.perf_counter() - began

    contestants = {f"made, {mode}": making(mode) for mode in level.MODES}
    contestants["test set loaded, hard"] = Contestant("s", loading)
    figures, units = take_turns(contestants, repeats)
    test = levels.split(CoinRun(), 0, 0, count).test
    size = sum(leaf.nbytes for leaf in jax.tree.leaves((test.levels, dict(test.facts))))
    notes = (
        f"{count} levels in memory: {size / 1e6:.2f} MB; pictures are computed, not stored",
        "aims: at least 2000 levels/s; loaded in less than 2 s; below 400 MB",
    )
    return Result(f"CoinRun, {count} levels", figures, units, {}, notes)


def _on_every_device(
    make: Callable[[int, int], Contestant], batch: int, num_steps: int
) -> Contestant:
    """Contestants with equal shares of the batch, one on each device, that play at once."""
    shares = spread(batch, jax.local_devices())
    devices = [device for device, _ in shares]
    parts = []
    for device, rows in shares:
        with jax.default_device(device):
            parts.append(make(rows.stop - rows.start, num_steps))

    def play(part: Contestant, device: jax.Device) -> float:
        with jax.default_device(device):
            return part.turn()

    def turn() -> float:
        began = time.perf_counter()
        at_once(play, parts, devices)
        return batch * num_steps / (time.perf_counter() - began) / 1e6

    return Contestant("million steps/s", turn)


def _peer_steps(peer: peers.Peer, num_steps: int) -> Contestant:
    return Contestant("million steps/s", lambda: peer.play(num_steps) / 1e6)


def _memory_notes() -> list[str]:
    """The most memory that each accelerator held; nothing where that is not known."""
    known = [(device, device.memory_stats()) for device in jax.local_devices()]
    return [
        f"{device.device_kind}: {stats['peak_bytes_in_use'] / 2**20:.0f} MiB at most"
        for device, stats in known
        if stats and "peak_bytes_in_use" in stats
    ]


# Learning


def learning_speed(
    repeats: int,
    config: DQNConfig = LEARNING,
    env: Env = LavaGrid(),  # noqa: B008  frozen
    num_members: int = 9,
    num_iterations: int = 25,
    peer_updates: int = 300,
    product_sizes: tuple[int, ...] = PRODUCT_SIZES,
) -> Result:
    """DQN updates per second, acting included, summed over members, beside Stable-Baselines3.

    The peer trains one agent with the same network, batch, optimizer and rhythm, on an environment
    that does nothing: only its learner is timed, ours with its environment. The share of the peak
    is `update_flops` per second over the best square matrix product of the same turn.
    """
    ours, theirs = f"hotoven, {num_members} members", "Stable-Baselines3, 1 agent"
    contestants = {ours: _our_updates(config, env, num_members, num_iterations)}
    sb3, notes = _peer("stable_baselines3")
    if sb3 is not None:
        contestants[theirs] = _sb3_updates(sb3, config, peer_updates)
    products = {f"product of {n}x{n} matrices": _product(n) for n in product_sizes}
    figures, units = take_turns(contestants | products, repeats)

    flops = update_flops(config, math.prod(env.obs_shape), env.num_actions)
    peak = np.max([figures[name] for name in products], axis=0)
    derived = {"share of the peak (aim: 0.5)": figures[ours] * flops / 1e9 / peak}
    if sb3 is not None:
        derived["ratio (aim: at least 5)"] = figures[ours] / figures[theirs]
    title = (
        f"DQN, MLP {'-'.join(map(str, config.hidden))}, batch {config.batch_size}, one update per "
        f"{config.steps_per_update} steps, {flops / 1e6:.1f} MFLOP an update"
    )
    return Result(title, figures, units, derived, notes)


def update_flops(config: DQNConfig, obs_size: int, num_actions: int) -> int:
    """Floating-point operations of one agent's update and of the acting that goes with it (MLP).

    Matrix products alone: [n, a] by [a, b] is 2nab. What else an update does (the optimizer, the
    replay, the environment) takes time and counts nothing, so that the share of the peak is the
    share that could not be had faster.
    """
    widths = (obs_size, *config.hidden, num_actions)
    weights = [fan_in * fan_out for fan_in, fan_out in itertools.pairwise(widths)]
    forward = 2 * sum(weights)  # of one row
    backward = forward + 2 * sum(weights[1:])  # by weights, and by inputs except the observation
    networks = 3 if config.double_q else 2  # online and target; double Q: online on the next too
    return config.batch_size * (networks * forward + backward) + config.steps_per_update * forward


def _our_updates(config: DQNConfig, env: Env, num_members: int, num_iterations: int) -> Contestant:
    train = _training(make_dqn(config, env), env, NUM_LEVELS, num_members, jax.local_devices())
    count = num_members * num_iterations * config.updates_per_iteration
    return Contestant("updates/s", lambda: count / train(num_iterations))


def _training(
    learner: Learner,
    env: Env,
    num_levels: int,
    num_members: int,
    devices: Sequence[jax.Device],
    in_turn: bool | None = None,
) -> Callable[[int], float]:
    """Trains new members as `agents.train` does for as many iterations; the seconds they took.

    `in_turn` says how the members of a device learn; by default as `train` would have them.
    """
    training = env.generate(np.arange(num_levels))[0]
    sizes = np.full(num_members, num_levels, np.int32)
    keys = jax.random.split(jax.random.key(0), num_members)
    groups = spread(num_members, devices)
    on_each = [jax.device_put((training, sizes[rows]), device) for device, rows in groups]
    in_turn = learns_in_turn(devices[0]) if in_turn is None else in_turn
    init, chunk = jax.jit(jax.vmap(learner.init, (None, 0, 0))), make_chunk(learner, in_turn)
    states = [
        init(*seen, jax.device_put(keys[rows], device))
        for seen, (device, rows) in zip(on_each, groups, strict=True)
    ]
    done = 0

    def train(count: int) -> float:
        nonlocal states, done
        began = time.perf_counter()
        results = at_once(partial(chunk, done, count), states, on_each)
        seconds = time.perf_counter() - began
        states = [state for state, _ in results]
        done += count
        return seconds

    return train


class _StillEnv(GymnasiumEnv):
    """LavaGrid's spaces and nothing behind them: a step costs nothing and never ends."""

    def reset(self, **_: Any) -> tuple[np.ndarray, dict[str, Any]]:
        self._shown_for_ever = np.zeros(self.observation_space.shape or (), np.uint8)
        return self._shown_for_ever, {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self._shown_for_ever, 0.0, False, False, {}


def _sb3_updates(sb3: Any, config: DQNConfig, num_updates: int) -> Contestant:
    torch = importlib.import_module("torch")
    torch.set_num_threads(runs.hardware()["cores"])
    agent = sb3.DQN(
        "MlpPolicy",
        _StillEnv("lavagrid"),
        learning_rate=config.learning_rate,
        gamma=config.gamma,
        batch_size=config.batch_size,
        buffer_size=config.replay_capacity,
        train_freq=config.steps_per_update,
        target_update_interval=config.target_period * config.steps_per_update,
        learning_starts=config.batch_size,
        exploration_initial_eps=config.epsilon_end,  # so that it asks its network, as ours does
        exploration_final_eps=config.epsilon_end,
        policy_kwargs={
            "net_arch": list(config.hidden),
            "optimizer_class": torch.optim.RMSprop,
            "optimizer_kwargs": {"alpha": 0.95, "eps": 0.01, "centered": True},
        },
        device="cpu",
        seed=0,
    )

    def turn() -> float:
        steps = num_updates * config.steps_per_update
        before = agent._n_updates
        began = time.perf_counter()
        agent.learn(steps, reset_num_timesteps=False)
        return float(agent._n_updates - before) / (time.perf_counter() - began)

    return Contestant("updates/s", turn)


def _product(size: int, dtype: Any = jnp.float32) -> Contestant:
    # not ones: a card may multiply numbers that are all alike faster
    matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(jnp.matmul)
    flops = 2 * size**3
    count = max(1, min(100, round(2e10 / flops)))  # a few tenths of a second for large ones

    def turn() -> float:
        began = time.perf_counter()
        for _ in range(count):
            result = product(matrix, matrix)
        result.block_until_ready()
        return count * flops / (time.perf_counter() - began) / 1e9

    return Contestant("GFLOP/s", turn)


# PPO


class Training(NamedTuple):
    """PPO of some members on a number of levels."""

    config: PPOConfig
    env: Env
    num_members: int
    num_levels: int = 200
    num_iterations: int = 1  # in a turn

    @property
    def num_steps(self) -> int:
        """Steps of all members in a turn."""
        each = self.config.num_envs * self.config.num_steps
        return self.num_members * self.num_iterations * each


QUICK, FULL = (coinrun_settings.PRESETS[name] for name in ("quick", "full"))
SYMBOLS: Final = Training(QUICK.ppo, QUICK.env, 5)

# CleanRL's settings for procgen, with Nature-CNN. A peer knows no other network.
PIXELS: Final = Training(
    PPOConfig(net="nature", value_clip=0.2), CoinRun(mode="easy", obs="pixels"), 2
)

# On a GPU: five members of each network, and the rate in a thousand steps per second to reach.
ON_GPU: Final = {
    net: Training(replace(FULL.ppo, net=net), FULL.env, 5, 500) for net in ("nature", "impala")
}
GPU_AIMS: Final = {"nature": 300, "impala": 100}
GPU_PRODUCT_SIZES: Final = (2048, 4096, 8192)


def ppo_speed(
    repeats: int, symbols: Training | None = SYMBOLS, pixels: Training | None = PIXELS
) -> Result:
    """Environment steps per second of PPO, learning included, summed over members.

    Symbols stand alone; pixels beside PPO in PyTorch on EnvPool's CoinRun, with the same network,
    batch, minibatches and epochs. The peer trains one agent with two threads. Ours is measured with
    one agent on one device, and with `num_members` over all devices. On a GPU this is `ppo_share`.
    """
    if jax.default_backend() != "cpu":
        return ppo_share(repeats)
    contestants, notes = {}, []
    devices = jax.local_devices()
    if symbols is not None:
        name = f"symbols, {symbols.num_members} members"
        contestants[name] = _our_ppo(symbols, devices)
    peer = None
    if pixels is not None:
        alone = pixels._replace(num_members=1)
        contestants["pixels, 1 agent"] = _our_ppo(alone, devices[:1])
        contestants[f"pixels, {pixels.num_members} members"] = _our_ppo(pixels, devices)
        try:
            peer = peers.Peer("envpool", learning=_peer_settings(pixels))
            contestants["pixels, PyTorch and EnvPool"] = _peer_ppo(peer, alone.num_steps)
        except peers.MissingPeer as error:
            notes.append(f"PyTorch on EnvPool is not measured: {error}")
    try:
        figures, units = take_turns(contestants, repeats)
    finally:
        if peer is not None:
            peer.close()
    derived = {}
    if symbols is not None:
        derived["symbols / 15k (aim: at least 1)"] = figures[name] / 15e3
    if pixels is not None and peer is not None:
        theirs = figures["pixels, PyTorch and EnvPool"]
        members = f"{pixels.num_members} members"
        derived[f"pixels, {members} / peer (aim: above 1)"] = figures[f"pixels, {members}"] / theirs
        derived["pixels, 1 agent / peer"] = figures["pixels, 1 agent"] / theirs
    notes += [_described(kind, one) for kind, one in _given(symbols=symbols, pixels=pixels).items()]
    title = f"PPO on CoinRun, learning included, on {len(devices)} devices"
    return Result(title, figures, units, derived, tuple(notes))


def ppo_share(
    repeats: int,
    trainings: Mapping[str, Training] = ON_GPU,
    product_sizes: tuple[int, ...] = GPU_PRODUCT_SIZES,
) -> Result:
    """PPO's steps per second by network, and the share of the card's matrix products it reaches.

    The share is `step_flops` per second over the best square product of bfloat16 matrices of the
    same turn, times the number of devices.
    """
    devices = jax.local_devices()
    contestants = {
        f"{net}, {training.num_members} members": _our_ppo(training, devices)
        for net, training in trainings.items()
    }
    products = {
        f"product of {n}x{n} matrices": _product(n, jnp.bfloat16)._replace(unit="GFLOP/s, bfloat16")
        for n in product_sizes
    }
    figures, units = take_turns(contestants | products, repeats)
    peak = np.max([figures[name] for name in products], axis=0) * len(devices)
    derived = {}
    for net, training in trainings.items():
        rate = figures[f"{net}, {training.num_members} members"]
        flops = step_flops(training.config, training.env)
        aim = GPU_AIMS[net]
        derived[f"{net} / {aim}k (aim on a GPU: at least 1)"] = rate / (1e3 * aim)
        derived[f"{net}, share of the peak ({flops / 1e6:.0f} MFLOP)"] = rate * flops / 1e9 / peak
    notes = [_described(net, training) for net, training in trainings.items()] + _memory_notes()
    title = f"PPO on CoinRun, learning included, on {len(devices)} x {devices[0].device_kind}"
    return Result(title, figures, units, derived, tuple(notes))


def step_flops(config: PPOConfig, env: Env) -> int:
    """Floating-point operations of one agent's PPO per environment step, matrix products alone.

    One forward pass to act, and a forward and a backward pass per epoch. The values of what
    follows a rollout, of which there are a few for hundreds of steps, are not counted.
    """
    net = make_net(config, env, with_kernels=False)
    params = jax.eval_shape(net.init, jax.random.key(0))
    seen = jnp.zeros(env.obs_shape, jnp.uint8 if env.obs_high > 1 else jnp.float32)[None]

    def total(params: PyTree, obs: jax.Array) -> jax.Array:
        return net.apply(params, obs).sum()

    forward = product_flops(net.apply, params, seen)
    return forward + config.num_epochs * product_flops(jax.value_and_grad(total), params, seen)


def product_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """Floating-point operations of all matrix products that a function does; see update_flops."""
    return _flops_of(jax.make_jaxpr(function)(*arguments).jaxpr)


def _flops_of(jaxpr: Any) -> int:
    found, used = 0, set(map(id, jaxpr.outvars))
    for eqn in reversed(jaxpr.eqns):
        if used.isdisjoint(map(id, eqn.outvars)):  # as XLA leaves it out: a gradient by the pixels
            continue
        used |= set(map(id, eqn.invars))
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            summed = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
            found += 2 * math.prod(eqn.outvars[0].aval.shape) * summed
        times = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        inner = [getattr(value, "jaxpr", None) for value in eqn.params.values()]
        found += times * sum(_flops_of(part) for part in inner if part is not None)
    return found


def _our_ppo(training: Training, devices: Sequence[jax.Device]) -> Contestant:
    learner = make_ppo(training.config, training.env)
    train = _training(
        learner, training.env, training.num_levels, training.num_members, list(devices)
    )
    count = training.num_steps
    return Contestant("steps/s", lambda: count / train(training.num_iterations))


def _peer_settings(training: Training) -> dict[str, Any]:
    """What the peer needs to do the same."""
    assert isinstance(training.env, CoinRun)
    return asdict(training.config) | {
        "mode": training.env.mode,
        "num_levels": training.num_levels,
    }


def _peer_ppo(peer: peers.Peer, num_steps: int) -> Contestant:
    return Contestant("steps/s", lambda: peer.play(num_steps))


def _given(**trainings: Training | None) -> dict[str, Training]:
    return {name: training for name, training in trainings.items() if training is not None}


def _described(name: str, training: Training) -> str:
    config = training.config
    rows = rows_at_once(config)
    parts = "" if rows == config.minibatch_size else f" in parts of {rows}"
    hidden = f" {'-'.join(map(str, config.hidden))}" if config.net == "mlp" else ""
    return (
        f"{name}: {config.net}{hidden}{' in bfloat16' if config.bfloat16 else ''}, "
        f"{config.num_envs} x {config.num_steps} steps an iteration, {config.num_minibatches} "
        f"minibatches{parts}, {config.num_epochs} epochs, {training.num_levels} levels"
    )


# Evaluation


def evaluation_speed(
    repeats: int,
    study: lavagrid_settings.LavaGridStudy = lavagrid_settings.PRESETS["quick"],
) -> Result:
    """Seconds to play every test level with every method, once compiled.

    The networks are untrained; every single member is played. A turn is the sum over methods.
    """
    nets = lavagrid_agents.make_nets(study)
    k_members, k_dropout, k_blocker, k_play = jax.random.split(jax.random.key(study.seed), 4)
    ensemble = lavagrid_agents.Ensemble(
        jax.vmap(nets.member.init)(jax.random.split(k_members, study.num_members)),
        nets.dropout.init(k_dropout),
        nets.blocker.init(k_blocker),
    )
    test = levels.split(study.env, 0, 0, study.num_test_levels, study.level_seed).test
    players = lavagrid_plays.make_players(study)
    contestants = {
        method: _timed(partial(players[method], policy, test.levels, k_play))
        for method, policy in lavagrid_plays.policies(study, nets, ensemble).items()
    }
    figures, units = take_turns(contestants, repeats)
    total = np.sum(list(figures.values()), axis=0)
    title = f"evaluation of {len(test)} test levels, {study.num_members} members"
    derived = {"all methods, seconds (aim: below 10)": total}
    return Result(title, figures, units, derived, ())


def _timed(work: Callable[[], PyTree]) -> Contestant:
    def turn() -> float:
        began = time.perf_counter()
        jax.block_until_ready(work())
        return time.perf_counter() - began

    return Contestant("s", turn)


# Prediction


class _Line(NamedTuple):
    """What one line of a panel is drawn from."""

    score: np.ndarray  # float64[L, T]
    positive: np.ndarray  # bool[L, T]
    valid: np.ndarray  # bool[L, T]


class _Rollout(NamedTuple):
    """A simulated rollout of one way of acting with one ensemble."""

    values: np.ndarray  # float32[L, T, M]
    num_steps: np.ndarray  # int64[L]
    died: np.ndarray  # bool[L]


def predict_speed(
    repeats: int, num_levels: int = 1000, num_steps: int = 200, num_members: int = 5
) -> Result:
    """Seconds to compute the post's figure of four ROC panels with four lines each.

    Panels: two numbers of training levels and two windows. Lines: two ways of acting and two
    scores. Ten samples of the steps are the post's; beside them stand AUC and average precision of
    2000 samples of the levels, and the difference that the standard deviation makes to both. Data
    are simulated; every episode has `num_steps`.
    """
    rollouts = [
        _simulated(rate, num_levels, num_steps, num_members, seed)
        for seed, rate in enumerate((0.3, 0.3, 0.1, 0.1))  # 10 and 200 training levels
    ]
    lines = _lines(rollouts)

    def of_steps() -> None:
        for score, positive, valid in lines:
            roc_bootstrap.step_bootstrap(score[valid], positive[valid])

    def of_levels(samples: Callable[..., roc_bootstrap.Samples]) -> None:
        drawn = [samples(*line) for line in lines]
        # the two scores of one rollout and window stand side by side
        drawn += itertools.starmap(
            roc_bootstrap.difference, zip(drawn[1::2], drawn[::2], strict=True)
        )
        for found in drawn:
            roc_bootstrap.interval(found)

    contestants = {
        "scores and labels": _timed(lambda: _lines(rollouts)),
        "ten samples of steps": _timed(of_steps),
        "levels, AUC": _timed(partial(of_levels, roc_bootstrap.auc_samples)),
        "levels, average precision": _timed(partial(of_levels, roc_bootstrap.precision_samples)),
    }
    figures, units = take_turns(contestants, repeats)
    total = np.sum(list(figures.values()), axis=0)
    title = f"4 panels of 4 lines, {num_levels} levels, {num_steps} steps each"
    return Result(title, figures, units, {"all, seconds (aim: below 5)": total}, ())


def _lines(rollouts: list[_Rollout]) -> list[_Line]:
    """For each rollout and each window of 1 and 10: without the standard deviation, and with."""
    lines = []
    for values, num_steps, died in rollouts:
        max_steps = values.shape[1]
        mu, sigma = scores.mean_value(values), scores.std_value(values)
        valid = prediction.valid_steps(num_steps, max_steps)
        for window in (1, 10):
            positive = prediction.labels(num_steps, died, max_steps, window)
            for pair in (scores.MEAN_ONLY, scores.WITH_STD):
                lines.append(_Line(scores.score(mu, sigma, *pair), positive, valid))
    return lines


def _simulated(
    rate: float, num_levels: int, num_steps: int, num_members: int, seed: int
) -> _Rollout:
    """Members' values that fall, and part, over the last ten steps before a catastrophe."""
    rng = np.random.Generator(np.random.PCG64(seed))
    lengths, died = np.full(num_levels, num_steps), rng.random(num_levels) < rate
    near = prediction.labels(lengths, died, num_steps, window=10)[..., None]
    values = rng.standard_normal((num_levels, num_steps, num_members), np.float32)
    values += rng.standard_normal((num_levels, 1, 1), np.float32)  # a level is hard throughout
    return _Rollout(np.where(near, 2.0 * values - 1.0, values), lengths, died)


MEASUREMENTS: Final[dict[str, Callable[[int], Result]]] = {
    "env": env_speed,
    "coinrun": coinrun_speed,
    "levels": levels_speed,
    "learn": learning_speed,
    "ppo": ppo_speed,
    "evaluate": evaluation_speed,
    "predict": predict_speed,
}


def _peer(name: str) -> tuple[Any, tuple[str, ...]]:
    """The peer's module, or None and a note that says how to get it."""
    try:
        return importlib.import_module(name), ()
    except ImportError as error:
        return None, (f"{name} is not measured ({error}); {EXTRA} brings it",)


def _versions() -> dict[str, str]:
    """The packages that decide a result, and the peers that are there."""
    found = runs.versions()
    for name in ("navix", "stable-baselines3", "torch"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _num_turns(result: Result) -> int:
    return len(next(iter(result.figures.values())))


def _summary(values: np.ndarray) -> str:
    return f"{np.median(values):>9.4g} ({values.min():.4g} to {values.max():.4g})"
