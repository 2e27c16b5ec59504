"""`robolearn bench-serve`: how many clients a policy server holds, and what it survives.

For each number of clients a fresh measurement: every client sends an observation with pictures
`rate` times a second, as long as it gets its answers in time, and waits for each. Then broken
messages, of three kinds: random bytes, messages that end in the middle, and messages with flipped
bytes. Server and clients share this machine, so the figures are a lower bound.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from robolearn.results import save_result

ENOUGH: Final = 0.98  # share of the wanted answers with which a load counts as held
FLIPS: Final = 8  # bytes


@dataclass(frozen=True)
class BenchServeConfig:
    """Measure a policy server: load, latency, broken messages."""

    policy: str  # a checkpoint, or a run (its newest checkpoint)
    results: Path = Path("docs/results")  # where the summary, serve.json, goes
    clients: tuple[int, ...] = (1, 2, 4, 8, 16, 32)  # at once
    rate: float = 20.0  # observations a second that each client sends
    seconds: float = 10.0  # for each number of clients
    malformed: int = 10_000  # broken messages
    batch: int = 16  # observations that the server answers together, at most
    device: str = "cpu"  # of the server

    def __post_init__(self) -> None:
        """Refuses what measures nothing.

        Raises:
            ValueError: naming the option.
        """
        for name in ("rate", "seconds", "malformed", "batch", "clients"):
            value = getattr(self, name)
            if not np.size(value) or np.min(value) <= 0:
                raise ValueError(f"--{name} is {value}; give more than 0")


def bench(config: BenchServeConfig) -> dict[str, Any]:
    """Measures, writes `<results>/serve.json` and returns its figures.

    Raises:
        ValueError, OSError: a policy that cannot be served.
    """
    from robolearn.sources import source_of

    with serving(config) as url:
        message = an_observation(source_of(url))
        console = Console(stderr=True)
        steps = track(config.clients, "clients", console=console)
        loads = [asyncio.run(_load(url, message, count, config)) for count in steps]
        survived = asyncio.run(_break(url, message, config.malformed))
    held = [load for load in loads if load["answered_share"] >= ENOUGH]
    figures = {
        "clients": loads[-1]["clients"],
        "requests_per_s": loads[-1]["answered_per_s"],
        "p99_ms": loads[-1]["p99_ms"],
        "held_clients": held[-1]["clients"] if held else 0,
        "saturates_at_per_s": max(load["answered_per_s"] for load in loads),
        "malformed_frames_survived": survived,
        "loads": loads,
    }
    config.results.mkdir(parents=True, exist_ok=True)
    save_result(config.results, "serve", config, figures)
    return figures


@contextmanager
def serving(config: BenchServeConfig) -> Iterator[str]:
    """The address of a server in a process of its own."""
    options = ["--policy", config.policy, "--port", "0", "--batch", str(config.batch)]
    options += ["--clients", str(max(config.clients) + 1), "--device", config.device]
    command = [sys.executable, "-m", "robolearn", "serve", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # since it was asked for
        try:
            url = process.stdout.readline().partition(" ")[0]
            if not url:
                raise ValueError(f"{config.policy} cannot be served; see the message above")
            yield url
        finally:
            process.terminate()


def an_observation(source: Any) -> bytes:  # noqa: ANN401
    """What a client of this policy would send, made up."""
    from robolearn.wire import pack

    policy = source.load()
    rng = np.random.default_rng(0)
    pictures = {
        name: rng.integers(0, 256, (*size, 3), np.uint8) for name, size in policy.cameras.items()
    }
    state = np.zeros(policy.state_size, np.float32)
    told = {
        "agent_pos": np.zeros(policy.joints, np.float32),
        "pixels": pictures,
        "environment_state": state,
    }
    return pack({**told, "prompt": "put the red cube into the blue bin"})


async def _load(url: str, message: bytes, count: int, config: BenchServeConfig) -> dict[str, Any]:
    """So many clients for so many seconds; the first second warms up and does not count."""
    begin = time.perf_counter() + 1.0
    spans = await asyncio.gather(
        *[_client(url, message, config, begin, k / count) for k in range(count)]
    )
    milliseconds = 1000.0 * np.concatenate(spans)
    wanted = count * config.rate * config.seconds
    return {
        "clients": count,
        "asked_per_s": count * config.rate,
        "answered_per_s": len(milliseconds) / config.seconds,
        "answered_share": len(milliseconds) / wanted,
        "p50_ms": float(np.percentile(milliseconds, 50)),
        "p99_ms": float(np.percentile(milliseconds, 99)),
    }


async def _client(
    url: str, message: bytes, config: BenchServeConfig, begin: float, phase: float
) -> np.ndarray:
    """Seconds that each answer took which came within the time measured."""
    from websockets.asyncio.client import connect

    spans: list[float] = []
    due = begin - 1.0 + phase / config.rate
    async with connect(url, compression=None) as socket:
        await socket.recv()
        while (sent := time.perf_counter()) < begin + config.seconds:
            await asyncio.sleep(due - sent)
            sent = time.perf_counter()
            await socket.send(message)
            await socket.recv()
            if begin <= sent < begin + config.seconds:
                spans.append(time.perf_counter() - sent)
            due = max(due + 1.0 / config.rate, time.perf_counter())  # no burst after a late one
    return np.array(spans)


async def _break(url: str, message: bytes, count: int) -> int:
    """Sends broken messages; how many were answered, if the server still serves after them."""
    from websockets.asyncio.client import connect

    rng = np.random.default_rng(0)
    async with connect(url, compression=None, max_size=None) as socket:
        await socket.recv()
        for number in range(count):
            await socket.send(_broken(message, number % 3, rng))
            await asyncio.wait_for(socket.recv(), 30.0)
        await socket.send(message)
        answer = await asyncio.wait_for(socket.recv(), 30.0)
    if isinstance(answer, str):
        raise RuntimeError(f"the server has stopped to serve: {answer}")
    return count


def _broken(message: bytes, kind: int, rng: np.random.Generator) -> bytes:
    if kind == 0:
        return rng.bytes(int(rng.integers(1, 300)))
    if kind == 1:
        return message[: int(rng.integers(1, len(message)))]
    flipped = bytearray(message)
    for _ in range(FLIPS):
        flipped[int(rng.integers(300))] = int(rng.integers(256))
    return bytes(flipped)


def main(config: BenchServeConfig) -> int:
    """Runs the command."""
    figures = bench(config)
    table = Table("clients", "asked/s", "answered/s", "p50 ms", "p99 ms")
    for load in figures["loads"]:
        names = ("asked_per_s", "answered_per_s", "p50_ms", "p99_ms")
        table.add_row(str(load["clients"]), *[f"{load[name]:.1f}" for name in names])
    Console().print(table)
    print(f"{figures['malformed_frames_survived']} broken messages survived")
    print(f"{config.results / 'serve.json'} holds everything")
    return 0
