"""`python -m robolearn.docs`: writes the tables of the documents.

A table stands between `<!-- table:NAME -->` and `<!-- /table -->`. Figures come from
docs/results/*.json, which the measuring commands write; commands, presets and aims come from the
code. Nobody types a number into a table, and what no result file holds is "not measured yet".
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from robolearn.bench import GOALS
from robolearn.cli import COMMANDS
from robolearn.files import write_atomic

Result = Mapping[str, Any]  # the contents of a result file
Results = Mapping[str, Result]  # file name without .json -> contents
Rows = list[list[str]]  # the first row is the head

RESULTS: Final = Path("docs/results")
OPEN: Final = re.compile(r"^<!-- table:", re.MULTILINE)
TABLE: Final = re.compile(
    r"(?P<open>^<!-- table:(?P<name>[\w-]+) -->\n).*?(?P<close>^<!-- /table -->$)",
    re.MULTILINE | re.DOTALL,
)
NOT_MEASURED: Final = "not measured yet"
NOT_REACHED: Final = "not reached"

PRESETS: Final = ("demo", "long")
PRESET_AIMS: Final = {
    "demo": "success at least 85 %, shuffled below 40 %, at most 25 minutes",
    "long": "success at least 95 %, at most 2 hours of training",
}
SPEEDS: Final = {
    "expert_success": "success of the scripted expert on 500 seeds",
    "step_rate_share_of_mj_step": "environment steps with state observations, share of the rate of "
    "bare `mj_step`",
    "batched_share_of_mj_step": "batched environment, share of the rate of bare `mj_step` on as "
    "many threads",
    "pixels_speedup_over_default_render": "pictures of two cameras, times the rate with MuJoCo's "
    "default render settings",
    "sampling_speedup_over_lerobot": "training samples from the frame cache, times the rate of "
    "LeRobotDataset with a DataLoader",
}
# label, figures, how they read, aim
ARM: Final[tuple[tuple[str, tuple[str, ...], Callable[..., str], str], ...]] = (
    (
        "faults after which the servos' registers are as they shall be",
        ("faults_safe", "faults_tried"),
        lambda safe, tried: f"{safe} of {tried}",
        "all",
    ),
    (
        "longest time from a fault to that",
        ("worst_seconds_to_safe",),
        lambda seconds: f"{seconds:.1f} s",
        "within the time that each fault allows",
    ),
    (
        "control cycles at 50 Hz that were missed, beside a busy thread and a policy",
        ("deadline_misses_share",),
        lambda share: f"{100 * share:.2f} %",
        "less than 0.5 %",
    ),
    (
        "lateness of a cycle, 99th percentile",
        ("lateness_p99_ms",),
        lambda ms: f"{ms:.1f} ms",
        "at most 3 ms",
    ),
    (
        "success of one checkpoint in simulation and on the twin",
        ("success_simulation", "success_twin", "n"),
        lambda one, two, n: f"{_percent(one)} and {_percent(two)}, n = {n} each",
        "within 5 points",
    ),
)
LEARNERS: Final = {"ours": "robolearn flow", "act": "LeRobot ACT", "diffusion": "LeRobot Diffusion"}


class DocsError(ValueError):
    """Documents that cannot be written; the message says what to do."""


def success_table(results: Results) -> Rows:
    """What the presets of `robolearn demo` reach."""
    lines: dict[str, Callable[[Result], str]] = {
        "success on unseen seeds (95 % Wilson interval)": _success,
        "the same with instructions shuffled": lambda r: _percent(
            r["success_shuffled_instructions"]
        ),
        "episodes of each evaluation": lambda r: (
            f"{r['n']}, seeds {r['seeds'][0]} to {r['seeds'][-1]}"
        ),
        "time from the empty folder to the page": lambda r: f"{r['wall_seconds'] / 60:.0f} minutes",
        "one decision, median and 99th percentile": lambda r: (
            f"{r['latency_ms']['p50']:.0f} and {r['latency_ms']['p99']:.0f} ms"
        ),
        "command": lambda r: f"`{r['command']}`",
    }
    rows = [["", *(f"preset `{name}`" for name in PRESETS)]]
    for label, cell in lines.items():
        rows.append([label, *(_cell(results.get(name, {}), cell) for name in PRESETS)])
    return [*rows, ["aim", *(PRESET_AIMS[name] for name in PRESETS)]]


def preset_table(results: Results) -> Rows:
    """How much of everything a preset of `robolearn demo` does."""
    from robolearn.demo import SIZES  # brings torch

    del results
    rows = [
        [f"`{name}`", str(size.episodes), str(size.steps), str(size.evaluate)]
        for name, size in SIZES.items()
    ]
    return [["preset", "demonstrations", "training steps", "episodes of each evaluation"], *rows]


def speed_table(results: Results) -> Rows:
    """Simulation, rendering and sampling against bare MuJoCo and stock LeRobot."""
    speed = results.get("speed", {})
    rows = [["", "measured", "aim"]]
    for key, label in SPEEDS.items():
        form = _times if "speedup" in key else _percent
        value = speed.get(key)
        measured = NOT_MEASURED if value is None else f"**{form(value)}**"
        rows.append([label, measured, f"at least {form(GOALS[key])}"])
    return rows


def learning_table(results: Results) -> Rows:
    """Training beside LeRobot's own policies."""
    speed = results.get("speed", {})
    lines: dict[str, tuple[str, Callable[[Any], str]]] = {
        "training samples/s": ("train_samples_per_s", lambda rate: f"{rate:.0f}"),
        "training time to 80 % success": (
            "time_to_80_percent_s",
            lambda seconds: f"{seconds / 60:.1f} minutes",
        ),
        f"success after {_budget(speed)}": ("train_success_at_end", _success),
    }
    rows = [["", *LEARNERS.values()]]
    for label, (key, form) in lines.items():
        rows.append([label, *(_learner(speed.get(key), name, form) for name in LEARNERS)])
    return rows


def arm_table(results: Results) -> Rows:
    """The driver, on the digital twin."""
    arm = results.get("arm", {})
    rows = [["", "measured", "aim"]]
    for label, keys, form, aim in ARM:
        values = [arm.get(key) for key in keys]
        measured = NOT_MEASURED if None in values else f"**{form(*values)}**"
        rows.append([label, measured, aim])
    return rows


def source_table(results: Results) -> Rows:
    """The command and the versions behind every result file."""
    rows = [["result", "command", "measured with"]]
    for name, result in results.items():
        parts = result.get("parts") or {"": result}
        for part, header in parts.items():
            versions = ", ".join(f"{k} {v}" for k, v in header.get("versions", {}).items())
            label = f"`{name}.json`" + (f", {part}" if part else "")
            conditions = ", ".join(filter(None, [header.get("machine"), versions]))
            rows.append([label, f"`{header.get('command', '')}`", conditions])
    return rows if len(rows) > 1 else [*rows, [NOT_MEASURED, "", ""]]


def command_table(results: Results) -> Rows:
    """The commands of `robolearn`."""
    del results
    rows = [[f"`robolearn {name}`", help_line] for name, (_, _, help_line) in COMMANDS.items()]
    return [["command", "what it does"], *rows]


TABLES: Final[dict[str, Callable[[Results], Rows]]] = {
    "success": success_table,
    "presets": preset_table,
    "speed": speed_table,
    "learning": learning_table,
    "arm": arm_table,
    "sources": source_table,
    "commands": command_table,
}


def load_results(folder: Path) -> dict[str, Result]:
    """All result files of a folder by name; none where there is no folder.

    Raises:
        DocsError: a damaged file.
    """
    results = {}
    for path in sorted(folder.glob("*.json")):
        try:
            results[path.stem] = json.loads(path.read_text())
        except ValueError as error:
            raise DocsError(f"{path} is damaged ({error}): measure again") from error
    return results


def render(text: str, results: Results) -> str:
    """The document with its tables written anew.

    Raises:
        DocsError: a table without an end, or of an unknown name.
    """
    if len(OPEN.findall(text)) != len(TABLE.findall(text)):
        raise DocsError("a table has no end: close every one with <!-- /table --> on its own line")

    def fill(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise DocsError(f"no table {name!r}; there are {', '.join(TABLES)}")
        return f"{match['open']}{_markdown(TABLES[name](results))}{match['close']}"

    return TABLE.sub(fill, text)


def documents(root: Path) -> list[Path]:
    """The documents of a checkout, README first.

    Raises:
        DocsError: not a checkout.
    """
    if not (root / "README.md").is_file():
        raise DocsError(f"{root} has no README.md; run this in the root of the checkout")
    return [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md"))]


def update(root: Path) -> list[Path]:
    """Rewrites the documents whose tables are out of date, and returns them.

    Raises:
        DocsError: a damaged result file or document.
    """
    results, changed = load_results(root / RESULTS), []
    for path in documents(root):
        old = path.read_text()
        new = render(old, results)
        if new != old:
            write_atomic(path, new.encode())
            changed.append(path)
    return changed


def main() -> int:
    """Runs the command in the root of a checkout."""
    try:
        changed = update(Path.cwd())
    except (DocsError, OSError) as error:
        print(f"robolearn.docs: {error}", file=sys.stderr)
        return 1
    print("\n".join(f"wrote {path.name}" for path in changed) or "all tables are up to date")
    return 0


def _markdown(rows: Rows) -> str:
    lines = ["| " + " | ".join(cell or " " for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def _cell(result: Result, form: Callable[[Result], str]) -> str:
    try:
        return form(result)
    except KeyError:  # an older result file, or none
        return NOT_MEASURED


def _learner(figures: Mapping[str, Any] | None, name: str, form: Callable[[Any], str]) -> str:
    if figures is None or name not in figures:
        return NOT_MEASURED
    value = figures[name]
    return NOT_REACHED if value is None else form(value)


def _success(result: Result) -> str:
    low, high = _percent(result["success_low"]), _percent(result["success_high"])
    return f"**{_percent(result['success'])}** ({low} to {high})"


def _budget(speed: Result) -> str:
    seconds = speed.get("train_budget_s")
    return f"{seconds / 60:.0f} minutes of training" if seconds else "the same training time"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def _times(factor: float) -> str:
    return f"{factor:.0f} x"


if __name__ == "__main__":
    sys.exit(main())
