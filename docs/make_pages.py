"""Writes the parts of the documentation that the code and the results already know.

`python docs/make_pages.py` writes them, `--check` writes nothing and ends with 1 if one is stale.
A page is either made whole (docs/lavagrid.md) or filled between a pair of markers
(`<!-- name -->` and `<!-- /name -->`); the text around the markers is written by hand.
"""

import ast
import dataclasses
import inspect
import io
import json
import re
import sys
import textwrap
import tokenize
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import jax

from hotoven.adapters.gymnasium import REGISTERED
from hotoven.envs.coinrun.env import CoinRun
from hotoven.envs.lavagrid import LavaGrid
from hotoven.evaluation import combined
from hotoven.evaluation.findings import (
    PERFECT_SOLVED,
    Finding,
    number_text,
    read_findings,
    spread_text,
    summary,
)
from hotoven.levels import split
from hotoven.runs import counted, read_about
from hotoven.storage import read_table
from hotoven.studies import coinrun_settings as coinrun_study
from hotoven.studies.lavagrid_settings import PRESETS, LavaGridStudy

ROOT: Final = Path(__file__).resolve().parent.parent
MADE: Final = "<!-- Made by docs/make_pages.py from the class and its docstring; do not edit. -->"

_OF_LAVAGRID: Final = (
    "perfect yet dangerous",
    "mean is safer",
    "single+blocker is safer",
    "more levels are safer",
)
_OF_COINRUN: Final = (
    "perfect yet dangerous",
    "averaging is no safer with 10 training levels",
    "sigma helps",
    "the promise holds",
    "help helps",
)
# The findings that the README tells, by folder in results/, with the command that made them. The
# others are in docs/results.md.
HEADLINES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "quick": ("lavagrid --preset quick", _OF_LAVAGRID),
    "full": ("lavagrid --preset full", _OF_LAVAGRID),
    "coinrun-quick": ("coinrun --preset quick", _OF_COINRUN),
    "coinrun-full": (
        "coinrun --preset full --sizes 10 200 1000 --helpers planner --num-help-levels 150 "
        "--num-inspected-levels 40",
        _OF_COINRUN,
    ),
}

# Studies whose settings differ by their seeds alone, as many as were planned. Once all are stored
# the README tells them together in place of the first.
TOGETHER: Final = ("coinrun-quick", *(f"coinrun-quick-seed{seed}" for seed in range(1, 5)))

# The figures of a run, in the order of docs/results.md, with what they show.
FIGURES: Final = {
    "generalization": "Test levels that ended in catastrophe, and test levels solved, "
    "against the number of training levels",
    "ensemble": "One unseen state, and the Q-values of every member of the ensemble and their mean",
    "blocker": "One unseen state, and the blocker's probability that each action is catastrophic",
    "calibration": "How often actions were catastrophic against the probability that the blocker "
    "gave, on training levels that it was not fitted on",
}


COINRUN_FIGURES: Final = {
    "unseen": "Agents on eight unseen levels, with alarms and how each ended",
    "timeline": "An unseen level that ended in a catastrophe: the members' values, U and alarms",
    "roc": "ROC curves of a catastrophe within 1 and within 10 steps, 10 and 200 training levels",
    "outcomes": "Levels that ended in catastrophe, and levels solved, against the number of "
    "training levels, by way of acting",
    "auc": "AUC against the window, and against the number of training levels",
}

# The stored CoinRun runs that docs/results.md tells one by one: what each is, and its figures.
COINRUN_RUNS: Final = {
    "coinrun-quick": ("Preset `quick`", ("unseen", "timeline", "roc")),
    "coinrun-sizes": (
        "Preset `quick` with four numbers of training levels, `--sizes 10 50 200 1000`",
        ("outcomes", "auc"),
    ),
    "coinrun-full": ("Preset `full`", ("timeline", "roc")),
}

# An example setting of each environment, and what the marks of its drawn level mean.
EXAMPLES: Final = {
    "lavagrid": ("height=7, width=7", "S start, G goal, L lava, # wall."),
    "coinrun": (
        'mode="easy", obs="symbolic"',
        "A agent at the start, C coin, L lava, o saw, X crate, < and > monsters, # rock.",
    ),
}


class Row(NamedTuple):
    """One line of a table of settings beside the paper's."""

    number: int  # of the difference that explains it
    words: str
    paper: str  # "not stated" where nothing that we can read states it
    setting: str  # a path into a study, or a name in _DERIVED


ROWS: Final = (
    Row(1, "rows of the grid", "not stated", "env.height"),
    Row(1, "columns of the grid", "not stated", "env.width"),
    Row(1, "share of walls", "not stated", "env.wall_density"),
    Row(1, "share of lava", "not stated", "env.lava_density"),
    Row(1, "smallest distance to the goal, steps", "not stated", "env.min_distance"),
    Row(1, "time limit, steps", "not stated", "env.max_steps"),
    Row(2, "what is seen", "the agent uncovers the map", "env.visibility"),
    Row(2, "radius that is uncovered, cells", "not stated", "env.radius"),
    Row(2, "frame of the observation", "not stated", "env.view"),
    Row(3, "numbers of training levels", "not stated", "sizes"),
    Row(3, "unseen test levels", "not stated for the gridworld", "num_test_levels"),
    Row(3, "validation levels", "not stated", "num_validation_levels"),
    Row(4, "network", "MLP", "dqn.net"),
    Row(4, "filters per convolution", "none", "dqn.filters"),
    Row(4, "units per dense layer", "256, 256, 512", "dqn.hidden"),
    Row(5, "gradient method", "RMSProp", "dqn.optimizer"),
    Row(5, "step size", "0.0001", "dqn.learning_rate"),
    Row(5, "share of the step size left at the end", "1", "dqn.learning_rate_end"),
    Row(5, "transitions per update", "32", "dqn.batch_size"),
    Row(6, "updates per agent", "not stated", "dqn.num_updates"),
    Row(6, "env steps per agent", "1M episodes", "env steps"),
    Row(6, "env steps per update", "not stated", "dqn.steps_per_update"),
    Row(6, "episodes side by side", "not stated", "dqn.num_envs"),
    Row(7, "transitions kept", "10k", "dqn.replay_capacity"),
    Row(7, "updates between target copies", "1000", "dqn.target_period"),
    Row(8, "discount", "not stated", "dqn.gamma"),
    Row(8, "double Q", "not stated", "dqn.double_q"),
    Row(8, "Huber loss is linear beyond", "not stated", "dqn.huber_delta"),
    Row(9, "random actions: factor per update", "0.999", "dqn.epsilon_decay"),
    Row(9, "random actions: smallest share", "0.05", "dqn.epsilon_end"),
    Row(10, "members of an ensemble", "9", "num_members"),
    Row(10, "independent ensembles per size", "not stated", "num_replications"),
    Row(11, "blocker: filters per convolution", "not stated", "danger.filters"),
    Row(11, "blocker: units per dense layer", "not stated", "danger.hidden"),
    Row(11, "blocker: updates", "not stated", "danger.num_updates"),
    Row(11, "blocker: transitions collected", "not stated", "blocker transitions"),
    Row(11, "blocker: threshold", "50%", "block_threshold"),
    Row(12, "MC-dropout: share of units dropped", "not used", "mc_dropout"),
)

COINRUN_ROWS: Final = (
    Row(1, "mode of the levels", "CoinRun of 2019", "env.mode"),
    Row(1, "what is seen", "pixels", "env.obs"),
    Row(1, "time limit, steps", "not stated", "env.max_steps"),
    Row(2, "numbers of training levels", "10, 200", "sizes"),
    Row(2, "unseen test levels", "1000", "num_test_levels"),
    Row(2, "calibration levels", "not used", "num_calibration_levels"),
    Row(2, "validation levels", "not stated", "num_validation_levels"),
    Row(3, "env steps per agent", "not stated", "ppo steps"),
    Row(3, "steps of one iteration: episodes x steps", "not stated", "ppo batch"),
    Row(3, "minibatches", "not stated", "ppo.num_minibatches"),
    Row(3, "epochs", "not stated", "ppo.num_epochs"),
    Row(3, "step size of Adam", "not stated", "ppo.learning_rate"),
    Row(3, "share of the step size left at the end", "not stated", "ppo.learning_rate_end"),
    Row(3, "discount", "not stated", "ppo.gamma"),
    Row(3, "lambda of the advantages", "not stated", "ppo.gae_lambda"),
    Row(3, "clip", "not stated", "ppo.clip"),
    Row(3, "rewards are normalised", "not stated", "ppo.normalise_rewards"),
    Row(4, "worth of entropy", "not stated", "ppo.entropy_weight"),
    Row(4, "share of it left at the end", "not stated", "ppo.entropy_weight_end"),
    Row(5, "network", "not stated", "ppo.net"),
    Row(5, "units per dense layer (mlp)", "not stated", "ppo.hidden"),
    Row(6, "members of an ensemble", "5", "num_members"),
    Row(7, "random_hold keeps a member, steps", "not used", "hold"),
    Row(7, "mean_hysteresis: margin", "not used", "margin"),
    Row(8, "windows, steps", "1, 10", "windows"),
    Row(8, "window of alarms and of the learned score", "not used", "alarm_window"),
    Row(8, "an announcement leads by, steps", "not used", "min_lead"),
    Row(8, "a helper takes over for, steps", "not used", "help_steps"),
)

_DERIVED: Final = {
    "env steps": lambda study: study.dqn.num_updates * study.dqn.steps_per_update,
    "blocker transitions": lambda study: study.danger.num_envs * study.danger.num_steps,
    "ppo steps": lambda study: study.ppo.num_iterations * study.ppo.num_envs * study.ppo.num_steps,
    "ppo batch": lambda study: f"{study.ppo.num_envs} x {study.ppo.num_steps}",
}


def pages(root: Path = ROOT) -> dict[Path, str]:
    """What every made or filled page should hold now."""
    readme, differences = root / "README.md", root / "docs" / "differences.md"
    coinrun, study = root / "docs" / "coinrun.md", root / "docs" / "coinrun-study.md"
    results = root / "docs" / "results.md"
    told = fill(results.read_text(), "findings", findings_block(root))
    told = fill(told, "figures", figures_block(root))
    told = fill(told, "together", together_block(root))
    return {
        root / "docs" / "lavagrid.md": env_page(LavaGrid),
        coinrun: fill(coinrun.read_text(), "page", env_page(CoinRun)),
        differences: fill(
            differences.read_text(), "settings", settings_block(ROWS, LavaGridStudy(), PRESETS)
        ),
        study: fill(
            study.read_text(),
            "coinrun-settings",
            settings_block(COINRUN_ROWS, coinrun_study.CoinRunStudy(), coinrun_study.PRESETS),
        ),
        results: fill(told, "coinrun", coinrun_block(root)),
        readme: fill(readme.read_text(), "findings", headlines_block(root)),
    }


def fill(text: str, name: str, content: str) -> str:
    """The text with `content` between the markers of that name.

    Raises:
      ValueError: the text does not hold exactly one such pair of markers.
    """
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if (text.count(start), text.count(end)) != (1, 1) or text.index(start) > text.index(end):
        raise ValueError(f"a page must hold one pair of markers {start} and {end}")
    before, _, rest = text.partition(start)
    after = rest.partition(end)[2]
    return f"{before}{start}\n{content}\n{end}{after}"


def helps(kind: type) -> dict[str, str]:
    """The comment beside each field of a dataclass, its parents' fields included."""
    found: dict[str, str] = {}
    for parent in reversed(kind.__mro__[:-1]):
        source = textwrap.dedent(inspect.getsource(parent))
        comments = {
            token.start[0]: token.string.lstrip("# ")
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        }
        body = ast.parse(source).body[0]
        assert isinstance(body, ast.ClassDef)
        for node in body.body:
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
                continue
            if node.end_lineno in comments:
                found[node.target.id] = comments[node.end_lineno]
    return found


def env_page(kind: type[LavaGrid] | type[CoinRun]) -> str:
    """An environment's page: its docstring, its settings and its first test level."""
    told = helps(kind)
    rows = [
        f"| `{field.name}` | {_shown(field.default)} | {told[field.name]} |"
        for field in dataclasses.fields(kind)
    ]
    test = split(kind(), num_train=0, num_validation=0, num_test=1).test
    level = jax.tree.map(lambda leaf: leaf[0], test.levels)
    facts = ", ".join(f"{name} {fact[0]}" for name, fact in test.facts.items())
    example, marks = EXAMPLES[kind.name]
    lines = [
        MADE,
        f"# {kind.__name__}",
        "",
        inspect.getdoc(kind) or "",
        "",
        "## Settings",
        "",
        "| setting | default | meaning |",
        "|---|---|---|",
        *rows,
        "",
        "## Making one",
        "",
        "```python",
        f'env = hotoven.make("{kind.name}", {example})',
        f'env = gymnasium.make("{REGISTERED[kind.name]}", {example})',
        "```",
        "",
        f"The first test level of the default settings, id {test.ids[0]}. Its facts: {facts}.",
        marks,
        "",
        "```text",
        kind().text(level),
        "```",
        "",
    ]
    return "\n".join(lines)


def settings_block(rows: Sequence[Row], default: Any, presets: Mapping[str, Any]) -> str:
    """The paper's values beside ours, as a table."""
    studies = {"default": default, **presets}
    names = " | ".join(studies)
    lines = [f"| no. | what | paper | {names} |", "|---" * (3 + len(studies)) + "|"]
    for row in rows:
        ours = " | ".join(_shown(_value(study, row.setting)) for study in studies.values())
        lines.append(f"| {row.number} | {row.words} | {row.paper} | {ours} |")
    return "\n".join(lines)


def headlines_block(root: Path) -> str:
    """The findings that are told first, of every stored run that has any, as tables."""
    parts = []
    for name, (command, claims) in HEADLINES.items():
        folder = root / "results" / name
        if not (folder / "findings.json").exists():
            continue
        if name == TOGETHER[0] and len(_together(root)) == len(TOGETHER):
            parts.append(_told_together(root, claims))
            continue
        found = {finding.claim: finding for finding in _findings(folder)}
        table = summary([found[claim] for claim in claims])
        parts.append(
            f"[results/{name}](results/{name}), from `hotoven reproduce {command}`"
            f"{_made_on(folder)}:\n\n{table}"
        )
    return "\n\n".join(parts) or "No findings are stored yet. `make reproduce` computes them."


def together_block(root: Path) -> str:
    """What the stored studies of `TOGETHER` found, together and each."""
    there = _together(root)
    if len(there) < 2:
        return "Fewer than two such studies are stored."
    found, told = _combined(there)
    names = [f"[results/{path.name}](../results/{path.name})" for path in there]
    number = "all" if len(there) == len(TOGETHER) else len(there)
    stored = f"{len(TOGETHER)} were planned, {number} are stored"
    return f"{stored}. `{_combining(there)}` prints:\n\n{combined.to_markdown(found, names, told)}"


def _told_together(root: Path, claims: Sequence[str]) -> str:
    """Some claims of the README, from the stored studies of `TOGETHER`."""
    there = _together(root)
    found, told = _combined(there)
    some = [one for one in found if one.claim in claims]
    links = ", ".join(f"[{path.name}](results/{path.name})" for path in there)
    return (
        f"{links}: one study made {len(there)} times, from `hotoven reproduce "
        f"{HEADLINES[TOGETHER[0]][0]}` with `--seed` and `--level-seed` 0 to {len(there) - 1}"
        f"{_made_on(*there)}; together, from `{_combining(there)}`:\n\n"
        f"{combined.summary(some, told)}"
    )


def _together(root: Path) -> list[Path]:
    folders = [root / "results" / name for name in TOGETHER]
    return [folder for folder in folders if (folder / "findings.json").exists()]


def _combined(folders: Sequence[Path]) -> tuple[list[combined.Combined], str]:
    settings = [read_about(folder)["config"]["settings"] for folder in folders]
    return combined.combine([_findings(folder) for folder in folders]), combined.basis(settings)


def _combining(folders: Sequence[Path]) -> str:
    return "hotoven combine " + " ".join(f"results/{folder.name}" for folder in folders)


def figures_block(root: Path) -> str:
    """The figures of the quick run as pictures, those that are there, and rates of the full one."""
    quick, full = (root / "results" / preset / "figures" for preset in PRESETS)
    pictures = [(quick / f"{name}.png", words) for name, words in FIGURES.items()]
    pictures += [(path, "An agent on unseen levels") for path in sorted(quick.glob("*.gif"))]
    pictures += [
        (full / f"{name}.png", FIGURES[name]) for name in ("generalization", "calibration")
    ]
    there = [
        f"![{words}](../{path.relative_to(root).as_posix()})"
        + (_exception(quick.parent) if path.name == "ensemble.png" else "")
        + (_PICKED if path.name == "blocker.png" else "")
        + ("\n\n*The same of preset `full`.*" if path.parent == full else "")
        for path, words in pictures
        if path.exists()
    ]
    return "\n\n".join(there) or "No figures are stored yet. `make reproduce` draws them."


def findings_block(root: Path) -> str:
    """The findings of every preset that has any in results/, as tables."""
    parts = []
    for preset in PRESETS:
        folder = root / "results" / preset
        if not (folder / "findings.json").exists():
            continue
        table = summary(_findings(folder))
        link = f"[results/{preset}](../results/{preset})"
        parts.append(f"Preset `{preset}`, stored in {link}{_made_on(folder)}.\n\n{table}")
        if (folder / "rates.parquet").exists():
            parts.append(beside_findings(read_table(folder / "rates.parquet").to_pylist()))
    return "\n\n".join(parts) or "No findings are stored yet. `make reproduce` computes them."


def coinrun_block(root: Path) -> str:
    """The findings of the stored CoinRun runs, with what their agents reached in training."""
    parts = []
    for name, (words, figures) in COINRUN_RUNS.items():
        folder = root / "results" / name
        if not (folder / "findings.json").exists():
            continue
        table = summary(_findings(folder))
        link = f"[results/{folder.name}](../results/{folder.name})"
        parts.append(f"{words}, stored in {link}{_made_on(folder)}.\n\n{table}")
        rates = read_table(folder / "rates.parquet").to_pylist()
        ppo = json.loads((folder / "run.json").read_text())["config"]["settings"]["ppo"]
        num_steps = ppo["num_iterations"] * ppo["num_envs"] * ppo["num_steps"]
        parts.append(beside_coinrun(rates, num_steps))
        parts += [
            f"![{COINRUN_FIGURES[figure]}](../{path.relative_to(root).as_posix()})"
            for figure in figures
            for suffix in ("png", "gif")
            if (path := folder / "figures" / f"{figure}.{suffix}").exists()
        ]
    return "\n\n".join(parts) or "No findings are stored yet: `hotoven reproduce coinrun`."


def beside_coinrun(rates: Sequence[Mapping[str, Any]], num_steps: int) -> str:
    """How well the agents learned, in a sentence per number of training levels."""
    rows = {(row["set"], row["num_train_levels"], row["method"]): row for row in rates}
    sentences = [f"After {num_steps / 1e6:.1f} million steps each:"]
    for size in sorted({row["num_train_levels"] for row in rates}):
        train, test = (rows[name, size, "single"] for name in ("train", "test"))
        mean = rows["test", size, "mean"]
        sentences.append(
            f"single agents trained on {size:,} levels solve {rate_text(train, 'solved')} of those "
            f"and {rate_text(test, 'solved')} of unseen ones, and die on "
            f"{rate_text(test, 'catastrophe')} of unseen ones; the mean of their policies dies on "
            f"{rate_text(mean, 'catastrophe')}."
        )
    return "\n- ".join(sentences)


def beside_findings(rates: Sequence[Mapping[str, Any]]) -> str:
    """What a reader of the findings should know besides, in sentences made from rates.parquet."""
    rows = {(row["set"], row["num_train_levels"], row["method"]): row for row in rates}
    sizes = sorted({row["num_train_levels"] for row in rates})
    trained = {size: rows["train", size, "single"] for size in sizes}
    solved = ", ".join(
        f"{rate_text(row, 'solved')} of {_played(row['num_levels'], size)}"
        for size, row in trained.items()
    )
    imperfect = [
        f"{size:,}" for size, row in trained.items() if row["solved_rate"] < PERFECT_SOLVED
    ]
    perfect = (
        f"With {' and '.join(imperfect)} it is not perfect even on what it was trained on "
        f"(at least {PERFECT_SOLVED:.0%}), so what it fails to solve of the unseen levels is not "
        "all poor generalization."
        if imperfect
        else f"It is perfect on what it was trained on (at least {PERFECT_SOLVED:.0%})."
    )
    fewer = [
        rows["test", size, "mean"]["timeout_rate"] < rows["test", size, "single"]["timeout_rate"]
        for size in sizes
    ]
    mean, single = (rows["test", sizes[-1], method] for method in ("mean", "single"))
    return (
        f"A single agent solves, of its own training levels: {solved}. {perfect}\n\n"
        f"The mean times out on fewer unseen levels than a single agent at {sum(fewer)} of "
        f"{len(sizes)} numbers of training levels; a level that times out is not lost to lava. "
        f"With {sizes[-1]:,} training levels the mean solves {rate_text(mean, 'solved')} of the "
        f"unseen levels and dies on {rate_text(mean, 'catastrophe')}, a single agent "
        f"{rate_text(single, 'solved')} and {rate_text(single, 'catastrophe')}.\n\n"
        f"{_avoided(rows, sizes[0])}"
    )


def _played(num_levels: int, size: int) -> str:
    """The training levels that a rate is of: "5", or "the first 1,000 of 10,000"."""
    return f"{size:,}" if num_levels == size else f"the first {num_levels:,} of {size:,}"


def _avoided(rows: Mapping[tuple[str, int, str], Mapping[str, Any]], size: int) -> str:
    """What becomes of the levels that a blocker around a single agent does not lose."""
    alone, blocked = (rows["test", size, method] for method in ("single", "single+blocker"))
    words = [
        f"{what} from {rate_text(alone, outcome)} to {rate_text(blocked, outcome)}"
        for what, outcome in (
            ("levels lost", "catastrophe"),
            ("levels solved", "solved"),
            ("time-outs", "timeout"),
        )
    ]
    return (
        f"With {size:,} training levels a blocker takes a single agent's {words[0]}, {words[1]} "
        f"and {words[2]}."
    )


def rate_text(row: Mapping[str, Any], outcome: str) -> str:
    """A rate of rates.parquet in % with its interval, e.g. "12.3% [10.0, 15.0]"."""
    rate, low, high = (
        number_text(100 * row[f"{outcome}_{part}"]) for part in ("rate", "low", "high")
    )
    return f"{rate}% [{low}, {high}]"


def main(arguments: Sequence[str]) -> int:
    """Writes or checks the pages; returns the exit code."""
    if list(arguments) not in ([], ["--check"]):
        print(f"the only option is --check, got {' '.join(arguments)}", file=sys.stderr)
        return 2
    stale = [
        path for path, text in pages().items() if not path.exists() or path.read_text() != text
    ]
    for path in stale:
        if arguments:
            print(f"stale: {path.relative_to(ROOT)}; run python docs/make_pages.py")
        else:
            path.write_text(pages()[path])
            print(f"written: {path.relative_to(ROOT)}")
    return 1 if arguments and stale else 0


_PICKED: Final = (
    "\n\n*This state was picked because the blocker is above its threshold in it. How often it is, "
    "the next picture and the findings say.*"
)


def _exception(folder: Path) -> str:
    """A caption for the picture of a state in which the mean helps: whether it does in general."""
    if not (folder / "findings.json").exists():
        return ""
    claims = [finding for finding in _findings(folder) if finding.claim == "mean is safer"]
    return "".join(
        "\n\n*This state was picked because the mean is safe in it and some members are not. The "
        f'claim "{finding.statement}" is **{finding.verdict}** over all unseen levels: '
        f"{spread_text(finding)}.*"
        for finding in claims
    )


def _findings(folder: Path) -> list[Finding]:
    return read_findings(folder / "findings.json")


def _made_on(*folders: Path) -> str:
    """What the runs' records say of their machines; empty where there is no record."""
    told = dict.fromkeys(filter(None, map(_machines, folders)))
    return f", made on {', others on '.join(told)}" if told else ""


def _machines(folder: Path) -> str:
    record = folder / "run.json"
    if not record.exists():
        return ""
    machines = _history(json.loads(record.read_text()))
    # a machine again with other versions is named once
    return ", then on ".join(dict.fromkeys(_machine(one["hardware"]) for one in machines))


def _history(about: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What tells of a machine in a run's record, that of agents from another run first."""
    before = _history(about["agents_of"]) if "agents_of" in about else []
    return [*before, about, *about.get("continued_with", [])]


def _machine(hardware: Mapping[str, Any]) -> str:
    # the cores are the devices where nothing else is
    devices = counted([name for name in hardware["devices"] if not name.startswith("cpu")])
    cores = f"{hardware['cores']} cores of {hardware['processor']}"
    return f"{cores} with {devices}" if devices else cores


def _value(study: Any, setting: str) -> Any:
    if setting in _DERIVED:
        return _DERIVED[setting](study)
    value: Any = study
    for name in setting.split("."):
        value = getattr(value, name)
    return value


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and value >= 10_000:
        return f"{value:,}"
    return re.sub(r"e-0?", "e-", f"{value}") if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
