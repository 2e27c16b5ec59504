"""One conversation with a policy server: questions and answers over a websocket, see `remote`."""

import os
from contextlib import ExitStack, suppress
from typing import Any, Final

from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from robolearn.options import TOKEN
from robolearn.wire import WireError, pack, unpack

PATIENCE: Final = 10.0  # s for an answer; an arm has held for long by then
MAX_ANSWER: Final = 64 << 20  # bytes


class RemoteError(OSError):
    """A server that cannot be reached, refuses, or answers nonsense."""


class Connection:
    """One conversation with a server; opened anew if it breaks between two requests.

    Args:
        url: ws://HOST:PORT or wss://HOST:PORT.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._socket: ClientConnection | None = None
        self._held = ExitStack()  # closes it
        self.greeting: dict[str, Any] = {}

    def open(self) -> dict[str, Any]:
        """Connects and returns the server's greeting.

        Raises:
            RemoteError: it cannot be reached, or does not let us in.
        """
        token = os.environ.get(TOKEN, "")
        headers = {"Authorization": f"Api-Key {token}"} if token else None
        limits: dict[str, Any] = {"max_size": MAX_ANSWER, "open_timeout": PATIENCE}
        try:
            self._socket = self._held.enter_context(
                connect(self.url, compression=None, additional_headers=headers, **limits)
            )
            greeting = _unpacked(self._socket.recv(PATIENCE), self.url)
        except InvalidStatus as error:
            said = error.response.body.decode(errors="replace").strip()
            raise RemoteError(f"{self.url} does not let us in: {said}") from error
        except (OSError, WebSocketException) as error:
            raise RemoteError(
                f"{self.url} does not answer ({error}); start it with: robolearn serve"
            ) from error
        self._check_same(greeting)
        self.greeting = greeting
        return greeting

    def _check_same(self, greeting: dict[str, Any]) -> None:
        """Refuses a server that was restarted with another policy."""
        before = self.greeting.get("fingerprint")
        if before is not None and greeting.get("fingerprint") != before:
            self.close()
            raise RemoteError(f"{self.url} has another policy now; begin again with that one")

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """The server's answer.

        Raises:
            RemoteError: it refuses, is gone, or takes longer than `PATIENCE`.
        """
        data = pack(message)
        if self._socket is None:
            self.open()
        try:
            return _unpacked(self._exchange(data), self.url)
        except (OSError, WebSocketException) as error:
            self.close()
            if isinstance(error, RemoteError):
                raise
            raise RemoteError(f"{self.url} has gone silent ({error})") from error

    def _exchange(self, data: bytes) -> bytes | str:
        assert self._socket is not None
        try:
            self._socket.send(data)
        except WebSocketException:  # it was restarted since the last request
            self.open()
            self._socket.send(data)
        return self._socket.recv(PATIENCE)

    def close(self) -> None:
        """Hangs up."""
        self._socket = None
        with suppress(OSError, WebSocketException):
            self._held.close()


def _unpacked(answer: bytes | str, url: str) -> dict[str, Any]:
    if isinstance(answer, str):
        raise RemoteError(f"{url} says: {answer.strip()[-500:]}")
    try:
        return unpack(answer)
    except WireError as error:
        raise RemoteError(f"{url} does not speak our language: {error}") from error
