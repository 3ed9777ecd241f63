"""The page's server, on a real socket: who is refused, and what a viewer gets when."""

import contextlib
import http.client
import io
import json
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from hotoven import web
from hotoven.envs.coinrun.env import CoinRun
from hotoven.envs.lavagrid import LavaGrid
from hotoven.play import Game

PATIENCE = 30  # seconds that a test waits for what must come
PAGE = Path(web.__file__).parent / "page"


class Counter:
    """A session that counts its steps and writes down what it is told."""

    seconds_per_step = 0.01

    def __init__(self) -> None:
        self.runs = True
        self.times: list[float] = []  # of its steps
        self.told: list[tuple[str, Any]] = []
        self.pause_at = 10**9  # steps after which it pauses by itself
        self.seconds: dict[int, float] = {}  # how long a step takes
        self.fail_at = 10**9  # steps after which it fails

    def greeting(self) -> dict[str, str]:
        return {"title": "Counter"}

    def step(self) -> None:
        self.times.append(time.monotonic())
        if len(self.times) == self.fail_at:
            raise IndexError("no such\nlevel")
        time.sleep(self.seconds.get(len(self.times), 0))
        self.runs = len(self.times) < self.pause_at

    def hear(self, viewer: int, message: Any) -> None:
        if "do" not in message:
            raise ValueError(f"it must hold do, got {', '.join(message)}")
        self.told.append((f"viewer {viewer}", message["do"]))

    def let_go(self, viewer: int) -> None:
        self.told.append((f"viewer {viewer}", "let go"))

    def pause(self) -> None:
        self.told.append(("nobody", "pause"))

    def show(self) -> tuple[dict[str, int], np.ndarray]:
        count = len(self.times)
        return {"count": count}, np.full((4, 6, 3), count % 256, np.uint8)


class Served(NamedTuple):
    session: Any
    site: web.Site
    port: int

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"


class Frame(NamedTuple):
    number: int
    status: dict[str, Any]
    picture: np.ndarray


@contextlib.contextmanager
def serve(session: web.Session, page: str = "play") -> Iterator[Served]:
    """The session on a server that runs in a thread, until the test is over."""
    with web.listen(0) as listener:
        port = listener.getsockname()[1]
        site = web.Site(session, page, port)
        listener.listen()
        server = web.server(site)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield Served(session, site, port)
        finally:
            server.should_exit = True
            thread.join(PATIENCE)


@pytest.fixture
def served() -> Iterator[Served]:
    with serve(Counter()) as served:
        yield served


@pytest.fixture
def still() -> Iterator[Served]:
    """A session in which time stands still."""
    session = Counter()
    session.runs = False
    with serve(session) as served:
        yield served


def ask(
    served: Served,
    name: str = "",
    method: str = "GET",
    path: str | None = None,
    **headers: str | None,
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and content of one answer; no header is sent but those given."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    path = f"/{served.site.token}/{name}" if path is None else path
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for key, value in {"host": served.host, **headers}.items():
        if value is not None:
            connection.putheader(key, value)
    connection.endheaders()
    answer = connection.getresponse()
    content = b"" if answer.status == 101 else answer.read()
    connection.close()
    told = {key.lower(): value for key, value in answer.getheaders()}
    return answer.status, told, content


def knock(served: Served, path: str | None = None, **headers: str | None) -> int:
    """The status with which a socket is opened, 101, or not."""
    asked = {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "origin": f"http://{served.host}",
    }
    return ask(served, "socket", path=path, **(asked | headers))[0]


@contextlib.contextmanager
def look(served: Served) -> Iterator[ClientConnection]:
    """A viewer that has been greeted."""
    address = f"ws://{served.host}/{served.site.token}/socket"
    with connect(address, origin=f"http://{served.host}", compression=None) as viewer:  # type: ignore[arg-type]
        assert json.loads(viewer.recv(PATIENCE))["title"]
        yield viewer


def frame(viewer: ClientConnection, timeout: float = PATIENCE) -> Frame:
    """The next frame, which is not confirmed yet."""
    data = viewer.recv(timeout)
    assert isinstance(data, bytes)
    (size,) = struct.unpack(">I", data[:4])
    status = json.loads(data[4 : 4 + size])
    picture = np.asarray(Image.open(io.BytesIO(data[4 + size :])))
    return Frame(status.pop("frame"), status, picture)


def say(viewer: ClientConnection, **message: Any) -> None:
    viewer.send(json.dumps(message))


def confirm(viewer: ClientConnection, shown: Frame) -> None:
    say(viewer, shown=shown.number)


def close_code(viewer: ClientConnection) -> int:
    """The code with which the server closes the socket, once it does."""
    with pytest.raises(ConnectionClosed) as end:
        while True:
            viewer.recv(PATIENCE)
    assert end.value.rcvd is not None
    return end.value.rcvd.code


def until(fact: Callable[[], bool]) -> None:
    """Waits until it is so."""
    end = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def refusals(caplog: pytest.LogCaptureFixture, served: Served) -> list[str]:
    """The lines of the log, which never hold the token."""
    lines = [record.getMessage() for record in caplog.records]
    for line in lines:
        assert re.match("hotoven: refused ", line), line
        assert "\n" not in line and served.site.token not in line
        assert len(line) < 250
    return lines


# Who may enter


def test_who_has_the_address_gets_the_page_and_its_files(still, caplog):
    status, _, content = ask(still)
    assert (status, content) == (200, (PAGE / "play.html").read_bytes())
    for file in PAGE.iterdir():
        status, headers, content = ask(still, file.name)
        assert (status, content) == (200, file.read_bytes())
        assert headers["content-type"] == web.TYPES[file.suffix[1:]]
    assert ask(still, path=f"/{still.site.token}")[0] == 307  # to the same with a slash
    assert ask(still, host=f"localhost:{still.port}")[0] == 200
    assert ask(still, method="HEAD")[::2] == (200, b"")
    assert not caplog.records


@pytest.mark.parametrize("path", ["/", "/play.html", "/x/", "/x/socket", "/%C3%A9/", "//x", "*"])
def test_without_the_token_nothing_is_there(still, caplog, path):
    assert ask(still, path=path)[0] == 403
    assert knock(still, path=path) == 403
    assert len(refusals(caplog, still)) == 2
    assert "lacks the token" in caplog.text


def test_a_token_that_is_nearly_right_is_wrong(still):
    token = still.site.token
    for wrong in (token[:-1], f"{token}A", token.swapcase(), f"{token[:-1]}%00"):
        assert ask(still, path=f"/{wrong}/")[0] == 403
        assert knock(still, path=f"/{wrong}/socket") == 403
    assert len(token) >= 32
    assert web.Site(Counter(), "play", 1).token != token


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", ""]
)
def test_a_forged_host_is_refused(still, caplog, host):
    host = host.format(port=still.port)
    assert ask(still, host=host)[0] == 403
    assert knock(still, host=host, origin=f"http://{host}") == 403
    for line in refusals(caplog, still):
        assert "Host must be" in line and repr(host) in line


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://localhost:{port}", ""],
)
def test_a_foreign_origin_is_refused(still, caplog, origin):
    origin = origin.format(port=still.port)
    assert knock(still, origin=origin) == 403
    assert ask(still, origin=origin)[0] == 403
    for line in refusals(caplog, still):
        assert "Origin must be" in line


def test_a_socket_without_an_origin_is_refused_and_with_its_own_opened(still, caplog):
    assert knock(still) == 101
    assert knock(still, origin=None) == 403
    (line,) = refusals(caplog, still)
    assert "refused socket with 403: Origin must be" in line


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_but_reading_is_allowed(still, caplog, method):
    assert ask(still, method=method)[0] == 405
    assert refusals(caplog, still) == [
        f"hotoven: refused {method} with 405: only GET and HEAD are allowed"
    ]


@pytest.mark.parametrize(
    "name", ["web.py", "../web.py", "..%2fweb.py", "%2e%2e/web.py", "play.html/", "page", "socket"]
)
def test_a_name_that_is_no_file_of_the_page_is_refused(still, caplog, name):
    assert ask(still, name)[0] == 404
    assert knock(still, path=f"/{still.site.token}/{name}x") == 403
    assert len(refusals(caplog, still)) == 2


def test_every_answer_tells_the_browser_to_let_nothing_else_in(still):
    for answer in (ask(still), ask(still, "play.js"), ask(still, path="/"), ask(still, host="x")):
        headers = answer[1]
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers
    assert f"connect-src ws://{still.host};" in ask(still)[1]["content-security-policy"]


def test_a_get_changes_nothing(still):
    for name in still.site._files:
        ask(still, name)
    assert not still.session.told and not still.session.times


def test_only_this_machine_is_listened_to():
    with web.listen(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        listener.listen()
        with pytest.raises(ValueError, match=f"port {listener.getsockname()[1]} cannot be used"):
            web.listen(listener.getsockname()[1])


def test_the_page_holds_no_inline_code_and_nothing_from_elsewhere():
    for file in PAGE.glob("*.html"):
        text = file.read_text()
        assert "<style" not in text and not re.search(r"\s(style|on\w+)=", text)
        assert all("src=" in tag for tag in re.findall("<script[^>]*>", text))
        for name in re.findall(r'(?:src|href)="([^"]*)"', text):
            assert (PAGE / name).is_file(), name
    for file in PAGE.glob("*.js"):
        for name in re.findall(r'from "\./([^"]*)"', file.read_text()):
            assert (PAGE / name).is_file(), name
    for file in PAGE.iterdir():
        found = re.findall(r"https?://[^\"\s]*", file.read_text())
        assert set(found) <= {"http://www.w3.org/2000/svg"}, file.name  # the name of a format


# What a viewer may say


def test_a_message_that_is_too_long_ends_the_socket(still, caplog):
    with look(still) as viewer:
        viewer.send(json.dumps({"do": "x" * web.MAX_MESSAGE}))
        assert close_code(viewer) == 1009
    until(lambda: bool(caplog.records))
    assert refusals(caplog, still) == [
        "hotoven: refused a message: it must be at most 512 bytes long"
    ]
    assert ("viewer 0", "let go") in still.session.told


def test_a_message_may_be_as_long_as_the_limit(still):
    with look(still) as viewer:
        say(viewer, do="x" * (web.MAX_MESSAGE - len('{"do": ""}')))
        until(lambda: bool(still.session.told))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hello", "it must be JSON, got 'hello'"),
        ("", "it must be JSON, got ''"),
        ("[1]", r"it must be a JSON object, got '\[1\]'"),
        ("[" * 512, "it must be JSON|recursion"),
        (b'{"do": "next"}', "it must be JSON, got None"),
        ('{"shown": 7}', "frame 0 was sent, got "),
        ('{"shown": true}', "frame 0 was sent, got "),
        ('{"jump": 1}', "it must hold do, got jump"),
        ('{"\\n\\u00e9": 1}', r"it must hold do, got \?\?$"),
    ],
)
def test_a_message_that_makes_no_sense_ends_the_socket_in_one_line(still, caplog, text, said):
    with look(still) as viewer:
        assert frame(viewer).number == 0
        viewer.send(text)
        assert close_code(viewer) == 1008
    until(lambda: bool(caplog.records))
    (line,) = refusals(caplog, still)
    assert re.match(f"hotoven: refused a message: {said}", line), line
    with look(still) as viewer:  # and the next one is welcome
        frame(viewer)


def test_messages_reach_the_session_with_their_viewer(still):
    with look(still) as first, look(still) as second:
        say(first, do="restart")
        say(second, do="next")
        until(lambda: len(still.session.told) == 2)
        assert sorted(still.session.told) == [("viewer 0", "restart"), ("viewer 1", "next")]


# What a viewer gets


def test_a_viewer_that_never_confirms_gets_one_frame_and_time_waits_for_it(served):
    with look(served) as viewer:
        shown = frame(viewer)
        with pytest.raises(TimeoutError):
            frame(viewer, 2 * web.PATIENCE)
        count = len(served.session.times)
        assert count > shown.status["count"]  # time did go on at first
        with pytest.raises(TimeoutError):
            frame(viewer, 0.2)
        assert len(served.session.times) == count
        confirm(viewer, shown)
        assert frame(viewer).status["count"] >= count  # the newest, none in between
        until(lambda: len(served.session.times) > count)


def test_a_viewer_that_confirms_late_gets_the_newest_frame(served):
    with look(served) as slow:
        shown = frame(slow)
        before = shown.status["count"] + 3
        until(lambda: len(served.session.times) > before)
        confirm(slow, shown)
        late = frame(slow)
        assert late.status["count"] > before
        assert (late.picture == late.status["count"] % 256).all()


def test_the_last_frame_always_arrives():
    session = Counter()
    session.pause_at = 5
    with serve(session) as served, look(served) as viewer:
        shown = frame(viewer)
        until(lambda: len(session.times) == 5)
        while shown.status["count"] < 5:
            confirm(viewer, shown)
            shown = frame(viewer)


def test_two_viewers_see_the_same_at_their_own_pace(served):
    with look(served) as slow, look(served) as quick:
        waiting = frame(slow)
        for _ in range(20):
            shown = frame(quick)
            confirm(quick, shown)
        with pytest.raises(TimeoutError):
            slow.recv(0.01)
        confirm(slow, waiting)
        assert frame(slow).status["count"] >= shown.status["count"]


def test_time_that_was_lost_is_not_made_up_for():
    session = Counter()
    session.seconds = {5: 0.3}
    with serve(session) as served, look(served) as viewer:
        while len(session.times) < 15:
            confirm(viewer, frame(viewer))
    after = session.times[5:15]
    assert after[4] - after[0] >= 3 * session.seconds_per_step


def test_time_stands_still_while_nobody_looks(served):
    time.sleep(0.1)
    assert not served.session.times
    with look(served) as viewer:
        until(lambda: bool(served.session.times))
        say(viewer, visible=False)
        until(lambda: ("nobody", "pause") in served.session.told)
        assert ("viewer 0", "let go") in served.session.told
        count = len(served.session.times)
        time.sleep(0.1)
        assert len(served.session.times) == count
        say(viewer, visible=True)
        until(lambda: len(served.session.times) > count)
        served.session.told.clear()
    until(lambda: ("nobody", "pause") in served.session.told)
    count = len(served.session.times)
    time.sleep(0.1)
    assert len(served.session.times) == count


def test_time_goes_on_while_one_of_two_looks(served):
    with look(served) as first:
        with look(served):
            pass
        until(lambda: ("viewer 1", "let go") in served.session.told)
        assert ("nobody", "pause") not in served.session.told
        shown = frame(first)
        confirm(first, shown)
        assert frame(first).number > shown.number


def test_a_session_that_fails_ends_the_command_and_every_viewer_is_told(caplog, monkeypatch):
    session = Counter()
    session.fail_at, session.runs = 5, False
    ended = []
    with web.listen(0) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        site = web.Site(session, "play", port)
        monkeypatch.setattr(web, "Site", lambda *_: site)

        def command() -> None:
            with pytest.raises(RuntimeError, match="the session failed") as end:
                web.serve(session, "play", listener, open_browser=False)
            ended.append(repr(end.value.__cause__))

        thread = threading.Thread(target=command, daemon=True)
        thread.start()
        served = Served(session, site, port)
        with look(served) as first, look(served) as second:
            session.runs = True
            assert close_code(first) == close_code(second) == 4000
        thread.join(PATIENCE)
    assert ended == [r"IndexError('no such\nlevel')"]
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["hotoven: the session failed: IndexError: no such?level"]


# The real games


def test_lavagrid_is_played_over_the_socket():
    with serve(Game(LavaGrid(), 0, 8)) as served:
        with look(served) as viewer:
            shown = frame(viewer)
            assert shown.status["message"] == "Press an arrow key to move."
            assert shown.picture.shape == (40, 40, 3)
            say(viewer, keys=["down"])
            confirm(viewer, shown)
            shown = frame(viewer)
            assert shown.status["message"].startswith("Died: lava, after 1 step.")
            np.testing.assert_array_equal(shown.picture, served.session.show()[1])
            confirm(viewer, shown)
            say(viewer, do="next")
            while shown.status["level"] != "level 1":
                shown = frame(viewer)
                confirm(viewer, shown)
        with look(served) as again:  # where it was
            assert frame(again).status["level"] == "level 1"


@pytest.mark.slow
def test_coinrun_is_played_over_the_socket_at_its_own_speed():
    game = Game(CoinRun(mode="hard"), 7, 8)
    game.get_ready()
    with serve(game) as served, look(served) as viewer:
        say(viewer, keys=["right"])
        begin = time.monotonic()
        while len(game.actions) < 30:
            confirm(viewer, frame(viewer))
        seconds = time.monotonic() - begin
    assert game.actions[:30] == [7] * 30
    assert seconds > 28 / 15
