"""Whole studies with very small settings, run by the command line."""

import fcntl
import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors import numpy as safetensors_numpy

import hotoven

SETTINGS = """
    --sizes 4 8 --num-members 2 --num-test-levels 20 --num-validation-levels 5
    --num-train-levels-played 8 --num-traced-levels 5 --num-chunks 3 --seed 3
    --env.max-steps 12 --dqn.filters 4 --dqn.hidden 8 --dqn.num-updates 72 --dqn.num-envs 8
    --dqn.steps-per-update 4 --dqn.batch-size 8 --dqn.replay-capacity 64 --danger.filters 4
    --danger.hidden 8 --danger.num-updates 20 --danger.num-envs 8 --danger.num-steps 8
    --danger.batch-size 8
""".split()  # noqa: SIM905  easier to read than a list
COINRUN_SETTINGS = """
    --sizes 4 8 --num-members 2 --num-test-levels 24 --num-calibration-levels 24
    --num-validation-levels 16 --num-shifted-levels 16 --num-train-levels-played 8 --num-chunks 3
    --num-help-levels 6 --num-help-thresholds 3 --num-inspected-levels 5 --seed 3 --windows 1 10
    --helpers planner retreat
    --promises 0.2 0.5 --env.max-steps 40 --ppo.num-envs 8 --ppo.num-steps 16 --ppo.hidden 8
    --ppo.num-minibatches 2 --ppo.num-iterations 9 --danger.hidden 4 --danger.num-updates 20
    --danger.num-envs 8 --danger.num-steps 8 --danger.batch-size 8
""".split()  # noqa: SIM905
STUDIES = {"lavagrid": SETTINGS, "coinrun": COINRUN_SETTINGS}
TIMEOUT = 300  # seconds; far more than it takes


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """One folder for this run of the tests, whatever the number of processes that test."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def start(base: Path, *words: str) -> subprocess.Popen:
    """A `hotoven` process; what it compiles is kept under `base` for the next one."""
    cache_dir = base / "compiled"
    cache_dir.mkdir(mode=0o700, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "hotoven_command", *words],
        env=os.environ
        | {
            "JAX_COMPILATION_CACHE_DIR": str(cache_dir),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    """What the process printed, once it has ended well."""
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, err
    return str(out)


def reproduce(base: Path, path: Path, study: str, *words: str) -> subprocess.Popen:
    """A process that runs the tiny study in the folder `path`."""
    return start(base, "reproduce", study, "--out", str(path), *STUDIES[study], *words)


def uninterrupted(base: Path, study: str = "lavagrid") -> tuple[Path, str]:
    """The folder of one run that nothing disturbed, made once per test run, and what it printed."""
    path, said = base / f"uninterrupted-{study}", base / f"uninterrupted-{study}.txt"
    with (base / f"uninterrupted-{study}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process that tests may be at it
        if not said.exists():
            said.write_text(finish(reproduce(base, path, study)))
    return path, said.read_text()


def results(path: Path) -> dict[str, bytes]:
    """Bytes of agents, tables, findings and drawings; run.json holds the time and is left out."""
    kinds = (".safetensors", ".parquet", ".json", ".md", ".svg")
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.suffix in kinds and file.name != "run.json"
    }


def assert_same(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    assert sorted(found) == sorted(expected)
    different = [name for name in expected if found[name] != expected[name]]
    told = [f"{name} ({_difference(name, found[name], expected[name])})" for name in different]
    if source() != SOURCE:
        told.append("the source was edited while the tests ran, which would explain it")
    assert not different, f"other bytes in {', '.join(told)}"


def source() -> str:
    """A hash of the package that the processes import."""
    files = sorted(Path(hotoven.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


SOURCE = source()  # as it was when the tests were collected


def _difference(name: str, found: bytes, expected: bytes) -> str:
    """Where two files differ: arrays, columns or the first line."""
    if name.endswith(".safetensors"):
        left, right = safetensors_numpy.load(found), safetensors_numpy.load(expected)
        fields = [key for key in right if _bytes(left.get(key)) != _bytes(right[key])]
    elif name.endswith(".parquet"):
        left, right = (pq.read_table(io.BytesIO(file)) for file in (found, expected))
        names = right.column_names
        fields = [key for key in names if key not in left.column_names or left[key] != right[key]]
    else:
        pairs = zip(found.splitlines(), expected.splitlines(), strict=False)
        lines = (f"line {at}: {a!r}, not {b!r}" for at, (a, b) in enumerate(pairs, 1) if a != b)
        return next(lines, "one is longer")[:300]
    return f"in {', '.join(fields)}" if fields else "equal values, other encoding"


def _bytes(array: np.ndarray | None) -> bytes | None:
    return None if array is None else array.tobytes()
