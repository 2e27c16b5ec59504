"""`robolearn demo`: the whole way, from an empty folder to a page with videos.

Record demonstrations, train on their pictures, evaluate on unseen seeds, evaluate once more with
the instructions shuffled between episodes (a policy that listens must then fail), write the page
and the committed summary.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from robolearn.checkpoint import checkpoints
from robolearn.config import load_config, save_config
from robolearn.evaluate import evaluate
from robolearn.options import DemoConfig, EvalConfig, RecordConfig, TrainConfig, worker_options
from robolearn.record import record
from robolearn.report import write_report
from robolearn.results import Result, save_result
from robolearn.train import train

SETTINGS: Final = "demo-config.json"


@dataclass(frozen=True)
class Size:
    """How much of everything a preset does."""

    episodes: int  # demonstrations
    steps: int  # of training
    evaluate: int  # episodes of each evaluation
    videos: int = 8  # episodes that are filmed


SIZES: Final[dict[str, Size]] = {
    "demo": Size(episodes=800, steps=4000, evaluate=200),
    "long": Size(episodes=1600, steps=10_000, evaluate=200),
    "tiny": Size(episodes=4, steps=20, evaluate=2),  # proves in a minute that all parts fit
}


def demo(config: DemoConfig) -> Path:
    """Records and trains what is missing, evaluates, and returns the page.

    Raises:
        ValueError, OSError: see the single steps; what was finished stays and is not repeated.
    """
    begin, size, say = time.perf_counter(), SIZES[config.preset], Console(stderr=True).print
    data = config.out / "data"
    fresh = not data.exists()
    _check_same_demo(config)
    say(f"[bold]1/4[/] {size.episodes} demonstrations")
    record(RecordConfig(out=data, episodes=size.episodes, **worker_options(config)))
    say(f"[bold]2/4[/] training for {size.steps} steps")
    training = TrainConfig(
        data, config.out, steps=size.steps, seed=config.seed, device=config.device
    )
    train(replace(training, resume=bool(checkpoints(config.out))))
    say(f"[bold]3/4[/] {size.evaluate} unseen episodes, then with shuffled instructions")
    matched, shuffled = (_evaluate(config, size, shuffle=s) for s in (False, True))
    say("[bold]4/4[/] the page")
    page = config.out / "report.html"
    write_report(config.out / "eval", config.out, page, [config.out / "eval-shuffled"])
    # The time of a demo that went on where an earlier one stopped says nothing.
    seconds = time.perf_counter() - begin if fresh else None
    _summarise(config, matched, shuffled, seconds)
    return page


def _check_same_demo(config: DemoConfig) -> None:
    """Notes the preset and seed of a folder, and refuses others.

    Raises:
        ValueError: the folder holds another demo.
    """
    if (config.out / SETTINGS).exists():
        before = load_config(DemoConfig, config.out, SETTINGS)
        if (before.preset, before.seed) != (config.preset, config.seed):
            raise ValueError(
                f"{config.out} holds the demo {before.preset!r} with seed {before.seed}; "
                "take another --out, or remove it"
            )
    save_config(config, config.out, SETTINGS)


def _evaluate(config: DemoConfig, size: Size, *, shuffle: bool) -> Result:
    return evaluate(
        EvalConfig(
            policy=str(config.out),
            episodes=size.evaluate,
            shuffle_instructions=shuffle,
            videos=0 if shuffle else size.videos,
            **worker_options(config),
            device=config.device,
        )
    )


def _summarise(
    config: DemoConfig, matched: Result, shuffled: Result, seconds: float | None
) -> None:
    figures: dict[str, Any] = {
        "success": matched["success"],
        "success_low": matched["success_low"],
        "success_high": matched["success_high"],
        "n": matched["n"],
        "seeds": matched["seeds"],
        "success_shuffled_instructions": shuffled["success"],
        "wall_seconds": seconds,
        "latency_ms": matched["latency_ms"],
        "replan_every": matched["replan_every"],
        "renderer": matched["renderer"],
        "held_out_instructions": matched["held_out_instructions"],
    }
    save_result(config.results or config.out, config.preset, config, figures)


def main(config: DemoConfig) -> int:
    """Runs the command."""
    page = demo(config)
    print(f"{page} is ready; open it in a browser")
    return 0
