"""From recorded steps to what they say about knowing in time: tables of AUC, alarms and promises.

Reads `steps.parquet` (one row per step of a recorded episode) and returns tables. How scores, ROC
curves, alarms and promises are defined is in `scores`, `prediction`, `roc_bootstrap`, `alarms` and
`promise`; here they are applied to every number of training levels, way of acting and window.

Axes: L levels, T steps.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hotoven.evaluation import scores
from hotoven.evaluation.alarms import alarm_table, peak_thresholds
from hotoven.evaluation.bootstrap import two_level
from hotoven.evaluation.prediction import UndefinedROC, auc, labels, valid_steps
from hotoven.evaluation.promise import (
    catastrophe_peaks,
    conformal_threshold,
    measured,
    tested_threshold,
)
from hotoven.evaluation.roc_bootstrap import (
    Samples,
    auc_samples,
    difference,
    interval,
    precision_samples,
    step_bootstrap,
)
from hotoven.evaluation.scores import MEAN_ONLY, WITH_STD, Coefficients

# Scores in the order of reports. "best pair" is U with coefficients chosen on validation levels.
SCORES: Final = (
    "mean",
    "mean and std",
    "best pair",
    "std",
    "entropy",
    "margin",
    "disagreement",
    "blocker",
    "head",
    "random",
    "oracle",
)
DRAWN: Final = ("mean", "mean and std", "best pair")  # scores whose curves are kept
PANELS: Final = (1, 10)  # windows of the post's panels
# What steps.parquet holds of each step; of other sets than the test set the first two only.
STEP_SCORES: Final = ("mu", "sigma", "entropy", "margin", "disagreement", "blocker", "head")
NUM_ANGLES: Final = 72  # directions of (alpha, beta) that are tried
NUM_THRESHOLDS: Final = 60  # of a table of alarms


class Recorded(NamedTuple):
    """The recorded episodes of one way of acting on one set; columns [L, T], 0 after the end."""

    num_steps: np.ndarray  # int64[L]
    died: np.ndarray  # bool[L]
    columns: Mapping[str, np.ndarray]

    @property
    def valid(self) -> np.ndarray:
        """bool[L, T]: which steps were played."""
        return valid_steps(self.num_steps, next(iter(self.columns.values())).shape[1])


def read_recorded(
    steps: pa.Table,
    set: str,
    num_train_levels: int,
    acting: str,
    max_steps: int,
    columns: Sequence[str],
) -> Recorded:
    """The episodes as arrays, in order of level_index.

    Raises:
      ValueError: there is no such episode, or the steps of one do not run from 0 to its end.
    """
    chosen = (
        (pc.field("set") == set)
        & (pc.field("num_train_levels") == num_train_levels)
        & (pc.field("method") == acting)
    )
    rows = steps.filter(chosen).sort_by([("level_index", "ascending"), ("step", "ascending")])
    if not rows.num_rows:
        raise ValueError(
            f"no step of {acting!r} trained on {num_train_levels} levels, {set} set, was recorded"
        )
    _, first, num_steps = np.unique(
        rows["level_index"].to_numpy(), return_index=True, return_counts=True
    )
    step = rows["step"].to_numpy()
    level = np.repeat(np.arange(len(first)), num_steps)
    outcome = rows["outcome"].to_numpy()[first + num_steps - 1]
    whole = (step == np.arange(len(step)) - first[level]).all() and num_steps.max() <= max_steps
    if not whole or (outcome == "running").any():
        raise ValueError(
            f"the steps of {acting!r} trained on {num_train_levels} levels, {set} set, must run "
            "from 0 to the end of each episode"
        )
    grids = {}
    for name in columns:
        grid = np.zeros((len(first), max_steps), np.float32)
        grid[level, step] = rows[name].to_numpy()
        grids[name] = grid
    return Recorded(num_steps, outcome == "catastrophe", grids)


def best_coefficients(
    mu: np.ndarray, sigma: np.ndarray, positive: np.ndarray
) -> tuple[Coefficients, float] | None:
    """The pair with the highest AUC on the given steps [N], and that AUC; None: it has no AUC.

    All directions of (alpha, beta) are tried, 5 degrees apart, after both have been divided by
    their standard deviations. Only the direction matters to a ROC.
    """
    spread = [max(float(np.std(value)), 1e-12) for value in (mu, sigma)]
    found = []
    for angle in np.arange(NUM_ANGLES) * (2 * np.pi / NUM_ANGLES):
        pair = Coefficients(-np.cos(angle) / spread[0], np.sin(angle) / spread[1])
        try:
            found.append((auc(scores.score(mu, sigma, *pair), positive), pair))
        except UndefinedROC:
            return None
    area, pair = max(found, key=lambda one: one[0])
    # scaled to an alpha of -1 where that can be: easier to read, and the same ROC
    if pair.alpha < -1e-9:
        pair = Coefficients(-1.0, pair.beta / -pair.alpha)
    return Coefficients(*map(float, pair)), area


def coefficients_of(
    chosen: Sequence[Mapping[str, Any]], size: int, acting: str, window: int
) -> Coefficients | None:
    """The pair that was chosen on validation levels; None where none could be."""
    for row in chosen:
        if (row["num_train_levels"], row["acting"], row["window"]) == (size, acting, window):
            return Coefficients(row["alpha"], row["beta"])
    return None


def score_of(
    name: str, recorded: Recorded, pair: Coefficients | None, who: str = ""
) -> np.ndarray | None:
    """float[L, T]: a score of SCORES of recorded steps; `pair` is that of "best pair".

    None where there is no such score: no pair was chosen, or nothing could be learned. A random
    score differs with `who` was recorded.
    """
    columns = recorded.columns
    given = {"mean": MEAN_ONLY, "mean and std": WITH_STD, "best pair": pair}
    if name in given:
        pair = given[name]
        return None if pair is None else scores.score(columns["mu"], columns["sigma"], *pair)
    shape = columns["mu"].shape
    if name == "random":
        return scores.random(shape, zlib.crc32(who.encode()))
    if name == "oracle":
        return scores.oracle(recorded.num_steps, recorded.died, shape[1])
    score = columns["sigma" if name == "std" else name]
    return None if np.isnan(score).any() else score


_Key = tuple[int, str, str, int]  # number of training levels, way of acting, score, window


class _Cell(NamedTuple):
    """One score at one window, with its samples of levels."""

    row: dict[str, Any]
    curve: list[dict[str, Any]]
    auc: Samples
    precision: Samples  # average precision


def predictions(
    steps: pa.Table,
    chosen: Sequence[Mapping[str, Any]],
    sizes: Sequence[int],
    max_steps: int,
    actings: Sequence[str],
    windows: Sequence[int],
) -> dict[str, pa.Table]:
    """Tables "predictions" (AUC and average precision of every score), "roc" and "comparisons".

    Where nothing can be told apart (no catastrophe, or one in every step) there is no row.
    """
    cells: dict[tuple[int, str, str, int], _Cell] = {}
    for size in sizes:
        for acting in actings:
            recorded = read_recorded(steps, "test", size, acting, max_steps, STEP_SCORES)
            for window in windows:
                pair = coefficients_of(chosen, size, acting, window)
                for name in SCORES:
                    score = score_of(name, recorded, pair, f"{size}/{acting}")
                    cell = score is not None and _cell(size, acting, name, window, recorded, score)
                    if cell:
                        cells[size, acting, name, window] = cell
    rows = [cell.row for cell in cells.values()]
    curves = [point for cell in cells.values() for point in cell.curve]
    areas = {key: cell.auc for key, cell in cells.items()}
    precisions = {key: cell.precision for key, cell in cells.items()}
    return {
        "predictions": pa.Table.from_pylist(rows, _PREDICTIONS),
        "roc": pa.Table.from_pylist(curves, _ROC),
        "comparisons": pa.Table.from_pylist(
            [
                *_comparisons(areas, sizes, windows),
                *(_comparison("gain of precision", *gain) for gain in _gains(precisions)),
            ],
            _COMPARISONS,
        ),
    }


def _cell(
    size: int, acting: str, name: str, window: int, recorded: Recorded, score: np.ndarray
) -> _Cell | None:
    valid = recorded.valid
    positive = labels(recorded.num_steps, recorded.died, valid.shape[1], window)
    where = {"num_train_levels": size, "acting": acting, "score": name, "window": window}
    try:
        area = auc_samples(score, positive, valid)
        precisions = precision_samples(score, positive, valid)
        post = step_bootstrap(score[valid], positive[valid])
    except UndefinedROC:
        return None
    bounds, precision = interval(area), interval(precisions)
    row = where | {
        "num_steps": int(valid.sum()),
        "num_positive": int(positive.sum()),
        "base_rate": float(positive.sum() / valid.sum()),
        "num_levels": bounds.num_levels,
        "num_positive_levels": bounds.num_positive_levels,
        "auc": bounds.estimate,
        "auc_low": bounds.low,
        "auc_high": bounds.high,
        "post_auc": post.auc_mean,
        "post_std": post.auc_std,
        "average_precision": precision.estimate,
        "average_precision_low": precision.low,
        "average_precision_high": precision.high,
    }
    curve = []
    if name in DRAWN and window in PANELS:
        points = zip(post.false_positive_rate, post.mean, post.std, strict=True)
        curve = [
            where
            | {"false_positive_rate": float(x), "true_positive_rate": float(y), "std": float(s)}
            for x, y, s in points
        ]
    return _Cell(row, curve, area, precisions)


def _comparisons(
    areas: Mapping[_Key, Samples], sizes: Sequence[int], windows: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Differences of AUC on the same levels, as the post's claims ask for them.

    "gain": a score's AUC minus that of the mean alone. "window": AUC at the first window minus that
    at a later one. "gain by window" and "gain by size": the gain minus that at a later window, or
    at a larger number of training levels.
    """
    gains = {}
    for key, size, window, gain in _gains(areas):
        gains[key] = gain
        yield _comparison("gain", key, size, window, gain)
    for kind, values in (("window", areas), ("gain by window", gains)):
        for (size, acting, name, window), value in values.items():
            first = values.get((size, acting, name, windows[0]))
            if window != windows[0] and name in DRAWN and first is not None:
                key = (size, acting, name, windows[0])
                yield _comparison(kind, key, size, window, difference(first, value))
    for (size, acting, name, window), value in gains.items():
        first = gains.get((sizes[0], acting, name, window))
        if size != sizes[0] and first is not None:
            key = (sizes[0], acting, name, window)
            yield _comparison("gain by size", key, size, window, difference(first, value))


def _gains(found: Mapping[_Key, Samples]) -> Iterator[tuple[_Key, int, int, Samples]]:
    """What the standard deviation adds to the mean alone, as the arguments of `_comparison`."""
    for key, value in found.items():
        size, acting, name, window = key
        base = found.get((size, acting, "mean", window))
        if name in ("mean and std", "best pair") and base is not None:
            yield key, size, window, difference(value, base)


def _comparison(
    kind: str,
    key: _Key,
    other_size: int,
    other_window: int,
    samples: Samples,
) -> dict[str, Any]:
    size, acting, name, window = key
    bounds = interval(samples)
    return {
        "comparison": kind,
        "num_train_levels": size,
        "acting": acting,
        "score": name,
        "window": window,
        "other_num_train_levels": other_size,
        "other_window": other_window,
        "difference": bounds.estimate,
        "low": bounds.low,
        "high": bounds.high,
        "num_levels": bounds.num_levels,
    }


def alarm_rows(
    steps: pa.Table,
    chosen: Sequence[Mapping[str, Any]],
    sizes: Sequence[int],
    max_steps: int,
    actings: Sequence[str],
    window: int,
    min_lead: int,
) -> pa.Table:
    """What alarms at thresholds of each score would have done on the test set."""
    rows: list[dict[str, Any]] = []
    for size in sizes:
        for acting in actings:
            recorded = read_recorded(steps, "test", size, acting, max_steps, STEP_SCORES)
            pair = coefficients_of(chosen, size, acting, window)
            for name in SCORES:
                score = score_of(name, recorded, pair, f"{size}/{acting}")
                if score is None:
                    continue
                thresholds = peak_thresholds(score, recorded.num_steps, NUM_THRESHOLDS)
                table = alarm_table(score, recorded.num_steps, recorded.died, thresholds, min_lead)
                where = {"num_train_levels": size, "acting": acting, "score": name}
                where |= {"min_lead": min_lead, "num_levels": len(recorded.num_steps)}
                rows += [
                    where
                    | {
                        field: _plain(value)
                        for field, value in zip(table._fields, values, strict=True)
                    }
                    for values in zip(*table, strict=True)
                ]
    return pa.Table.from_pylist(rows, _ALARMS)


def promise_rows(
    steps: pa.Table,
    chosen: Sequence[Mapping[str, Any]],
    sizes: Sequence[int],
    max_steps: int,
    acting: str,
    window: int,
    min_lead: int,
    promised: Sequence[float],
    delta: float,
) -> pa.Table:
    """Thresholds chosen on calibration levels, and the share left unannounced on other levels.

    Rows for the test levels, which are exchangeable with the calibration levels, and for the
    shifted ones, which are not.
    """
    rows: list[dict[str, Any]] = []
    for size in sizes:
        pair = coefficients_of(chosen, size, acting, window)
        for name in DRAWN:
            peaks = {}
            false_alarms = {}
            for set in ("calibration", "test", "shifted"):
                recorded = read_recorded(steps, set, size, acting, max_steps, ("mu", "sigma"))
                score = score_of(name, recorded, pair)
                if score is None:
                    break
                peaks[set] = catastrophe_peaks(score, recorded.num_steps, recorded.died, min_lead)
                highest = np.where(recorded.valid, score, -np.inf).max(axis=1)
                false_alarms[set] = highest[~recorded.died]
            if len(peaks) < 3:
                continue
            for share in promised:
                made = {
                    "conformal": conformal_threshold(peaks["calibration"], share),
                    "tested": tested_threshold(peaks["calibration"], share, delta),
                }
                for rule, promise in made.items():
                    for set in ("test", "shifted"):
                        if not peaks[set].size:
                            continue
                        seen = measured(peaks[set], promise.threshold)
                        others = false_alarms[set] > promise.threshold
                        rows.append(
                            {
                                "num_train_levels": size,
                                "acting": acting,
                                "score": name,
                                "rule": rule,
                                "promised": share,
                                "delta": delta if rule == "tested" else None,
                                "min_lead": min_lead,
                                "threshold": promise.threshold,
                                "vacuous": promise.vacuous,
                                "num_calibration": promise.num_catastrophes,
                                "set": set,
                                "num_catastrophes": seen.num_catastrophes,
                                "share": seen.share,
                                "low": seen.low,
                                "high": seen.high,
                                "false_alarm_share": float(others.mean()) if others.size else None,
                            }
                        )
    return pa.Table.from_pylist(rows, _PROMISES)


def help_rates(episodes: pa.Table) -> pa.Table:
    """What each helper was worth at each threshold: requests made, catastrophes avoided.

    From a row per episode played with a helper. An episode is compared with the same level at a
    threshold of infinity, where nobody is ever asked; those episodes are a row of their own.

    Raises:
      ValueError: a helper was not played on the same levels at every threshold, infinity included.
    """
    columns = {name: episodes[name].to_numpy() for name in _HELP_COLUMNS}
    rows = []
    for size in np.unique(columns["num_train_levels"]).tolist():
        for helper in dict.fromkeys(columns["helper"].tolist()):
            own = (columns["num_train_levels"] == size) & (columns["helper"] == helper)
            grids = {}
            for threshold in np.unique(columns["threshold"][own]).tolist():
                index = np.flatnonzero(own & (columns["threshold"] == threshold))
                order = index[np.argsort(columns["level_index"][index], kind="stable")]
                grids[threshold] = {name: column[order] for name, column in columns.items()}
            alone = grids.get(np.inf)
            if alone is None or not all(
                np.array_equal(alone["level_index"], grid["level_index"]) for grid in grids.values()
            ):
                raise ValueError(
                    f"episodes of the helper {helper!r}, {size} training levels, must be of the "
                    "same levels at every threshold, infinity included"
                )
            lost = (alone["outcome"] == "catastrophe").astype(float)
            for threshold, grid in grids.items():
                died = (grid["outcome"] == "catastrophe").astype(float)
                rate = two_level(died[None], bounds=(0.0, 1.0))
                avoided = two_level((lost - died)[None], bounds=(-1.0, 1.0))
                rows.append(
                    {
                        "num_train_levels": size,
                        "helper": helper,
                        "threshold": threshold,
                        "num_levels": len(died),
                        "requests_per_episode": float(grid["num_requests"].mean()),
                        "helped_share": float(grid["num_helped"].sum() / grid["length"].sum()),
                        "catastrophe_rate": rate.estimate,
                        "catastrophe_low": rate.low,
                        "catastrophe_high": rate.high,
                        "solved_rate": float((grid["outcome"] == "solved").mean()),
                        "avoided": avoided.estimate,
                        "avoided_low": avoided.low,
                        "avoided_high": avoided.high,
                    }
                )
    return pa.Table.from_pylist(rows, _HELP)


def _plain(value: Any) -> Any:
    """A number as Python's; NaN, which is a number that does not exist, as None."""
    value = value.item()
    return None if isinstance(value, float) and np.isnan(value) else value


_CELL: Final = [("num_train_levels", pa.int32()), ("acting", pa.string()), ("score", pa.string())]
_PREDICTIONS: Final = pa.schema(
    [
        *_CELL,
        ("window", pa.int32()),  # steps
        ("num_steps", pa.int64()),
        ("num_positive", pa.int64()),  # steps with a catastrophe within the window
        ("base_rate", pa.float64()),  # what a random score has for average precision
        ("num_levels", pa.int32()),
        ("num_positive_levels", pa.int32()),
        *((name, pa.float64()) for name in ("auc", "auc_low", "auc_high")),  # levels resampled
        *((name, pa.float64()) for name in ("post_auc", "post_std")),  # ten samples of steps
        ("average_precision", pa.float64()),
        ("average_precision_low", pa.float64()),
        ("average_precision_high", pa.float64()),
    ]
)
_ROC: Final = pa.schema(
    [
        *_CELL,
        ("window", pa.int32()),
        ("false_positive_rate", pa.float64()),
        ("true_positive_rate", pa.float64()),  # mean of ten samples of steps
        ("std", pa.float64()),
    ]
)
_COMPARISONS: Final = pa.schema(
    [
        # gain, window, gain by window, gain by size: of AUC; gain of precision: of the average one
        ("comparison", pa.string()),
        *_CELL,
        ("window", pa.int32()),
        ("other_num_train_levels", pa.int32()),
        ("other_window", pa.int32()),
        *((name, pa.float64()) for name in ("difference", "low", "high")),
        ("num_levels", pa.int32()),
    ]
)
_ALARMS: Final = pa.schema(
    [
        *_CELL,
        ("min_lead", pa.int32()),
        ("num_levels", pa.int32()),
        ("thresholds", pa.float64()),
        *(
            (name, pa.int64())
            for name in ("num_announced", "num_unannounced", "num_false", "num_alarms")
        ),
        *(
            (name, pa.float64())
            for name in ("announced_share", "false_share", "median_lead", "announced_per_100")
        ),
    ]
)
_HELP_COLUMNS: Final = (
    *("num_train_levels", "helper", "threshold", "level_index", "outcome", "length"),
    *("num_requests", "num_helped"),
)
_HELP: Final = pa.schema(
    [
        ("num_train_levels", pa.int32()),
        ("helper", pa.string()),
        ("threshold", pa.float64()),  # infinity: nobody is asked
        ("num_levels", pa.int32()),
        ("requests_per_episode", pa.float64()),
        ("helped_share", pa.float64()),  # of the steps
        *((f"catastrophe_{part}", pa.float64()) for part in ("rate", "low", "high")),
        ("solved_rate", pa.float64()),
        # share of the levels that the agent alone dies on and the helped one does not, less those
        # of which the opposite is true
        *((name, pa.float64()) for name in ("avoided", "avoided_low", "avoided_high")),
    ]
)
_PROMISES: Final = pa.schema(
    [
        *_CELL,
        ("rule", pa.string()),  # conformal, or tested: learn then test
        ("promised", pa.float64()),  # share of catastrophes left unannounced, at most
        ("delta", pa.float64()),
        ("min_lead", pa.int32()),  # steps
        ("threshold", pa.float64()),
        ("vacuous", pa.bool_()),
        ("num_calibration", pa.int32()),  # catastrophes that the threshold was chosen on
        ("set", pa.string()),  # test: exchangeable with them; shifted: not
        ("num_catastrophes", pa.int32()),
        *((name, pa.float64()) for name in ("share", "low", "high")),  # measured
        ("false_alarm_share", pa.float64()),  # of the episodes without a catastrophe
    ]
)
