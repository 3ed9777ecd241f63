"""A run's folder: one writer, never silently overwritten, whole or not there.

`run.json` holds the full configuration, the versions, the machine and the level hashes, and says
whether the run is finished; where it went on with other versions, on another machine or with more
replications, those too. What a study has already written tells a resumed run where to go on.
"""

import fcntl
import os
import platform
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import jax

from hotoven.devices import cache_mib, num_cores
from hotoven.storage import read_json, write_json

PACKAGES = ("hotoven", "jax", "jaxlib", "numpy", "optax", "pyarrow", "safetensors")

# The setting of a study that may be larger when a finished run is resumed: what is there holds.
GROWS = "num_replications"

# What a run writes into its folder; anything else is somebody's own.
ENTRIES = frozenset(
    (
        *("run.json", "levels", "checkpoints", "agents", "parts", "calibration.json"),
        *(f"{name}.parquet" for name in ("episodes", "steps", "rates", "agent_rates")),
        *("differences.parquet", "findings.json", "findings.md", "figures", "chosen.json"),
        *(f"{name}.parquet" for name in ("coherence", "help", "help_rates", "predictions", "roc")),
        *(f"{name}.parquet" for name in ("comparisons", "alarms", "promises", "members")),
        *(f"{name}.parquet" for name in ("interventions", "plays")),  # of hotoven watch
        "report.html",
    )
)


class RunError(ValueError):
    """A run folder cannot be used as asked; the message says why and what can be done."""


class Run:
    """An open run folder, locked against other writers until it is closed.

    Use `Run.open`, best as a context manager. `grown` says what has grown since the run was
    finished, as "name was a, is b", or nothing; the record says so from `reopen` on.
    """

    def __init__(self, path: Path, about: dict[str, Any], grown: list[str], lock: int) -> None:
        self.path = path
        self.about = about
        self.grown = grown
        self._lock = lock

    @classmethod
    def open(
        cls,
        path: Path,
        config: dict[str, Any],
        resume: bool = False,
        force: bool = False,
        defaults: dict[str, Any] | None = None,
    ) -> Self:
        """The folder at `path`, new, or to be continued.

        A setting that the folder's record lacks, because it is younger than the run, counts as what
        `defaults` (as nested as `config`) says: a new setting's default is what was done before.
        A finished run may be resumed with more of what `GROWS` names.

        Raises:
          RunError: another process writes it; it holds a finished run and `force` is not set; it
            holds an unfinished one and neither `resume` nor `force` is set; it is resumed with
            other settings; or it holds files that are not a run's. With `force` a damaged record
            is no obstacle where all that is in the folder is named as a run names it.
        """
        if path.exists() and not path.is_dir():
            raise RunError(f"{path} is a file; a run needs a folder")
        if resume and force:
            raise RunError("--resume goes on and --force starts again: only one can be asked for")
        path.mkdir(parents=True, exist_ok=True)
        was_locked_before = (path / ".lock").exists()
        lock = _lock(path)
        try:
            about, grown = cls._prepare(path, config, resume, force, defaults or {})
        except BaseException:
            if not was_locked_before:  # a folder that is refused is left as it was
                (path / ".lock").unlink(missing_ok=True)
            os.close(lock)
            raise
        return cls(path, about, grown, lock)

    @classmethod
    def _prepare(
        cls,
        path: Path,
        config: dict[str, Any],
        resume: bool,
        force: bool,
        defaults: dict[str, Any],
    ) -> tuple[dict[str, Any], list[str]]:
        record = path / "run.json"
        foreign = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
        if not record.exists() and foreign:
            raise RunError(f"{path} is not empty and holds no run: choose another folder")
        if record.exists() and force:
            _check_removable(path)
            _empty(path)
        elif record.exists():
            about = read_about(path)
            if about["status"] == "finished" and not resume:
                raise RunError(
                    f"{path} holds a finished run: --force overwrites it, --out names another"
                )
            elif not resume:
                raise RunError(
                    f"{path} holds an unfinished run: --resume goes on, --force starts again"
                )
            else:
                before = filled(about["config"], defaults)
                changed = changes(before, config)
                if changed and not (about["status"] == "finished" and _grows(before, config)):
                    raise RunError(f"{path} was started with other settings: {', '.join(changed)}")
                _remove_half_written(path)
                return about | {"config": config} if changed else about, changed
        about = {
            "status": "running",
            "started": _now(),
            "config": config,
            "versions": versions(),
            "hardware": hardware(),
        }
        write_json(record, about)
        return about, []

    def reopen(self) -> None:
        """Marks a run as being written again, and by what, if not by what wrote it last."""
        continued = list(self.about.get("continued_with", []))
        last = continued[-1] if continued else self.about
        now: dict[str, Any] = {"versions": versions(), "hardware": hardware()}
        if self.grown:
            now["grown"] = self.grown
        if any(last.get(name) != facts for name, facts in now.items()):
            self.about["continued_with"] = [*continued, {"since": _now(), **now}]
        self.note(status="running")

    @property
    def finished(self) -> bool:
        """True once `finish` has been called, now or before."""
        return bool(self.about["status"] == "finished")

    def note(self, **facts: Any) -> None:
        """Adds facts to run.json."""
        self.about |= facts
        write_json(self.path / "run.json", self.about)

    def finish(self, **facts: Any) -> None:
        """Marks the run as finished."""
        self.note(status="finished", finished=_now(), **facts)

    def close(self) -> None:
        """Lets other processes write the folder."""
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else writes into the run at `path` meanwhile; what it holds is left as it is.

    Raises:
      RunError: another process writes it, or there is no run.
    """
    read_about(path)
    lock = _lock(path)
    try:
        yield
    finally:
        os.close(lock)


def read_about(path: Path) -> dict[str, Any]:
    """What run.json of the run at `path` says.

    Raises:
      RunError: there is no run, or its record is damaged.
    """
    record = path / "run.json"
    if not path.is_dir():
        raise RunError(f"{path} is not a run's folder")
    try:
        about = read_json(record)
    except ValueError as error:
        raise RunError(f"{error}{_START_AGAIN if record.exists() else ''}") from None
    known = isinstance(about, dict) and about.get("status") in ("running", "finished")
    continued = about.get("continued_with", []) if known else []
    if not (
        known
        and isinstance(about.get("config"), dict)
        and isinstance(continued, list)
        and all(isinstance(one, dict) for one in continued)
    ):
        raise RunError(f"{record} is not the record of a run{_START_AGAIN}")
    return about


_START_AGAIN = (
    "; hotoven reproduce or train with --force removes what the run has written and starts again"
)


def _check_removable(path: Path) -> None:
    """Raises RunError if the record is damaged and something in the folder is not a run's."""
    try:
        read_about(path)
    except RunError:
        names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
        strange = [name for name in names if name not in ENTRIES]
        if strange:
            raise RunError(
                f"{path / 'run.json'} is damaged, and {', '.join(strange[:5])} beside it is "
                "nothing that a run writes: choose another folder"
            ) from None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    return {"python": platform.python_version()} | {
        package: metadata.version(package) for package in PACKAGES
    }


def hardware() -> dict[str, Any]:
    """The processor, its usable cores and their cache, and the devices JAX runs on."""
    return {
        "processor": _processor(),
        "cores": num_cores(),
        "cache_mib": cache_mib(),  # agents that learn from pictures hang on it
        "devices": [
            " ".join(dict.fromkeys((device.platform, device.device_kind)))
            for device in jax.devices()
        ],
    }


def counted(devices: Sequence[str]) -> str:
    """Names of devices, each once and with its number: "2 x cpu"."""
    return ", ".join(f"{count} x {name}" for name, count in Counter(devices).items())


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _lock(path: Path) -> int:
    handle = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise RunError(f"{path} is being written by another process") from None
    try:
        is_current = os.path.samestat(os.fstat(handle), os.stat(path / ".lock"))
    except FileNotFoundError:
        is_current = False
    if not is_current:  # who held it has just removed it: another may hold a new one
        os.close(handle)
        raise RunError(f"{path} is being written by another process")
    return handle


def _empty(path: Path) -> None:
    """Removes what a run has written; what else is in the folder is somebody's own, and stays."""
    _remove_half_written(path)
    # run.json goes last: a kill in between leaves a folder that still says it holds a run
    for entry in sorted(path.iterdir(), key=lambda entry: entry.name == "run.json"):
        if entry.name not in ENTRIES:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _remove_half_written(path: Path) -> None:
    """Removes what a kill has left of files that were being written into a run."""
    inner = [orphan for name in ENTRIES for orphan in (path / name).rglob(".*.tmp")]
    for orphan in (*path.glob(".*.tmp"), *inner):
        orphan.unlink()


def _grows(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether all that differs is that there is more of what `GROWS` names."""
    old, new = before.get("settings", {}), now.get("settings", {})
    if not isinstance(old, dict) or not isinstance(old.get(GROWS), int):
        return False
    if old[GROWS] >= new.get(GROWS, 0):
        return False
    return not changes(before | {"settings": old | {GROWS: new[GROWS]}}, now)


def filled(config: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """`config` with what it lacks, at any depth, from `defaults`."""
    return defaults | {
        name: filled(value, inner)
        if isinstance(value, dict) and isinstance(inner := defaults.get(name), dict)
        else value
        for name, value in config.items()
    }


def changes(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs between two nested configurations, as "name was a, is b"."""
    found = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += changes(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name} was {old!r}, is {new!r}")
    return found
