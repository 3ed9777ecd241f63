"""`hotoven watch` in a real browser: made-up agents on LavaGrid's level 0, and those of a run."""

import contextlib
import http.server
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, WebSocketRoute, expect

from hotoven.account import INTERVENTIONS
from hotoven.storage import read_table
from hotoven.watch import Settings, Watch, Watched
from test_web import Served, serve
from watching import DOWN, TO_THE_LAVA, coinrun, watched

ROOT = Path(__file__).resolve().parent.parent.parent
expect.set_options(timeout=15_000)
START = 120  # seconds in which a command has printed its address, at most


@pytest.fixture
def show(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serves a made-up agent."""
    with contextlib.ExitStack() as stack:

        def make(what: Watched, **settings: Any) -> Served:
            watch = Watch(what, Settings(**settings), tmp_path)
            watch.get_ready()
            return stack.enter_context(serve(watch, "watch"))

        yield make


def message(page: Page, text: str) -> None:
    """The page says that, sooner or later."""
    expect(page.locator("#message")).to_contain_text(text)


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def pass_sockets(page: Page) -> list[WebSocketRoute]:
    """The sockets that the page opens, as it opens them, for a test to close."""
    routes: list[WebSocketRoute] = []

    def through(route: WebSocketRoute) -> None:
        route.connect_to_server()
        routes.append(route)

    page.route_web_socket(re.compile("/socket$"), through)
    return routes


def events(folder: Path) -> list[str]:
    return list(read_table(folder / INTERVENTIONS)["event"].to_pylist())


# An alarm, keys, hand back


def test_an_alarm_a_take_over_by_keys_a_hand_back_and_the_end(page, show, tmp_path):
    served = show(watched([DOWN], [0.75, 0.0]), num_levels=2, steps_per_second=60)
    page.goto(served.site.address)
    message(page, "Alarm: the agent asks for help.")
    expect(page.locator("#score")).to_contain_text(" = 0.75, above the threshold 0.50")
    expect(page.locator("#dangers")).to_have_attribute(
        "aria-label", re.compile("right 0.10, down 0.90, .*chosen: down; dashed line at 0.50")
    )
    expect(page.locator("#values")).to_have_attribute(
        "aria-label", "Values by member: 1 \u22120.75, 2 \u22120.75"
    )
    expect(page.locator("#values .tick").first).to_have_text("\u22120.75")
    press(page, "h")
    message(page, "You have the keys for 3 steps")
    press(page, "ArrowLeft", "ArrowLeft")
    expect(page.locator("#countdown")).to_have_text("1 step of help left")
    press(page, "b")
    expect(page.locator("#countdown")).to_have_text("")
    message(page, "The agent alone: died: lava.")  # its other steps are against the edge
    message(page, "Alarm")  # on the next level
    press(page, "g")
    message(page, "Died: lava, after 1 step.")
    expect(page.locator("#summary")).to_be_visible()
    expect(page.locator("#lines")).to_contain_text("With your help: 1 catastrophe on 2 levels.")
    expect(page.locator("#lines")).to_contain_text(
        "Without it: 2 catastrophes on the same 2 levels."
    )
    expect(page.locator("#rows tr")).to_have_count(2)
    expect(page.locator("#picture")).to_be_hidden()
    assert events(tmp_path).count("help") == 1 and events(tmp_path).count("go on") == 1


def test_what_was_said_before_the_end_is_not_said_of_it(page, show):
    served = show(watched([DOWN], [0.75, 0.0]), num_levels=1)
    page.goto(served.site.address)
    message(page, "Alarm")
    for told in ("#message", "#picture"):
        expect(page.locator(told)).to_have_attribute("data-tone", "alarm")
    expect(page.locator("#score")).to_have_attribute("data-alarm", "true")
    press(page, "g")
    message(page, "Died: lava")
    press(page, "p")  # so that the end stays
    expect(page.locator("#pauses")).to_have_text("Resume")
    for told in ("#message", "#picture"):
        expect(page.locator(told)).to_have_attribute("data-tone", "")
    expect(page.locator("#score")).to_have_text("The episode is over.")
    expect(page.locator("#score")).to_have_attribute("data-alarm", "false")
    expect(page.locator("#next")).to_have_text("")
    for bars in ("#values", "#preferences", "#dangers"):
        expect(page.locator(bars)).to_be_hidden()
    expect(page.locator("#score")).to_be_visible()
    press(page, "n")
    expect(page.locator("#summary")).to_be_visible()
    for gone in ("#said", "#picture", "#controls", "#keyboard"):  # there is nothing left to press
        expect(page.locator(gone)).to_be_hidden()


def test_time_goes_on_at_the_speed_that_is_chosen(page, show):
    served = show(coinrun([0.0]), num_levels=1)
    page.goto(served.site.address)
    message(page, "Press P to let the agent play.")
    expect(page.locator("#speed")).to_have_value("15")
    page.locator("#speed").fill("60")
    expect(page.locator("#steps-per-second")).to_have_text("60 steps per second")
    press(page, "p")
    expect(page.locator("#steps")).to_contain_text(
        re.compile(r"step [1-9]\d\d? of"), timeout=20_000
    )
    press(page, "p")
    message(page, "Paused. Press P to go on.")
    assert served.session.speed == 60


def test_in_coinrun_a_held_key_acts_until_help_is_over(page, show):
    served = show(coinrun([0.0, 0.75, 0.0]), help_steps=5)
    page.goto(served.site.address)
    message(page, "Press P")
    press(page, "p")
    message(page, "Alarm")
    press(page, "h")
    page.keyboard.down("ArrowRight")
    message(page, "The agent plays.")
    page.keyboard.up("ArrowRight")
    expect(page.locator("#steps")).to_have_text(re.compile(r"^step ([7-9]|\d\d+) of"))
    press(page, "p")
    assert served.session.actions[:7] == [4, 7, 7, 7, 7, 7, 4]


def test_the_keyboard_alone_is_enough_and_the_focus_is_seen(page, show):
    served = show(watched([DOWN], [0.75, 0.0]))
    page.goto(served.site.address)
    message(page, "Alarm")
    press(page, "Tab")
    focused = page.locator(":focus-visible")
    expect(focused).to_have_text("Help H")
    assert focused.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    press(page, "Enter")
    message(page, "You have the keys")
    press(page, "Tab", "Tab")
    expect(page.locator(":focus")).to_have_text("Hand back B")
    press(page, "ArrowLeft", "Space")  # space presses the button, and jumps only elsewhere
    expect(page.locator("#countdown")).to_have_text("")
    for _ in range(10):
        if page.locator("#speed").evaluate("one => one === document.activeElement"):
            break
        press(page, "Tab")
    press(page, "ArrowRight")
    expect(page.locator("#steps-per-second")).to_have_text("5 steps per second")


def test_buttons_are_enough_on_a_phone(browser: Browser, show):
    served = show(watched([DOWN], [0.75, 0.0]), help_steps=5)
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    page = context.new_page()
    page.goto(served.site.address)
    message(page, "Alarm")
    expect(page.get_by_role("button", name="Help")).to_be_in_viewport()
    page.get_by_role("button", name="Help").tap()
    for name in ("left", "left", "left", "down", "left"):
        page.get_by_role("button", name=name, exact=True).tap()
    message(page, "Solved: goal, after 5 steps.")
    width = page.evaluate("document.documentElement.scrollWidth")
    context.close()
    assert width <= 390


# Viewers


def test_a_second_viewer_sees_the_same_and_its_keys_count(page, show, browser: Browser):
    served = show(watched([DOWN], [0.75, 0.0]))
    page.goto(served.site.address)
    context = browser.new_context()
    other = context.new_page()
    other.goto(served.site.address)
    for one in (page, other):
        message(one, "Alarm")
    other.keyboard.press("h")
    message(page, "You have the keys")
    page.keyboard.press("ArrowLeft")
    expect(other.locator("#steps")).to_have_text("step 1 of 40")
    other.keyboard.press("ArrowLeft")
    expect(page.locator("#steps")).to_have_text("step 2 of 40")
    context.close()


def test_a_connection_that_is_lost_comes_back_where_it_was(page, show):
    served = show(watched([DOWN], [0.75, 0.0]))
    routes = pass_sockets(page)
    page.goto(served.site.address)
    message(page, "Alarm")
    press(page, "h", "ArrowLeft")
    expect(page.locator("#steps")).to_have_text("step 1 of 40")
    routes[0].close()
    message(page, "The connection is lost.")
    message(page, "You have the keys")
    expect(page.locator("#steps")).to_have_text("step 1 of 40")
    expect(page.locator("#countdown")).to_contain_text("2 steps of help left")
    assert len(routes) == 2
    press(page, "ArrowLeft")
    expect(page.locator("#steps")).to_have_text("step 2 of 40")
    page.reload()
    expect(page.locator("#steps")).to_have_text("step 2 of 40")


def test_a_key_that_is_held_counts_on_when_the_connection_is_back(page, show):
    served = show(coinrun([0.0]), mode="alone")
    routes = pass_sockets(page)
    page.goto(served.site.address)
    page.keyboard.down("ArrowRight")
    expect(page.locator("#steps")).to_have_text(re.compile("^step [1-9]"))
    routes[0].close()
    message(page, "The connection is lost.")
    before = len(served.session.actions)
    expect(page.locator("#message")).to_have_text("")
    page.wait_for_timeout(500)
    page.keyboard.up("ArrowRight")
    after = served.session.actions[before:]
    assert after[:3] == [7, 7, 7]


def test_a_frame_that_is_being_drawn_does_not_hide_that_the_connection_is_lost(page, show):
    page.add_init_script(
        "const make = createImageBitmap; window.createImageBitmap = async (blob) => {"
        "await new Promise((done) => setTimeout(done, 300)); return make(blob); };"
    )
    served = show(coinrun([0.0]), mode="alone")
    routes = pass_sockets(page)
    page.goto(served.site.address)
    page.keyboard.down("ArrowRight")  # so that there is always a frame under way
    expect(page.locator("#steps")).to_have_text(re.compile("^step [1-9]"))
    routes[0].close()
    page.wait_for_timeout(600)  # that frame is drawn, and no other socket is open yet
    assert "The connection is lost." in page.locator("#message").inner_text()
    page.keyboard.up("ArrowRight")


def test_where_keys_make_steps_one_that_is_held_makes_no_other_when_the_connection_is_back(
    page, show
):
    served = show(watched([DOWN], [0.75, 0.0]))
    routes = pass_sockets(page)
    page.goto(served.site.address)
    message(page, "Alarm")
    press(page, "h")
    page.keyboard.down("ArrowLeft")
    expect(page.locator("#steps")).to_have_text("step 1 of 40")
    routes[0].close()
    message(page, "The connection is lost.")
    message(page, "You have the keys")
    page.wait_for_timeout(500)
    expect(page.locator("#steps")).to_have_text("step 1 of 40")
    press(page, "ArrowDown")
    expect(page.locator("#steps")).to_have_text("step 2 of 40")
    page.keyboard.up("ArrowLeft")


def test_a_game_that_fails_says_so_and_is_not_called_again(page, show):
    served = show(coinrun([0.0]))
    page.goto(served.site.address)
    message(page, "Press P")

    def fail() -> None:
        raise IndexError("no such level")

    served.session.step = fail
    press(page, "p")
    message(page, "The game has failed and is over. The terminal says why.")
    page.wait_for_timeout(1500)  # longer than a lost connection is waited for
    message(page, "The game has failed")


# Who may enter


@pytest.fixture
def stranger(browser: Browser) -> Iterator[Page]:
    """A page whose console may complain."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


def said(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """The log says that in one line, sooner or later."""
    end = time.monotonic() + 15
    while not any(text in record.getMessage() for record in caplog.records):
        assert time.monotonic() < end, f"the log says nothing of {text!r}: {caplog.text}"
        time.sleep(0.05)
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_a_forged_host_is_refused(browser: Browser, show, caplog):
    served = show(watched(TO_THE_LAVA, [0.0]))
    rule = "--host-resolver-rules=MAP evil.example 127.0.0.1"  # as a name that is bound anew
    other = browser.browser_type.launch(executable_path=browser_path(), args=["--no-sandbox", rule])
    page = other.new_page()
    answer = page.goto(served.site.address.replace("127.0.0.1", "evil.example"))
    other.close()
    assert answer is not None and answer.status == 403
    said(caplog, "refused GET with 403: Host must be")


def test_without_its_token_there_is_nothing(stranger, show, caplog):
    served = show(watched(TO_THE_LAVA, [0.0]))
    for path in ("/", "/watch.html", f"/{'x' * 32}/"):
        answer = stranger.goto(f"http://{served.host}{path}")
        assert answer is not None and answer.status == 403
    said(caplog, "refused GET with 403: the address lacks the token")


KNOCK = """address => new Promise(done => {
  const socket = new WebSocket(address);
  socket.onopen = () => done("open");
  socket.onclose = event => done(event.code);
})"""


def test_a_page_of_another_origin_gets_no_socket(stranger, show, caplog):
    served = show(watched(TO_THE_LAVA, [0.0]))
    socket = f"ws://{served.host}/{served.site.token}/socket"

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        stranger.goto(f"http://127.0.0.1:{elsewhere.server_address[1]}/")
        assert stranger.evaluate(KNOCK, socket) == 1006
        elsewhere.shutdown()
    said(caplog, "refused socket with 403: Origin must be")


def test_a_message_that_is_too_long_ends_that_socket_and_no_other(page, show, caplog):
    served = show(watched([DOWN], [0.75]))
    page.goto(served.site.address)
    message(page, "Alarm")
    code = page.evaluate(
        """address => new Promise(done => {
          const socket = new WebSocket(address);
          socket.onopen = () => socket.send(JSON.stringify({ do: "x".repeat(2000) }));
          socket.onclose = event => done(event.code);
        })""",
        f"ws://{served.host}/{served.site.token}/socket",
    )
    assert code == 1009
    said(caplog, "refused a message: it must be at most 512 bytes long")
    press(page, "h")
    message(page, "You have the keys")


def test_a_page_loads_nothing_from_elsewhere(page, show):
    served = show(watched([DOWN], [0.75]))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(served.site.address)
    message(page, "Alarm")
    assert asked and all(url.startswith(served.site.address) for url in asked)


# Everybody can read it


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page, show, scheme):
    served = show(watched([DOWN], [0.75, 0.0]), num_levels=1)
    page.emulate_media(color_scheme=scheme)
    page.goto(served.site.address)
    message(page, "Alarm")
    assert serious(page) == []
    press(page, "h")
    message(page, "You have the keys")
    assert serious(page) == []
    press(page, "ArrowDown")
    message(page, "Died: lava")
    assert serious(page) == []
    press(page, "n")
    expect(page.locator("#summary")).to_be_visible()
    assert serious(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_coinrun(page, show, scheme):
    served = show(coinrun([0.0, 0.75]), num_levels=1)
    page.emulate_media(color_scheme=scheme)
    page.goto(served.site.address)
    message(page, "Press P")
    assert serious(page) == []
    press(page, "p")
    message(page, "Alarm")
    assert serious(page) == []
    press(page, "h")
    message(page, "You have the keys")
    assert serious(page) == []


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {[node['html'] for node in one['nodes']]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


# The command, on a run


def browser_path() -> str:
    return os.environ.get("HOTOVEN_CHROMIUM") or shutil.which("chromium") or ""


@pytest.fixture
def command(tmp_path: Path, interruptible: None) -> Iterator[Callable[..., str]]:
    """Starts `hotoven watch` on a copy of the stored CoinRun run; returns its address."""
    run = tmp_path / "run"
    shutil.copytree(ROOT / "results" / "coinrun-quick", run)
    started: list[subprocess.Popen] = []

    def start(*words: str) -> str:
        process = subprocess.Popen(
            [sys.executable, "-m", "hotoven_command", "watch", str(run), "--no-browser", *words],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        timer = threading.Timer(START, process.kill)
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        found = re.match(r"watch at (http://\S+) ", line)
        assert found, line
        return found[1]

    yield start
    for process in started:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 130


def test_a_stored_runs_agents_are_watched_helped_and_summed_up(page, command, tmp_path):
    page.goto(
        command(
            "--num-levels",
            "2",
            "--first-level",
            "2",
            "--steps-per-second",
            "30",
            "--help-steps",
            "4",
        )
    )
    message(page, "Press P to let the agent play.")
    press(page, "p")
    for _ in range(200):
        summary = page.locator("#summary")
        if summary.is_visible():
            break
        text = page.locator("#message").inner_text()
        if text.startswith("Alarm"):
            press(page, "h")
            page.keyboard.down("ArrowRight")
            page.wait_for_timeout(300)
            page.keyboard.up("ArrowRight")
        page.wait_for_timeout(100)
    expect(page.locator("#lines")).to_contain_text("on the same 2 levels.")
    found = read_table(tmp_path / "run" / INTERVENTIONS).to_pylist()
    ends = [row for row in found if row["event"] == "end"]
    # the agent alone is what the run's table of episodes says of it
    table = read_table(tmp_path / "run" / "episodes.parquet").to_pylist()
    alone = [
        (row["outcome"], row["length"])
        for row in table
        if (row["set"], row["method"], row["num_train_levels"]) == ("test", "mean", 10)
    ]
    assert [(row["outcome_alone"], row["length_alone"]) for row in ends] == alone[2:4]
    assert {"alarm", "request", "help"} <= {row["event"] for row in found}
