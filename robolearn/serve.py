"""`robolearn serve`: a policy that other programs and machines ask over a websocket.

The wire format is openpi's (`robolearn.wire`): the server greets with a map of what it is; then
each binary message is an observation (`robolearn.ask`), and each answer a map with `actions`. A
text answer is an error.

Observations that wait at the same moment are answered together. A connection has one request at a
time, so what is kept is bounded by the number of clients, and nobody's slowness holds up others.
"""

import asyncio
import hmac
import logging
import os
import ssl
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from http import HTTPStatus
from ipaddress import ip_address
from itertools import groupby
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from robolearn.ask import GOAL_KEY, Ask, request_of
from robolearn.config import to_json
from robolearn.memory import check_candidates
from robolearn.options import TOKEN, ServeConfig
from robolearn.policies.base import (
    Chunks,
    Context,
    Generators,
    Overlap,
    Policy,
    as_tensors,
    stacked,
)
from robolearn.policies.scorers import Scorer, open_scorer
from robolearn.results import versions
from robolearn.sources import Source, source_of
from robolearn.wire import WireError, pack, unpack

SEND_SECONDS: Final = 10.0  # a client that takes an answer no faster is let go


class Waiting(NamedTuple):
    """A request in the queue."""

    ask: Ask
    answer: "asyncio.Future[dict[str, Any]]"


class PolicyServer:
    """Answers observations with action chunks.

    Args:
        config: the address and the limits.

    Raises:
        ValueError, OSError: a policy that cannot be used, or an address that is not safe.
    """

    def __init__(self, config: ServeConfig) -> None:
        self.config, self._token = config, os.environ.get(TOKEN, "")
        self._tls = _tls(config)
        if not self._token and not _is_loopback(config.host):
            raise ValueError(
                f"{config.host} can be reached from other machines; set {TOKEN} to a long secret, "
                "here and for the clients, or take --host 127.0.0.1"
            )
        source = source_of(config.policy)
        self._policy = source.load(config.device)
        self._scorer: Scorer | None = None
        if config.scorer:
            self._scorer = open_scorer(config.scorer, self._policy, source)
        elif config.candidates > 1:
            raise ValueError("several candidates need someone who chooses; give --scorer")
        if config.candidates > 1:
            check_candidates(self._rehearse, config.candidates)
        self._greeting = pack(greeting(source, self._policy))
        self._queue: asyncio.Queue[Waiting] = asyncio.Queue()
        self._clients = 0

    def _rehearse(self, candidates: int) -> None:
        """Answers as many questions at once as it ever will."""
        policy = self._policy
        past = (policy.history,) if policy.history > 1 else ()
        pictures = {c: np.zeros((*past, *s, 3), np.uint8) for c, s in policy.cameras.items()}
        nothing = {
            "agent_pos": np.zeros((*past, policy.joints)),
            "environment_state": np.zeros((*past, policy.state_size)),
            "pixels": pictures,
            GOAL_KEY: pictures,
        }
        ask = request_of(nothing, policy)
        planned = np.zeros((policy.horizon, policy.joints), np.float32)
        overlap = Overlap(planned, np.ones(policy.horizon, np.float32))
        for asked in (ask, replace(ask, overlap=overlap)):
            self._infer([asked] * self.config.batch, candidates)

    async def run(self, ready: "asyncio.Future[int] | None" = None) -> None:
        """Serves until it is cancelled.

        Args:
            ready: is told the port once the server listens.

        Raises:
            OSError: the port is taken.
        """
        with ThreadPoolExecutor(1) as thread:
            async with self._listen() as server, asyncio.TaskGroup() as group:
                group.create_task(self._infer_for_ever(thread))
                port = next(iter(server.sockets)).getsockname()[1]
                if ready is not None:
                    ready.set_result(port)
                await server.serve_forever()

    def _listen(self) -> AbstractAsyncContextManager[Server]:
        logger = logging.getLogger("robolearn.serve")
        logger.setLevel(logging.CRITICAL)  # a stranger's broken greeting is no event
        return serve(
            self._converse,
            self.config.host,
            self.config.port,
            ssl=self._tls,
            process_request=self._admit,
            compression=None,
            max_size=self.config.max_mib << 20,
            max_queue=2,
            logger=logger,
        )

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answers health checks; turns away who has no token or comes when it is full."""
        if request.path == "/healthz":
            return connection.respond(HTTPStatus.OK, "OK\n")
        given = request.headers.get("Authorization", "").removeprefix("Api-Key ")
        if self._token and not hmac.compare_digest(given.encode(), self._token.encode()):
            return connection.respond(HTTPStatus.UNAUTHORIZED, f"set {TOKEN} to the token\n")
        if self._clients >= self.config.clients:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "too many clients\n")
        return None

    async def _converse(self, connection: ServerConnection) -> None:
        """One client, from greeting to farewell."""
        self._clients += 1
        try:
            await _send(connection, self._greeting)
            async for message in connection:
                await _send(connection, await self._answer(message))
        except (ConnectionClosed, TimeoutError):
            pass  # gone, or too slow
        finally:
            self._clients -= 1

    async def _answer(self, message: bytes | str) -> bytes | str:
        try:
            if isinstance(message, str):
                raise WireError("an observation is a binary message")
            ask = request_of(unpack(message), self._policy)
        except ValueError as error:
            return f"refused: {error}"
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        await self._queue.put(Waiting(ask, answer))
        try:
            return pack(await answer)
        except Exception as error:  # noqa: BLE001 (of the policy: told to who asked)
            return f"the policy failed: {error!r}"

    async def _infer_for_ever(self, thread: ThreadPoolExecutor) -> None:
        """Takes what waits, at most `batch` at once, and answers it."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._queue.get()]
            while len(batch) < self.config.batch and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            batch.sort(key=lambda waiting: waiting.ask.kind)
            for _, group in groupby(batch, key=lambda waiting: waiting.ask.kind):
                alike = [waiting for waiting in group if not waiting.answer.done()]
                if not alike:
                    continue
                asks = [waiting.ask for waiting in alike]
                answers: Sequence[dict[str, Any] | Exception]
                try:
                    answers = await loop.run_in_executor(
                        thread, self._infer, asks, self.config.candidates
                    )
                except Exception as error:  # noqa: BLE001 (one bad question must not end the server)
                    answers = [error] * len(alike)
                for waiting, answer in zip(alike, answers, strict=True):
                    _settle(waiting.answer, answer)

    @torch.inference_mode()
    def _infer(self, asks: list[Ask], candidates: int) -> list[dict[str, Any]]:
        """Chunks for questions of one kind, or the best of so many candidates."""
        begin = time.perf_counter()
        observations = stacked([ask.observation for ask in asks])
        tensors = as_tensors(observations, self._policy.device)
        context = self._policy.encode(tensors, [ask.instruction for ask in asks])
        wanted, noise = asks[0].candidates, [ask.noise for ask in asks]
        chunks = self._chunks(asks, context, wanted or candidates, noise)
        best = torch.zeros(len(asks), dtype=torch.long)
        if self._scorer is not None and not wanted:
            best = self._scorer.score(context, chunks, noise).argmax(1).cpu()
        notes = {name: values.tolist() for name, values in self._policy.notes(context).items()}
        took = 1000.0 * (time.perf_counter() - begin)
        return [
            _reply(chunks, row, int(best[row]), wanted)
            | {"notes": {name: values[row] for name, values in notes.items()}}
            | {"server_timing": {"infer_ms": took, "wait_ms": 1000.0 * (begin - ask.arrived)}}
            for row, ask in enumerate(asks)
        ]

    def _chunks(self, asks: list[Ask], context: Context, n: int, noise: Generators) -> Chunks:
        """What the policy makes of questions of one kind, n chunks for each."""
        shown = [ask.refine for ask in asks if ask.refine is not None]
        if shown:
            tried = torch.from_numpy(np.stack(shown)).to(context.agent_pos)
            return self._policy.refine(context, tried, noise, asks[0].level)
        under_way = [ask.overlap for ask in asks if ask.overlap is not None]
        if under_way:
            return self._policy.follow(context, n, noise, under_way)
        return self._policy.sample(context, n, noise)


def _reply(chunks: Chunks, row: int, best: int, wanted: int) -> dict[str, Any]:
    reply: dict[str, Any] = {"actions": chunks.actions[row, best].cpu().numpy()}
    if wanted:
        reply["candidates"] = chunks.actions[row].cpu().numpy()
        reply["features"] = chunks.features[row].float().cpu().numpy()
    return reply


def _settle(answer: "asyncio.Future[dict[str, Any]]", result: dict[str, Any] | Exception) -> None:
    """Hands a result to whoever waits for it, if anybody still does."""
    if answer.done():
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)


async def _send(connection: ServerConnection, message: bytes | str) -> None:
    async with asyncio.timeout(SEND_SECONDS):
        await connection.send(message)


def greeting(source: Source, policy: Policy) -> dict[str, Any]:
    """What a client is told first: what the policy wants to see and what it gives."""
    return {
        "robolearn": versions()["robolearn"],
        "horizon": policy.horizon,
        "history": policy.history,
        "cameras": {name: list(size) for name, size in policy.cameras.items()},
        "state_size": policy.state_size,
        "goals": policy.goals,
        "follows": True,  # older servers would not look at an overlap
        "arm": to_json(dict(policy.arm)),
        "joints": policy.joints,
        "spread": policy.spread.tolist(),
        "env": source.env,
        "fingerprint": source.fingerprint,
    }


def _tls(config: ServeConfig) -> ssl.SSLContext | None:
    if (config.certificate is None) != (config.key is None):
        raise ValueError("TLS needs both --certificate and --key")
    if config.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(config.certificate, config.key)
    return context


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _serve(server: PolicyServer) -> None:
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def announce(told: "asyncio.Future[int]") -> None:
        scheme = "ws" if server.config.certificate is None else "wss"
        print(f"{scheme}://{server.config.host}:{told.result()} serves {server.config.policy}")
        print("Ctrl-C ends it", flush=True)

    ready.add_done_callback(announce)
    await server.run(ready)


def main(config: ServeConfig) -> int:
    """Runs the command: serves until Ctrl-C."""
    try:
        asyncio.run(_serve(PolicyServer(config)))
    except KeyboardInterrupt:
        print()
    return 0
