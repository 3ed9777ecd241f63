"""How dangerous are trained agents in levels they have never seen? The command line.

Commands and their settings are frozen dataclasses read by tyro, which only this module imports.
Bad input ends with one line on standard error and exit code 2. Ctrl-C is `hotoven_command`'s.
"""

import contextlib
import difflib
import io
import math
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_origin, get_type_hints

import jax
import tyro

from hotoven import bench, levels, runs, web
from hotoven.agents import TrainingDiverged
from hotoven.devices import use_every_core
from hotoven.envs.coinrun.env import CoinRun
from hotoven.envs.coinrun.verify import file_names, verify
from hotoven.envs.lavagrid import LavaGrid
from hotoven.evaluation import combined, findings
from hotoven.play import Game
from hotoven.progress import tell
from hotoven.report.page import write_report
from hotoven.studies import coinrun, lavagrid, parts
from hotoven.watch import Settings, Watch

Study = Literal["lavagrid", "coinrun"]
EnvName = Literal["lavagrid", "coinrun"]
Preset = Literal["quick", "full"]


@dataclass(frozen=True)
class Reproduce:
    """Runs a study from levels to findings."""

    study: tyro.conf.Positional[Study]  # which study
    preset: Preset = "quick"  # settings to start from: minutes on two cores, or the whole study
    out: Path | None = None  # the run's folder (default: runs/STUDY-PRESET)
    resume: bool = False  # go on with a run that was killed, or add replications to a finished one
    force: bool = False  # overwrite a run that is there


@dataclass(frozen=True)
class LavaGridReproduce(Reproduce):
    """Runs a study from levels to findings; settings of CoinRun's: hotoven reproduce coinrun -h."""

    settings: Annotated[lavagrid.LavaGridStudy, tyro.conf.arg(name="")] = lavagrid.LavaGridStudy()


@dataclass(frozen=True)
class LavaGridTrain(LavaGridReproduce):
    """Runs a study's first part: trains and saves its agents; CoinRun's: hotoven train coinrun."""


@dataclass(frozen=True)
class CoinRunReproduce(Reproduce):
    """Runs the CoinRun study from levels to findings."""

    agents: Path | None = None  # a run whose agents play: none are trained
    settings: Annotated[coinrun.CoinRunStudy, tyro.conf.arg(name="")] = coinrun.CoinRunStudy()


@dataclass(frozen=True)
class CoinRunTrain(CoinRunReproduce):
    """Runs the first part of the CoinRun study: trains its agents and saves them."""


@dataclass(frozen=True)
class Evaluate:
    """Plays every level with a run's agents, then writes its tables, findings and figures."""

    run: tyro.conf.Positional[Path]  # the run's folder
    resume: bool = False  # go on with an evaluation that was killed
    force: bool = False  # overwrite the tables that are there


@dataclass(frozen=True)
class Figures:
    """Makes the findings and the figures of a run again from its tables."""

    run: tyro.conf.Positional[Path]  # the run's folder


@dataclass(frozen=True)
class Report:
    """Writes one HTML file that shows what runs found: opens from disk, asks for no network."""

    runs: tyro.conf.Positional[tuple[Path, ...]]  # the runs' folders
    out: Path | None = None  # the file; its folder must exist (default: report.html, in RUN if one)


@dataclass(frozen=True)
class Combine:
    """Shows what runs of one study found together that differ by their seeds alone."""

    runs: tyro.conf.Positional[tuple[Path, ...]]  # the runs' folders, two or more


@dataclass(frozen=True)
class Levels:
    """Shows, counts or names levels."""

    what: tyro.conf.Positional[Literal["show", "count", "hash"]]  # what to print
    env_name: tyro.conf.Positional[EnvName] = "lavagrid"  # whose levels
    role: Literal["train", "validation", "test"] = "test"  # which set
    num_levels: int = 3  # levels of the set (show and hash) or of each set (count)
    level_seed: int = 0  # which levels
    only: tuple[str, ...] = ()  # facts of which a level must have one, e.g. can_kill


@dataclass(frozen=True)
class LavaGridLevels(Levels):
    """Shows, counts or names levels; settings of CoinRun: hotoven levels count coinrun --help."""

    env: LavaGrid = LavaGrid()  # the environment


@dataclass(frozen=True)
class CoinRunLevels(Levels):
    """Shows, counts or names levels of CoinRun."""

    env: CoinRun = CoinRun()  # the environment


@dataclass(frozen=True)
class Play:
    """Lets a person play levels, in a browser on this machine."""

    env_name: tyro.conf.Positional[EnvName] = "lavagrid"  # what to play
    level_seed: int = 0  # the level to begin with, by its id
    scale: int | None = None  # pixels per cell; None fills a page well
    port: int = 0  # of the page's address; 0 takes any that is free
    browser: bool = True  # open the page; else its address is only printed


@dataclass(frozen=True)
class LavaGridPlay(Play):
    """Lets a person play in a browser here; settings of CoinRun: hotoven play coinrun --help."""

    env: Annotated[LavaGrid, tyro.conf.arg(name="")] = LavaGrid()


@dataclass(frozen=True)
class CoinRunPlay(Play):
    """Lets a person play levels of CoinRun, in a browser on this machine."""

    # the squares that tell an agent its speed would be in a person's way
    env: Annotated[CoinRun, tyro.conf.arg(name="")] = CoinRun(paint_velocity=False)


@dataclass(frozen=True)
class WatchRun:
    """Shows a run's agents at play on unseen levels; they ask you for help, in a browser here."""

    run: tyro.conf.Positional[Path]  # the run's folder
    settings: Annotated[Settings, tyro.conf.arg(name="")] = Settings()
    size: int | None = None  # agents of that many training levels; None: the fewest
    threshold: float | None = None  # alarm where U is above it; None: that of the promise
    promise: float | None = None  # share of catastrophes left unannounced; None: 0.2
    port: int = 0  # of the page's address; 0 takes any that is free
    browser: bool = True  # open the page; else its address is only printed


@dataclass(frozen=True)
class Verify:
    """Compares an engine with recordings of the game it repeats, bit by bit."""

    env_name: tyro.conf.Positional[Literal["coinrun"]]  # which engine
    folder: tyro.conf.Positional[Path]  # recordings, in the layout of tests/data/coinrun/README.md


@dataclass(frozen=True)
class Bench:
    """Measures speed beside the peers that are installed, in one process."""

    what: tyro.conf.Positional[
        Literal["env", "coinrun", "levels", "learn", "ppo", "evaluate", "predict"]
    ]  # what to measure
    repeats: int = 5  # timed repetitions; their median is printed


COMMANDS: dict[str, type] = {
    "reproduce": LavaGridReproduce,
    "train": LavaGridTrain,
    "evaluate": Evaluate,
    "figures": Figures,
    "report": Report,
    "combine": Combine,
    "levels": LavaGridLevels,
    "play": LavaGridPlay,
    "watch": WatchRun,
    "verify": Verify,
    "bench": Bench,
}

# Which settings there are hangs on the environment: the same command, where coinrun is named.
OF_COINRUN: dict[type, type] = {
    LavaGridReproduce: CoinRunReproduce,
    LavaGridTrain: CoinRunTrain,
    LavaGridLevels: CoinRunLevels,
    LavaGridPlay: CoinRunPlay,
}

# Each is a module with check_levels, run, train, untrained, check_agents, evaluate, merge and
# report; and with unmerge, where its runs can grow.
STUDIES: dict[str, Any] = {"lavagrid": lavagrid, "coinrun": coinrun}
KINDS: dict[str, type] = {"lavagrid": lavagrid.LavaGridStudy, "coinrun": coinrun.CoinRunStudy}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    use_every_core()
    try:
        command = _parse(arguments)
        if command is not None:
            return _run(command)
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, TrainingDiverged) as error:
        return _complain(str(error))
    except (OverflowError, MemoryError, jax.errors.JaxRuntimeError) as error:
        return _complain(f"a setting is too large for this machine: {error}")
    return 0


def _complain(message: str) -> int:
    """Prints one line; returns the exit code."""
    tell(f"hotoven: {' '.join(message.split())}")
    return 2


def _parse(arguments: list[str]) -> Any:
    """The command with its settings; None where help was printed.

    Raises:
      ValueError: a command or setting is unknown or impossible.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__.splitlines()[0])
        for name, kind in COMMANDS.items():
            print(f"  hotoven {name:<10} {(kind.__doc__ or '').splitlines()[0]}")
        print("hotoven COMMAND --help lists the settings of a command.")
        return None
    if arguments[0] == "--version":
        print(f"hotoven {runs.versions()['hotoven']}")
        return None
    name, *rest = arguments
    if name not in COMMANDS:
        raise ValueError(f"command must be one of {', '.join(COMMANDS)}, got {name!r}")
    guess = next((word for word in rest if word in STUDIES), "lavagrid")
    command = _parse_as(name, rest, guess)
    named = getattr(command, "study", getattr(command, "env_name", guess))
    return command if named == guess else _parse_as(name, rest, named)  # it was another's value


def _parse_as(name: str, rest: list[str], study: str) -> Any:
    """The command called `name` with the settings there are for that study or environment."""
    kind = COMMANDS[name]
    if study == "coinrun":
        kind = OF_COINRUN.get(kind, kind)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            if not issubclass(kind, Reproduce):
                return tyro.cli(kind, prog=f"hotoven {name}", args=rest)
            preset = _preset(rest)
            return tyro.cli(
                kind,
                prog=f"hotoven {name}",
                args=rest,
                default=cast(Any, kind)(
                    study=tyro.MISSING, preset=preset, settings=STUDIES[study].PRESETS[preset]
                ),
            )
    except SystemExit as end:
        if end.code in (0, None):
            return None
        raise ValueError(_one_line(complaint.getvalue(), kind)) from None


def _preset(arguments: list[str]) -> Preset:
    """The preset named on the command line, before the other settings change it."""
    named_flags = [word for word in arguments if word.partition("=")[0] == "--preset"]
    if len(named_flags) > 1:
        raise ValueError(f"--preset must be given once, got it {len(named_flags)} times")
    for index, word in enumerate(arguments):
        flag, _, value = word.partition("=")
        if flag == "--preset":
            named = value or (arguments[index + 1] if index + 1 < len(arguments) else "")
            if named not in get_args(Preset):
                raise ValueError(
                    f"--preset must be one of {', '.join(get_args(Preset))}, got {named!r}"
                )
            return cast(Preset, named)
    return "quick"


def _one_line(complaint: str, kind: type) -> str:
    """tyro's boxed complaint as one line, with the allowed settings where one is unknown."""
    text: list[str] = []
    begun = False
    for line in complaint.splitlines():
        bare = line.strip("│ ")
        is_rule = bare.startswith(("╭", "╰", "───", "-----"))  # dashes where stdout is ASCII
        if is_rule and begun:
            break
        if begun:
            text.append(bare)
        begun = begun or is_rule
    message = " ".join(text) or " ".join(complaint.split())
    if "nrecognized" not in message:
        return message
    allowed = _flags(kind)
    unknown = re.findall(r"--[A-Za-z][\w.-]*", message)
    if not unknown:
        return f"unexpected{message.rpartition(':')[2]}: {_allowed(allowed)}"
    near = difflib.get_close_matches(unknown[0].replace("_", "-"), allowed, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown setting {unknown[0]}: {hint}{_allowed(allowed)}"


def _allowed(flags: list[str]) -> str:
    return f"allowed are {', '.join(flags)}" if flags else "this command has no settings"


def _flags(kind: type, prefix: str = "--") -> list[str]:
    """The command-line flags of a dataclass, nested ones with their prefix."""
    found = []
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        inner = hints[field.name]
        if "Positional" in str(inner):
            continue
        bare = get_args(inner)[0] if get_origin(inner) is Annotated else inner
        dashed = field.name.replace("_", "-")
        if is_dataclass(bare):
            nameless = any(getattr(extra, "name", None) == "" for extra in get_args(inner)[1:])
            nested = prefix if nameless else f"{prefix}{dashed}."
            found += _flags(bare, nested)  # type: ignore[arg-type]
        else:
            found.append(f"{prefix}{dashed}")
    return found


def _run(command: Any) -> int:
    """Runs the command; returns the exit code."""
    if isinstance(command, LavaGridReproduce | CoinRunReproduce):
        _reproduce(command, only_train=isinstance(command, LavaGridTrain | CoinRunTrain))
    elif isinstance(command, Evaluate):
        _evaluate(command)
    elif isinstance(command, Figures):
        _figures(command)
    elif isinstance(command, Report):
        _report(command)
    elif isinstance(command, Combine):
        _combine(command)
    elif isinstance(command, LavaGridLevels | CoinRunLevels):
        _levels(command)
    elif isinstance(command, LavaGridPlay | CoinRunPlay):
        _play(command)
    elif isinstance(command, WatchRun):
        _watch(command)
    elif isinstance(command, Verify):
        return _verify(command)
    else:
        bench.run(command.what, command.repeats)
    return 0


def _reproduce(command: LavaGridReproduce | CoinRunReproduce, only_train: bool) -> None:
    path = command.out or Path("runs") / f"{command.study}-{command.preset}"
    study = STUDIES[command.study]
    config = {"study": command.study, "settings": parts.settings(command.settings)}
    defaults = {"settings": parts.settings(KINDS[command.study]())}
    is_new = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    if command.force or is_new:
        study.check_levels(command.settings)  # before anything is removed, or a run is begun
    if isinstance(command, CoinRunReproduce) and command.agents is not None:
        coinrun.check_source(command.settings, command.agents, path)
    with runs.Run.open(path, config, command.resume, command.force, defaults) as run:
        if run.grown:
            study.unmerge(_study_of(path)[1], path)  # what is there stays as it is
        if isinstance(command, CoinRunReproduce):
            if command.agents is not None:
                coinrun.take_over(command.settings, run, command.agents)
            if only_train or not _is_stored(run):
                coinrun.check_trainable(command.settings, path)
        if only_train:
            if not run.finished or run.grown or study.untrained(command.settings, path):
                run.reopen()
                study.train(command.settings, run)
            print(f"agents    {path / 'agents'}")
            print(f"next      {_next(run)}")
            return
        if _is_stored(run):
            found = study.report(command.settings, path)
        else:
            run.reopen()
            found = study.run(command.settings, run)
            run.finish()
    _tell(path, found)


def _is_stored(run: runs.Run) -> bool:
    """Whether a run is finished and lacks what its tables, which are there, were made from."""
    is_whole = (run.path / "episodes.parquet").exists()
    return run.finished and not run.grown and is_whole and not (run.path / "parts").exists()


def _next(run: runs.Run) -> str:
    """The command that comes after training."""
    if run.finished:
        return f"all has been played: hotoven evaluate {run.path} --force plays it again"
    return f"hotoven evaluate {run.path}{' --resume' if _played(run.path) else ''}"


def _played(path: Path) -> list[Path]:
    """The tables of episodes of the parts of the run at `path`."""
    return list((path / "parts").rglob("episodes.parquet"))


def _figures(command: Figures) -> None:
    study, settings, config = _study_of(command.run)
    if not any(command.run.glob("*.parquet")):
        raise ValueError(
            f"{command.run} has no tables yet: hotoven evaluate {command.run} makes them"
        )
    _check_finished(command.run)
    with runs.Run.open(command.run, config, resume=True):
        found = study.report(settings, command.run)
    _tell(command.run, found)


def _check_finished(path: Path) -> None:
    """Raises ValueError if the tables of the run at `path` may be of another time."""
    if runs.read_about(path)["status"] == "running":
        raise ValueError(
            f"{path} is being evaluated or was stopped in the middle of it, so its tables may be "
            f"old: hotoven evaluate {path} --resume makes them new"
        )


def _report(command: Report) -> None:
    if not command.runs:
        raise ValueError("report needs the folder of a run, or of several")
    alone = command.runs[0] if len(command.runs) == 1 else Path()
    out = command.out or alone / "report.html"
    size = write_report(command.runs, out)
    print(f"report    {out}, {size / 1e6:.1f} MB")


def _combine(command: Combine) -> None:
    for path in command.runs:
        _check_finished(path)
    settings = [parts.settings(_study_of(path)[1]) for path in command.runs]
    for path, own in zip(command.runs, settings, strict=True):
        others = runs.changes(combined.without_seeds(settings[0]), combined.without_seeds(own))
        if others:
            raise ValueError(
                f"{path} and {command.runs[0]} must differ by their seeds alone: {others[0]}"
            )
    basis = combined.basis(settings)
    found = combined.combine(
        [findings.read_findings(path / "findings.json") for path in command.runs]
    )
    print(combined.to_markdown(found, [str(path) for path in command.runs], basis))


def _evaluate(command: Evaluate) -> None:
    study, settings, config = _study_of(command.run)
    if command.resume and command.force:
        raise ValueError("--resume goes on and --force starts again: only one can be asked for")
    with runs.Run.open(command.run, config, resume=True) as run:
        if not command.force and not command.resume and (run.finished or _played(command.run)):
            raise ValueError(
                f"{command.run} has been evaluated: --force plays again, --resume plays what is "
                "missing"
            )
        if command.resume and _is_stored(run):
            found = study.report(settings, command.run)
        else:
            study.check_agents(settings, command.run, command.force)  # before anything is removed
            run.reopen()
            if command.force:
                for table in _played(command.run):
                    table.unlink()
            study.evaluate(settings, run)
            study.merge(settings, command.run)
            found = study.report(settings, command.run)
            run.finish()
    _tell(command.run, found)


def _study_of(path: Path) -> tuple[Any, Any, dict[str, Any]]:
    """The study of the run at `path`, its settings, and its configuration as stored.

    Raises:
      ValueError: there is no run, or its record is damaged.
    """
    config = runs.read_about(path)["config"]
    name = config.get("study")
    if not isinstance(name, str) or name not in STUDIES:
        raise ValueError(
            f"{path / 'run.json'}: study must be one of {', '.join(STUDIES)}, got {name!r}"
        )
    try:
        settings = _rebuild(KINDS[name], config.get("settings"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path / 'run.json'}: {error}") from None
    return STUDIES[name], settings, config


def _rebuild(kind: type, plain: Any) -> Any:
    """A dataclass from its JSON form: nested dataclasses, lists as tuples."""
    if not isinstance(plain, dict):
        raise ValueError(f"settings of {kind.__name__} must be named, got {plain!r}")
    unknown = plain.keys() - {field.name for field in fields(kind)}
    if unknown:
        raise ValueError(f"unknown settings {', '.join(sorted(unknown))}")
    values = {}
    for field in fields(kind):
        if field.name not in plain:
            if field.default is MISSING:
                raise ValueError(f"the run's settings lack {field.name}")
            continue
        value = plain[field.name]
        if is_dataclass(field.type):
            value = _rebuild(field.type, value)  # type: ignore[arg-type]
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


def _tell(path: Path, found: list[findings.Finding]) -> None:
    print(findings.to_markdown(found))
    print(f"findings  {path / 'findings.md'}")
    print(f"tables    {path}/*.parquet")
    print(f"figures   {path / 'figures'}")


def _levels(command: LavaGridLevels | CoinRunLevels) -> None:
    counts = {role: 0 for role in levels.ROLES}
    if command.what == "count":
        counts = {role: command.num_levels for role in levels.ROLES}
    counts[command.role] = command.num_levels
    split = levels.split(
        command.env,
        counts["train"],
        counts["validation"],
        counts["test"],
        command.level_seed,
        command.only,
    )
    if command.what == "count":
        for role, level_set in split._asdict().items():
            unfit = f", {level_set.num_unfit} unfit passed over" if command.only else ""
            print(
                f"{role}: {len(level_set)} levels, {level_set.num_duplicates} duplicates dropped"
                f"{unfit}"
            )
            for name, fact in level_set.facts.items():
                if fact.dtype == bool and len(fact):
                    print(f"  {name} {fact.mean():.1%}")
        return
    chosen = split._asdict()[command.role]
    if command.what == "hash":
        print(levels.set_hash(chosen))
        return
    for index in range(len(chosen)):
        facts = ", ".join(f"{name} {fact[index]}" for name, fact in chosen.facts.items())
        print(f"level {chosen.ids[index]}: {facts}")
        one = jax.tree.map(lambda leaf, index=index: leaf[index], chosen.levels)
        print(command.env.text(one), end="\n\n")


def _play(command: LavaGridPlay | CoinRunPlay) -> None:
    with web.listen(command.port) as listener:  # first: what is wrong is said at once
        game = Game(command.env, command.level_seed, command.scale)
        tell("getting ready ...")
        game.get_ready()
        web.serve(game, "play", listener, command.browser)


def _watch(command: WatchRun) -> None:
    if command.threshold is not None and command.promise is not None:
        raise ValueError("threshold and promise both say where the alarm is: give one of them")
    if command.threshold is not None and math.isnan(command.threshold):
        raise ValueError(f"threshold must be a number, got {command.threshold}")
    study, settings, _ = _study_of(command.run)
    with runs.locked(command.run), web.listen(command.port) as listener:
        if command.threshold is None:
            _check_finished(command.run)
        watched = study.watched(
            settings, command.run, command.size, command.promise, command.threshold
        )
        session = Watch(watched, command.settings, command.run)
        tell("getting ready ...")
        session.get_ready()
        web.serve(session, "watch", listener, command.browser)


def _verify(command: Verify) -> int:
    """Prints what is identical in each recording; returns 0 if all is, else 1."""
    code = 0
    missing = [name for name in file_names() if not (command.folder / name).exists()]
    for result in verify(command.folder):
        steps = f", {result.num_steps} steps" if result.num_steps else ""
        print(f"{result.what}: {result.identical}/{result.total} identical{steps}", flush=True)
        if result.first_difference:
            code = 1
            print(f"  first difference: {result.first_difference}", flush=True)
            if result.num_steps:
                print(
                    f"  drift: {result.drift:.3g} cells at most; "
                    f"{result.num_other_ends} runs end otherwise",
                    flush=True,
                )
    if missing:
        print(f"not there, not compared: {', '.join(missing)}")
    return code


if __name__ == "__main__":
    sys.exit(main())
