"""Seconds to write a report and to open it, ms per step in a browser; see benchmarks/README.md."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, sync_playwright

from hotoven import bench

RUN = Path(__file__).resolve().parent.parent / "results" / "full"
STEPS = 20  # in a turn
# Steps on and back and waits until it is on the screen; the median of the times in ms.
STEP = """async (steps) => {
  const all = [...document.querySelectorAll('#inspector button')];
  const buttons = ['Step \u2192', '\u2190 Step'].map((text) =>
    all.find((one) => one.textContent === text));
  const times = [];
  for (let step = 0; step < steps; step += 1) {
    const began = performance.now();
    buttons[step % 2].click();
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    times.push(performance.now() - began);
  }
  return times.sort((one, other) => one - other)[Math.floor(steps / 2)];
}"""


def write(run: Path, out: Path) -> float:
    """Seconds that the whole command takes, its imports and compilations included."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "hotoven_command", "report", str(run), "--out", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def opening(browser: Browser, file: Path) -> tuple[float, float, float]:
    """Seconds until the report shows its first episode, and its charts; ms per step."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"file://{file}")
    page.wait_for_selector("body[data-charts]")
    # from the start of the navigation, by the page's own clock
    shown, drawn = (
        float(page.evaluate(f"document.body.dataset.{name}")) / 1000 for name in ("ready", "charts")
    )
    page.locator("#inspector").scroll_into_view_if_needed()
    milliseconds = page.evaluate(STEP, STEPS)
    page.close()
    return shown, drawn, milliseconds


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="turns of each")
    parser.add_argument("--run", type=Path, default=RUN, help="the run's folder")
    chosen = parser.parse_args()
    chromium = os.environ.get("HOTOVEN_CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "report.html"
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        written = np.array([write(chosen.run, file) for _ in range(chosen.repeats)])
        opening(browser, file)  # the first turn starts the browser's own processes
        shown = np.array([opening(browser, file) for _ in range(chosen.repeats)])
        size = file.stat().st_size
        browser.close()
    names = {
        "to write it (aim: below 10)": ("s", written),
        "to open it (aim: below 2)": ("s", shown[:, 0]),
        "to open it, charts drawn": ("s", shown[:, 1]),
        f"a step, median of {STEPS} (aim: below 50)": ("ms", shown[:, 2]),
    }
    bench.show(
        bench.Result(
            title=f"the report of {chosen.run.name}, {size / 1e6:.1f} MB",
            figures={name: values for name, (_, values) in names.items()},
            units={name: unit for name, (unit, _) in names.items()},
            derived={},
            notes=(),
        )
    )


if __name__ == "__main__":
    main()
