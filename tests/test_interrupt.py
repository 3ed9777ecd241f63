"""Ctrl-C ends the command with one line and exit code 130, whatever it is doing."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hotoven.progress import Stage
from tinystudy import (
    SETTINGS,
    TIMEOUT,
    assert_same,
    finish,
    results,
    shared_folder,
    start,
    uninterrupted,
)

# A finalizer stands for JAX's callbacks: Python drops what is raised in it.
IN_A_CALLBACK = """
import sys, time
import hotoven_command
class Callback:
    def __del__(self):
        print("here", file=sys.stderr, flush=True)
        time.sleep(60)
hotoven_command.stop_on_interrupt()
Callback()
print("went on", file=sys.stderr)
"""
# A minute of C that lets other threads run stands for XLA's compiler.
IN_C = """
import hashlib, sys
import hotoven_command
hotoven_command.stop_on_interrupt()
print("here", file=sys.stderr, flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 10**8)
print("went on", file=sys.stderr)
"""


pytestmark = pytest.mark.usefixtures("interruptible")


def python(*words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def interrupt_at(process: subprocess.Popen, sign: str) -> list[str]:
    """Sends SIGINT once a line of standard error holds `sign`; returns the lines after it."""
    assert process.stderr is not None
    for line in process.stderr:
        if sign in line:
            break
    assert process.poll() is None, f"ended before it said {sign!r}"
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=TIMEOUT)[1]
    return str(err).splitlines()


@pytest.mark.parametrize("module", ["numpy", "jax", "gymnasium", "matplotlib.figure"])
def test_during_the_imports_it_is_one_line(module: str):
    process = python("-X", "importtime", "-m", "hotoven_command", "levels", "count")
    lines = interrupt_at(process, f" {module}\n")
    assert process.returncode == 130
    assert [line for line in lines if not line.startswith("import time:")] == ["hotoven: stopped"]


@pytest.mark.parametrize("code", [IN_A_CALLBACK, IN_C], ids=["callback", "c"])
def test_nothing_swallows_it(code: str):
    process = python("-c", code)
    assert interrupt_at(process, "here") == ["hotoven: stopped"]
    assert process.returncode == 130


def test_where_interrupts_are_ignored_they_stay_ignored():
    code = (
        "import signal, hotoven_command as command;"
        "signal.signal(signal.SIGINT, signal.SIG_IGN); command.stop_on_interrupt();"
        "print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    )
    assert python("-c", code).communicate(timeout=TIMEOUT) == ("True\n", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "sign",
    [
        "train levels: 8",
        pytest.param("train 4 agents", marks=pytest.mark.long),  # and goes on
        pytest.param("train 2 MC-dropout", marks=pytest.mark.long),
    ],
)
def test_in_training_it_says_how_to_go_on(tmp_path_factory, tmp_path: Path, sign: str):
    base = shared_folder(tmp_path_factory)
    words = ["reproduce", "lavagrid", "--out", str(tmp_path / "run"), *SETTINGS]
    process = start(base, *words)
    lines = interrupt_at(process, sign)
    assert lines[-1] == "hotoven: stopped; --resume goes on"
    assert "Traceback" not in "".join(lines)
    assert process.returncode == 130
    if sign == "train 4 agents":
        finish(start(base, *words, "--resume"))
        assert_same(results(tmp_path / "run"), results(uninterrupted(base)[0]))


def test_a_line_of_progress_is_written_at_once(monkeypatch: pytest.MonkeyPatch):
    written: list[str] = []

    class Stream:
        def write(self, text: str) -> None:
            written.append(text)

        def flush(self) -> None:
            pass

    monkeypatch.setattr(sys, "stderr", Stream())
    Stage("train", 4, None).show(2, "well")
    assert written == ["train: 2/4 (0 s)  well\n"]
