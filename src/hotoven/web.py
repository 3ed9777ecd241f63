"""A page on this machine's own address: pictures that move, keys that steer, nobody else let in.

The one module that knows the web server. What is shown and what keys do is the matter of a
`Session`; the pages themselves are the files in `page/`, which need no build and no foreign code.

Who may enter: the server listens on 127.0.0.1 alone. Every request must carry the address's random
token and this machine's name as its Host, and a socket also the page's Origin. Whoever does not is
refused in one line of the log. A GET changes nothing: only messages on the socket do.
"""

import asyncio
import contextlib
import io
import json
import logging
import os
import secrets
import socket
import struct
import threading
import webbrowser
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from typing import Any, Final, Protocol

import numpy as np
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

LOOPBACK: Final = "127.0.0.1"
MAX_MESSAGE: Final = 512  # bytes that a viewer may send at once
PATIENCE: Final = 1.0  # seconds a viewer may take over a frame before time waits for it
SOCKET: Final = "socket"  # the name under which a page finds it
TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}

# Codes with which a socket is closed (RFC 6455); the last is our own, and `page/stage.js` knows it.
_POLICY, _TOO_BIG, _FAILED = 1008, 1009, 4000

_log = logging.getLogger(__name__)


class Session(Protocol):
    """What a page shows and what its viewers may do; lasts as long as the server.

    All calls come from one thread, one after another. Viewers wait while one lasts.
    """

    @property
    def seconds_per_step(self) -> float:
        """Time between two steps."""
        ...

    @property
    def runs(self) -> bool:
        """Whether time passes: `step` is called while it does and somebody is looking."""
        ...

    def greeting(self) -> Mapping[str, Any]:
        """What a viewer is told once, as plain values."""
        ...

    def step(self) -> None:
        """Time has passed."""
        ...

    def hear(self, viewer: int, message: Mapping[str, Any]) -> None:
        """A viewer says something; raises ValueError where it makes no sense."""
        ...

    def let_go(self, viewer: int) -> None:
        """A viewer is gone or looks away, and holds no key any more."""
        ...

    def pause(self) -> None:
        """Nobody is looking any more."""
        ...

    def show(self) -> tuple[Mapping[str, Any], np.ndarray]:
        """How things stand, as plain values, and their picture uint8[height, width, 3]."""
        ...


@dataclass(eq=False)
class _Viewer:
    """One open page. It gets a frame when it has confirmed the last one, and then the newest."""

    number: int
    sent: int = -1  # the last frame it got
    sent_at: float | None = None  # when, while that is not confirmed
    visible: bool = True
    wake: asyncio.Event = field(default_factory=asyncio.Event)  # there may be a frame to send


class Site:
    """The pages of one session, as an ASGI application that lets in who has the address.

    Args:
      page: which page is at the address itself, the name of an HTML file in `page/`.
      port: on which the site will be served.
    """

    def __init__(self, session: Session, page: str, port: int):
        self.session = session
        self.token = secrets.token_urlsafe(24)
        self.failure: Exception | None = None  # of the session, after which nothing goes on
        self.give_up: Callable[[], None] = lambda: None  # called then: the server ends
        names = (LOOPBACK, "localhost")
        self.hosts = {f"{name}:{port}" for name in names} | (set(names) if port == 80 else set())
        self.address = f"http://{LOOPBACK}:{port}/{self.token}/"
        folder = files("hotoven") / "page"
        self._files = {file.name: file.read_bytes() for file in folder.iterdir()}
        self._files[""] = self._files[f"{page}.html"]
        self._viewers: set[_Viewer] = set()
        self._num_viewers = 0
        self._frame = 0  # number of the newest frame
        self._drawn: tuple[int, bytes] = (-1, b"")  # the last frame that was asked for
        self._app: ASGIApp = Starlette(
            routes=[
                Route("/{token}/{name}", self._file),
                Route("/{token}/", self._file),
                WebSocketRoute(f"/{{token}}/{SOCKET}", self._attend),
            ],
            lifespan=self._lifespan,
        )

    # Who may enter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        sender = _with_headers(send, next(iter(_header(scope, b"host")), ""))
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, sender)
            return
        status, reason = refusal
        what = scope.get("method", "socket")
        _log.warning("hotoven: refused %s with %s: %s", what, status, reason)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # before it was opened: the server answers 403
        else:
            await PlainTextResponse(f"{reason}\n", status)(scope, receive, sender)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the reason with which a request is refused; None where it may enter.

        The path is not part of a reason: it may hold the token.
        """
        hosts, origins = _header(scope, b"host"), _header(scope, b"origin")
        is_socket = scope["type"] == "websocket"
        if len(hosts) != 1 or hosts[0] not in self.hosts:
            allowed = " or ".join(sorted(self.hosts))
            return 403, f"Host must be {allowed}, got {_quoted(hosts)}"
        token, _, name = scope["path"].removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            return 403, "the address lacks the token that was printed with it"
        if origins != [f"http://{hosts[0]}"] and (origins or is_socket):
            return 403, f"Origin must be http://{hosts[0]}, got {_quoted(origins)}"
        if is_socket:
            return None if name == SOCKET else (403, "there is no such socket")
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "only GET and HEAD are allowed"
        return None if name in self._files else (404, "there is no such page")

    async def _file(self, request: Request) -> Response:
        name = request.path_params.get("name", "")
        kind = TYPES[name.rpartition(".")[2] or "html"]
        return Response(self._files[name], headers={"content-type": kind})

    # Who looks, and what they see

    async def _attend(self, socket: WebSocket) -> None:
        """One viewer, from its coming to its going."""
        await socket.accept()
        viewer = _Viewer(self._num_viewers)
        self._num_viewers += 1
        self._viewers.add(viewer)
        try:
            async with asyncio.TaskGroup() as tasks:
                sender = tasks.create_task(self._send_frames(socket, viewer))
                reason = await self._listen(socket, viewer)
                sender.cancel()
        finally:
            self._viewers.discard(viewer)
            self._look_away(viewer)
        if reason:
            reason = _line(reason)
            _log.warning("hotoven: refused a message: %s", reason)
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it is gone already
                await socket.close(_POLICY, reason[:100])

    async def _send_frames(self, socket: WebSocket, viewer: _Viewer) -> None:
        """Sends the newest frame whenever the viewer has confirmed an older one.

        After a failure it closes the socket instead.
        """
        texts = [json.dumps(self.session.greeting())]
        viewer.wake.set()
        while True:
            await viewer.wake.wait()
            viewer.wake.clear()
            if self.failure:
                with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it left
                    await socket.close(_FAILED)
                return
            if viewer.sent_at is not None or viewer.sent == self._frame:
                continue
            viewer.sent, viewer.sent_at = self._frame, asyncio.get_running_loop().time()
            frame = self._newest()
            try:
                while texts:
                    await socket.send_text(texts.pop())
                await socket.send_bytes(frame)
            except (WebSocketDisconnect, RuntimeError):  # it left; the listener will hear of it
                return

    def _newest(self) -> bytes:
        """The newest frame: the length of its status, 4 bytes; the status, JSON; a PNG."""
        number, drawn = self._drawn
        if number != self._frame:
            status, picture = self.session.show()
            told = json.dumps({**status, "frame": self._frame}).encode()
            file = io.BytesIO()
            # the quickest compression: pictures are flat, and the way to the viewer is short
            Image.fromarray(picture).save(file, "PNG", compress_level=1)
            drawn = struct.pack(">I", len(told)) + told + file.getvalue()
            self._drawn = (self._frame, drawn)
        return drawn

    async def _listen(self, socket: WebSocket, viewer: _Viewer) -> str:
        """Hears a viewer out; what was wrong with its last message, "" where it just left."""
        while True:
            event = await socket.receive()
            if event["type"] == "websocket.disconnect":
                too_big = event.get("code") == _TOO_BIG
                return f"it must be at most {MAX_MESSAGE} bytes long" if too_big else ""
            try:
                self._hear(viewer, event.get("text"))
            except (ValueError, RecursionError) as error:
                return str(error)

    def _hear(self, viewer: _Viewer, text: str | None) -> None:
        """Does what a message asks for; raises ValueError where it makes no sense."""
        try:
            message = json.loads(text or "")
        except ValueError:
            raise ValueError(f"it must be JSON, got {_quoted(text)}") from None
        if not isinstance(message, dict):
            raise ValueError(f"it must be a JSON object, got {_quoted(text)}")
        if "shown" in message:
            if message["shown"] is True or message["shown"] != viewer.sent:
                raise ValueError(f"frame {viewer.sent} was sent, got {_quoted(text)}")
            viewer.sent_at = None
            viewer.wake.set()
        elif "visible" in message:
            viewer.visible = message["visible"] is True
            if not viewer.visible:
                self._look_away(viewer)
        else:
            self.session.hear(viewer.number, message)
            self._changed()

    def _look_away(self, viewer: _Viewer) -> None:
        self.session.let_go(viewer.number)
        if not any(other.visible for other in self._viewers):
            self.session.pause()
        self._changed()

    def _changed(self) -> None:
        """There is something new to see."""
        self._frame += 1
        for viewer in self._viewers:
            viewer.wake.set()

    # Time

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        clock = asyncio.create_task(self._keep_time())
        yield
        clock.cancel()

    async def _keep_time(self) -> None:
        try:
            await self._make_steps()
        except Exception as error:
            _log.error("hotoven: the session failed: %s", _line(f"{type(error).__name__}: {error}"))
            self.failure = error
            self._changed()
            await asyncio.sleep(PATIENCE)  # in which viewers hear of it
            self.give_up()

    async def _make_steps(self) -> None:
        now = asyncio.get_running_loop().time
        due = now()
        while True:
            # A step that is late is not made up for: the game is never quicker than it should be.
            due = max(due + self.session.seconds_per_step, now())
            await asyncio.sleep(due - now())
            if self.session.runs and self._is_watched(now()):
                self.session.step()
                self._changed()

    def _is_watched(self, now: float) -> bool:
        """Whether somebody looks and keeps up."""
        return any(
            viewer.visible and (viewer.sent_at is None or now - viewer.sent_at < PATIENCE)
            for viewer in self._viewers
        )


def serve(session: Session, page: str, listener: socket.socket, open_browser: bool) -> None:
    """Serves a session's page until Ctrl-C, after printing its address in one line.

    Raises:
      KeyboardInterrupt: the end.
      RuntimeError: the session failed, from its own error.
    """
    site = Site(session, page, listener.getsockname()[1])
    listener.listen()  # who follows the address at once waits rather than being sent away
    print(f"{page} at {site.address} (Ctrl-C ends)", flush=True)
    if open_browser:
        # In a thread: a browser in a terminal would not return before it is closed.
        threading.Thread(target=webbrowser.open, args=(site.address,), daemon=True).start()
    server(site).run(sockets=[listener])
    if site.failure:
        raise RuntimeError("the session failed") from site.failure


def listen(port: int) -> socket.socket:
    """A socket on this machine's own address; port 0 is any that is free.

    Raises:
      ValueError: the port is taken, not allowed or none.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be from 0 to 65535, got {port}")
    listener = socket.socket()
    if os.name == "posix":  # elsewhere it would let two programs share a port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except OSError as error:
        listener.close()
        raise ValueError(f"port {port} cannot be used: {error.strerror}; 0 takes any") from None
    return listener


def server(site: Site) -> uvicorn.Server:
    """A server of that site; `run` it with the socket whose port the site was told."""
    made = uvicorn.Server(
        uvicorn.Config(
            site,
            loop="asyncio",
            http="h11",
            ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE,
            ws_per_message_deflate=False,  # a PNG is dense, and nothing unfolds beyond its size
            lifespan="on",
            log_config=None,
            log_level="warning",  # below that it tells the paths of sockets, and so the token
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
    )
    site.give_up = partial(setattr, made, "should_exit", True)
    return made


def _with_headers(send: Send, host: str) -> Send:
    """`send`, with what a browser must be told in every answer."""
    allowed = f"script-src 'self'; style-src 'self'; img-src 'self'; connect-src ws://{host}"
    headers = {
        "content-security-policy": f"default-src 'none'; {allowed}; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }

    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return sender


def _header(scope: Scope, name: bytes) -> list[str]:
    """All values of a header."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def _quoted(text: Any) -> str:
    """Foreign text for one line of the log: no line breaks, not long."""
    shown = ascii(text)
    return shown if len(shown) <= 80 else f"{shown[:80]}..."


def _line(text: str) -> str:
    """A reason that may quote foreign text, as one short line of ASCII."""
    plain = text.encode("ascii", "replace").decode()
    return "".join(mark if mark.isprintable() else "?" for mark in plain)[:200]
