"""The report: one HTML file with an evaluation's figures, its videos and the learning curve.

It opens from disk in any browser and refers to nothing outside itself: videos are data URIs, charts
are inline SVG.

An evaluation is a folder with `result.json` (a `Result`) and `videos/*.mp4`, as `robolearn eval`
writes it; a run is a folder with `log.jsonl`, as `robolearn train` writes it: one JSON object a
line with `step`, and where known `samples`, `seconds`, `samples_per_s`, `loss`, `<group>/loss`.
"""

import base64
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from robolearn.files import write_atomic
from robolearn.pages import duration, page
from robolearn.results import FORMAT, EpisodeResult, Result
from robolearn.stats import mcnemar_exact, wilson

COLOURED_THING: Final = re.compile(
    r"\b(red|green|blue|yellow|orange|purple|pink|brown|black|white|gr[ae]y|cyan|magenta) (\w+)",
    re.IGNORECASE,
)
# Paraphrases of one goal are one group.
SYNONYMS: Final = {"block": "cube", "box": "bin"}
CONTAINERS: Final = frozenset({"bin", "bowl", "tray", "basket"})


class ReportError(ValueError):
    """A report that cannot be built; the message says what is missing."""


def write_report(
    evaluation: Path,
    run: Path | None,
    out: Path,
    extra: Sequence[Path] = (),
    *,
    max_videos: int = 24,
) -> None:
    """Writes the report of an evaluation as one HTML file.

    Args:
        evaluation: the folder of the evaluation.
        run: the folder of the training run, for the learning curve; none leaves it out.
        out: the HTML file; an old one is replaced only when the new one is complete.
        extra: folders of further evaluations, shown beside it in the summary.
        max_videos: how many videos to embed at most.

    Raises:
        ReportError: an input is missing or damaged, or `out` cannot be written.
    """
    folders = (evaluation, *extra)
    page = _render(
        evaluation,
        {folder: _load_result(folder) for folder in folders},
        _load_log(run) if run else [],
        max_videos,
    )
    try:
        write_atomic(out, page.encode())
    except OSError as error:
        raise ReportError(f"cannot write the report to {out}: {error.strerror}") from error


def _render(
    evaluation: Path, results: Mapping[Path, Result], log: list[dict[str, Any]], max_videos: int
) -> str:
    from robolearn import charts  # matplotlib

    result = results[evaluation]
    episodes = result["episodes"]
    shown = chosen_videos(episodes, max_videos)
    unit, losses = _losses(log)
    return page(
        "report_template.html",
        result=result,
        evaluations=[
            {"name": folder.resolve().name, "result": other, "p": _paired_p(result, other)}
            for folder, other in results.items()
        ],
        # What was asked decides the goal; the words are those that the agent heard.
        by_goal=_rates([goal(e["instruction"]) for e in episodes], episodes),
        by_phrasing=_rates([phrasing(e["agent_instruction"]) for e in episodes], episodes),
        series=charts.SERIES,
        length_chart=charts.length_chart(
            _lengths(episodes, success=True), _lengths(episodes, success=False)
        ),
        solved_chart=charts.solved_chart(
            [(_lengths(other["episodes"], success=True), other["n"]) for other in results.values()],
            max(e["length"] for other in results.values() for e in other["episodes"]),
        ),
        loss_chart=charts.loss_chart(losses, unit) if losses else None,
        losses=list(losses)[: len(charts.SERIES)],
        training=_training(log),
        videos={e["seed"]: embed(evaluation, e["video"]) for e in shown if e["video"]},
        strips={
            e["seed"]: embed(evaluation, strip, "image/png")
            for e in shown
            if (strip := e.get("strip"))
        },
        shown=shown,
    )


def _load_result(folder: Path) -> Result:
    path = folder / "result.json"
    if not path.is_file():
        raise ReportError(f"{folder} holds no result.json: give a folder that an evaluation wrote")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ReportError(f"{path} is damaged ({error}): run the evaluation again") from error
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise ReportError(f"{path} is not a result of format {FORMAT}: run the evaluation again")
    _require(Result.__required_keys__, result, str(path))
    if not result["episodes"]:
        raise ReportError(f"{path} holds no episodes: evaluate on at least one seed")
    for number, episode in enumerate(result["episodes"]):
        _require(EpisodeResult.__required_keys__, episode, f"{path}, episodes[{number}],")
    return cast(Result, result)


def _require(keys: Iterable[str], found: Mapping[str, Any], where: str) -> None:
    if missing := ", ".join(sorted(set(keys) - found.keys())):
        raise ReportError(f"{where} lacks {missing}: run the evaluation again")


def _load_log(run: Path) -> list[dict[str, Any]]:
    """The training log, in order of steps; where a resumed run repeats a step, its last word."""
    path = run / "log.jsonl"
    if not path.is_file():
        raise ReportError(f"{run} holds no log.jsonl: give a training run's folder, or no run")
    lines = path.read_text(encoding="utf-8").splitlines()
    records: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            records[record["step"]] = record
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # a killed run may leave half a line
                break
            raise ReportError(f"{path}, line {number}, is not a record with a step") from error
    if not records:
        raise ReportError(f"{path} holds no steps: train for at least one, or give no run")
    return [records[step] for step in sorted(records)]


def _losses(log: list[dict[str, Any]]) -> tuple[str, dict[str, np.ndarray]]:
    """What the log counts training in, and per loss its finite points, float64 (P, 2)."""
    unit = "samples" if all("samples" in record for record in log) else "step"
    names = sorted({key for record in log for key in record if re.fullmatch(r"(.+/)?loss", key)})
    curves = {}
    for name in names:
        pairs = [(record[unit], record[name]) for record in log if record.get(name) is not None]
        points = np.array(pairs, np.float64)
        if (finite := np.isfinite(points).all(axis=1)).any():
            curves[name] = points[finite]
    return ("samples seen" if unit == "samples" else "optimiser steps"), curves


def _training(log: list[dict[str, Any]]) -> str:
    """One line about the run: steps, time, speed; what the log lacks is left out."""
    if not log:
        return ""
    last = log[-1]
    speeds = [record["samples_per_s"] for record in log if record.get("samples_per_s")]
    facts = [f"{last['step']:,} steps"]
    facts += [f"in {duration(last['seconds'])}"] if "seconds" in last else []
    facts += [f"at {float(np.median(speeds)):,.0f} samples/s"] if speeds else []
    return " ".join(facts)


@dataclass(frozen=True)
class Rate:
    """A success rate with its 95 % Wilson interval."""

    name: str
    successes: int
    n: int

    @property
    def rate(self) -> float:
        """The share of successes, 0..1."""
        return self.successes / self.n

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Its lower and upper end, 0..1."""
        return wilson(self.successes, self.n)


def goal(instruction: str) -> str:
    """The goal of an instruction in whatever words, e.g. "red cube → blue bin".

    It is made of the coloured things that the instruction names, and is the whole instruction
    where there are none.
    """
    found = COLOURED_THING.findall(instruction.lower())
    things = [(colour, SYNONYMS.get(noun, noun)) for colour, noun in found]
    things.sort(key=lambda thing: thing[1] in CONTAINERS)  # "in the blue bin, put the red cube"
    return " → ".join(" ".join(thing) for thing in things) or instruction


def phrasing(instruction: str) -> str:
    """The instruction without its colours, e.g. "put the … cube in the … bin"."""
    return COLOURED_THING.sub(r"… \2", instruction)


def _rates(names: Iterable[str], episodes: Iterable[EpisodeResult]) -> list[Rate]:
    """The success rate of the episodes that share a name, the weakest first."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for name, episode in zip(names, episodes, strict=True):
        groups[name].append(episode["success"])
    rates = (Rate(name, sum(group), len(group)) for name, group in groups.items())
    return sorted(rates, key=lambda rate: (rate.rate, rate.name))


def _paired_p(first: Result, other: Result) -> float | None:
    """McNemar's p against the first evaluation; None unless both ran the same episodes."""
    if any(first.get(key) != other.get(key) for key in ("env_id", "split")):
        return None
    a, b = ({e["seed"]: e["success"] for e in result["episodes"]} for result in (first, other))
    if first is other or a.keys() != b.keys():
        return None
    return mcnemar_exact(list(a.values()), [b[seed] for seed in a])


def _lengths(episodes: list[EpisodeResult], *, success: bool) -> list[int]:
    return [episode["length"] for episode in episodes if episode["success"] is success]


def chosen_videos(episodes: list[EpisodeResult], limit: int) -> list[EpisodeResult]:
    """The episodes whose video is shown: failures first, with a third kept for successes."""
    filmed = [episode for episode in episodes if episode["video"]]
    failed = [episode for episode in filmed if not episode["success"]]
    solved = [episode for episode in filmed if episode["success"]]
    return [*failed[: limit - min(len(solved), limit // 3)], *solved][:limit]


def embed(folder: Path, file: str, kind: str = "video/mp4") -> str:
    """A video or picture as a data URI.

    Raises:
        ReportError: it is missing.
    """
    path = folder / file
    if not path.is_file():
        raise ReportError(f"{path} is missing, but result.json names it: run the evaluation again")
    return f"data:{kind};base64," + base64.b64encode(path.read_bytes()).decode()
