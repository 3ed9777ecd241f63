"""Frames per second of `hotoven watch`, delivered to a viewer who confirms every one of them.

`hotoven watch` runs as a process of its own on a copy of the run. The viewer is a client in Python,
which unpacks every picture, and then a page in Chromium where Playwright and Chromium are there.
"""

import argparse
import io
import json
import os
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from PIL import Image
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Prints one line per kind of viewer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, default=ROOT / "results" / "coinrun-quick")
    parser.add_argument("--speed", type=int, default=30, help="steps per second")
    parser.add_argument("--seconds", type=float, default=20.0, help="measured, per viewer")
    command = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        run = Path(shutil.copytree(command.run, Path(folder) / "run"))
        for name, measure in (("python", in_python), ("chromium", in_chromium)):
            with watching(run, command.speed) as address:
                tell(name, measure(address, command.seconds), command.speed)


@contextmanager
def watching(run: Path, speed: int) -> Iterator[str]:
    """The address of a page on which agents play without ever asking."""
    words = ["--no-browser", "--threshold", "inf", "--steps-per-second", str(speed)]
    words += ["--num-levels", "100"]
    process = subprocess.Popen(
        [sys.executable, "-m", "hotoven_command", "watch", str(run), *words],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    found = re.match(r"watch at (http://\S+) ", process.stdout.readline())
    assert found, "hotoven watch has printed no address"
    try:
        yield found[1]
    finally:
        process.terminate()
        process.wait()


def tell(name: str, times: list[float] | None, speed: int) -> None:
    """Prints what the times of frames, in seconds, come to."""
    if not times:
        print(f"{name}: not there, not measured")
        return
    gaps = sorted(after - before for before, after in pairwise(times))
    rate = len(gaps) / (times[-1] - times[0])
    print(
        f"{name}: {rate:.1f} frames per second of {speed}, "
        f"median {1e3 * statistics.median(gaps):.0f} ms apart, "
        f"99 of 100 at most {1e3 * gaps[int(0.99 * len(gaps))]:.0f} ms, "
        f"longest {1e3 * gaps[-1]:.0f} ms; {len(gaps)} frames"
    )


def in_python(address: str, seconds: float) -> list[float]:
    """When a client got each frame, in seconds."""
    host = address.split("/")[2]
    socket = f"ws://{host}/{address.split('/')[3]}/socket"
    times: list[float] = []
    with connect(socket, origin=f"http://{host}", compression=None) as viewer:  # type: ignore[arg-type]
        viewer.recv()
        viewer.send(json.dumps({"do": "pause"}))  # which it does at first
        while not times or time.perf_counter() - times[0] < seconds:
            data = viewer.recv()
            assert isinstance(data, bytes)
            (size,) = struct.unpack(">I", data[:4])
            status = json.loads(data[4 : 4 + size])
            Image.open(io.BytesIO(data[4 + size :])).load()
            viewer.send(json.dumps({"shown": status["frame"]}))
            if not status["paused"]:
                times.append(time.perf_counter())
    return times


COUNT = """seconds => new Promise(done => {
  const times = [];
  const own = CanvasRenderingContext2D.prototype.drawImage;
  CanvasRenderingContext2D.prototype.drawImage = function (...what) {
    times.push(performance.now() / 1000);
    return own.apply(this, what);
  };
  setTimeout(() => done(times), 1000 * seconds);
})"""


def in_chromium(address: str, seconds: float) -> list[float] | None:
    """When a page drew each frame, in seconds; None without a browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    path = os.environ.get("HOTOVEN_CHROMIUM") or shutil.which("chromium")
    if path is None:
        return None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        page.locator("#message", has_text="Press P").wait_for()
        page.keyboard.press("p")
        page.wait_for_timeout(2000)
        times: list[float] = page.evaluate(COUNT, seconds)
        browser.close()
    return times


if __name__ == "__main__":
    main()
