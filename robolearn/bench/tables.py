"""The tables of the documents, made of the result files; see `robolearn.docs`."""

from collections.abc import Callable, Mapping
from math import degrees
from typing import Any, Final

from robolearn.bench.speed import GOALS
from robolearn.cli import COMMANDS
from robolearn.contract import SO101

Result = Mapping[str, Any]  # the contents of a result file
Results = Mapping[str, Result]  # file name without .json -> contents
Rows = list[list[str]]  # the first row is the head

NOT_MEASURED: Final = "not measured yet"
NEVER: Final = "**never, or more than can be measured**"

PRESETS: Final = ("demo", "long")
PRESET_AIMS: Final = {
    "demo": "success at least 85 %, shuffled below 40 %, at most 25 minutes",
    "long": "success at least 95 %, at most 2 hours of training",
}
SPEEDS: Final = {
    "step_rate_share_of_mj_step": "environment steps with state observations, share of the rate of "
    "bare `mj_step`",
    "batched_share_of_mj_step": "batched environment, share of the rate of bare `mj_step` on as "
    "many threads",
    "pixels_speedup_over_default_render": "pictures of two cameras, times the rate with MuJoCo's "
    "default render settings",
    "sampling_speedup_over_lerobot": "training samples from the frame cache, times the rate of "
    "LeRobotDataset with a DataLoader",
}
WORLDS: Final = ("simulation", "twin")
# part, label, figures, how they read, aim
ARM: Final[tuple[tuple[str, str, tuple[str, ...], Callable[..., str], str], ...]] = (
    (
        "faults",
        "faults after which the servos' registers are as they shall be",
        ("faults_safe", "faults_tried"),
        lambda safe, tried: f"{safe} of {tried}",
        "all",
    ),
    (
        "faults",
        "longest time from a fault to that",
        ("worst_seconds_to_safe",),
        lambda seconds: f"{seconds:.1f} s",
        "within the time that each fault allows",
    ),
    (
        "timing",
        "control cycles at 50 Hz that were missed, beside a busy thread and a policy",
        ("deadline_misses_share",),
        lambda share: f"{100 * share:.2f} %",
        "less than 0.5 %",
    ),
    (
        "timing",
        "lateness of a cycle, 99th percentile",
        ("lateness_p99_ms",),
        lambda ms: f"{ms:.1f} ms",
        "at most 3 ms",
    ),
    (
        "worlds",
        "success of one checkpoint in simulation and on the twin",
        (*(f"success_{world}{end}" for world in WORLDS for end in ("", "_low", "_high")), "n"),
        lambda *of: f"{_rate(*of[:3])} and {_rate(*of[3:6])}, n = {of[6]} each",
        "within 5 points",
    ),
    (
        "worlds",
        "seeds solved in simulation alone, and on the twin alone",
        ("only_simulation", "only_twin", "mcnemar_p"),
        lambda simulation, twin, p: f"{simulation} and {twin} (p {p:.2g})",
        "no difference",
    ),
)
TASK_HEAD: Final = (
    "task",
    "the expert's success",
    "mean length",
    "steps, share of `mj_step`",
    "batched",
    "pictures, times default",
    "reset",
)
LEARNERS: Final = {
    "flow": "flow",
    "flow-transformer": "flow, transformer head",
    "diffusion": "diffusion",
    "act": "LeRobot ACT",
    "lerobot-diffusion": "LeRobot Diffusion",
}


def success_table(results: Results) -> Rows:
    """What the presets of `robolearn demo` reach."""
    lines: dict[str, Callable[[Result], str]] = {
        "success on unseen seeds (95 % Wilson interval)": success,
        "the same with instructions shuffled": lambda r: percent(
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
        form = _times if "speedup" in key else percent
        value = speed.get(key)
        measured = NOT_MEASURED if value is None else f"**{form(value)}**"
        rows.append([label, measured, f"at least {form(GOALS[key])}"])
    return rows


def policy_table(results: Results) -> Rows:
    """Our policies and LeRobot's after the same time of training."""
    measured = results.get("policies", {})
    head = ("success", "one decision, p50 and p99", "training samples/s", "samples", "parameters")
    budget = f"{measured['config']['minutes']:g} minutes of training" if measured else ""
    rows = [[budget, *head, "from demonstrations"]]
    for name, label in LEARNERS.items():
        if row := measured.get("policies", {}).get(name):
            rows.append([label, *_policy_cells(row)])
    return rows if len(rows) > 1 else [*rows, [NOT_MEASURED, *[""] * (len(rows[0]) - 1)]]


def _policy_cells(row: Result) -> list[str]:
    error, still = (degrees(row[f"{name}_error"]) for name in ("open_loop", "standing_still"))
    return [
        f"{success(row)}, n = {row['n']}",
        f"{row['latency_ms']['p50']:.0f} and {row['latency_ms']['p99']:.0f} ms",
        f"{row['samples_per_s']:.{0 if row['samples_per_s'] >= 10 else 1}f}",
        f"{row['samples']:,}",
        f"{row['parameters'] / 1e6:.1f} million",
        f"{error:.1f}°, still {still:.1f}°",
    ]


def arm_table(results: Results) -> Rows:
    """The driver, on the digital twin."""
    arm = results.get("arm", {})
    rows = [["", "measured", "aim"]]
    for part, label, keys, form, aim in ARM:
        values = [arm.get(key, NOT_MEASURED) for key in keys]
        # A part that was measured and has no number: the arm never got there, or off the scale.
        missing = part in arm.get("parts", {})
        measured = _arm_cell(values, form, NEVER if missing else NOT_MEASURED)
        rows.append([label, measured, aim])
    return rows


def _arm_cell(values: list[Any], form: Callable[..., str], otherwise: str) -> str:
    return otherwise if {None, NOT_MEASURED} & set(values) else f"**{form(*values)}**"


def task_table(results: Results) -> Rows:
    """Every task: its expert, and how fast it is."""
    experts, speeds = (results.get(k, {}).get("tasks") or {} for k in ("experts", "speed"))
    rows = [[*TASK_HEAD]]
    for name in dict.fromkeys([*experts, *speeds]):
        expert, speed = experts.get(name, {}), speeds.get(name, {})
        cells = [
            _cell(expert, lambda r: f"{success(r)}, n = {r['n']}"),
            _cell(expert, lambda r: f"{r['mean_length'] / SO101.control_hz:.1f} s"),
            _cell(speed, lambda r: percent(r["step_rate_share_of_mj_step"])),
            _cell(speed, lambda r: percent(r["batched_share_of_mj_step"])),
            _cell(speed, lambda r: _times(r["pixels_speedup_over_default_render"])),
            _cell(speed, lambda r: f"{r['reset_ms']:.2f} ms"),
        ]
        rows.append([name, *cells])
    return rows if len(rows) > 1 else [*rows, [NOT_MEASURED] * len(TASK_HEAD)]


def peer_table(results: Results) -> Rows:
    """Other packages' tasks on the same machine."""
    peers = results.get("speed", {}).get("peers") or {}
    rows = [["", "steps/s", "share of it in `mj_step`", "reset", "pictures/s at 84 x 84"]]
    for name, row in peers.items():
        cells = [
            _cell(row, lambda r: f"{r['steps_per_s']:.0f}"),
            _cell(row, lambda r: percent(r["mj_step_share"])),
            _cell(row, lambda r: f"{r['reset_ms']:.1f} ms"),
            _cell(row, lambda r: f"{r['pictures_per_s']:.0f}"),
        ]
        rows.append([name, *cells])
    return rows if len(rows) > 1 else [*rows, [NOT_MEASURED, "", "", "", ""]]


def soak_table(results: Results) -> Rows:
    """Random actions, for long."""
    soak = results.get("soak", {})
    lines: dict[str, Callable[[Result], str]] = {
        "tasks": lambda r: str(len(r["tasks"])),
        "control steps with random actions": lambda r: f"{r['steps']:,}",
        "NaN in an observation": lambda r: str(r["nans"]),
        "simulations that diverged": lambda r: str(r["diverged"]),
        "steps with a warning of MuJoCo": lambda r: str(r["warnings"]),
        "exceptions": lambda r: str(r["exceptions"]),
        "resets with pictures": lambda r: f"{r['resets']:,}",
        "memory that they took": lambda r: f"{r['memory_growth_bytes'] / 2**20:.0f} MiB",
    }
    return [["", "measured"], *([label, _cell(soak, cell)] for label, cell in lines.items())]


def serve_table(results: Results) -> Rows:
    """The policy server under load."""
    rows = [["clients, 20 observations a second each", "answers a second", "p50", "p99"]]
    for load in results.get("serve", {}).get("loads", []):
        times = [f"{load[name]:.0f} ms" for name in ("p50_ms", "p99_ms")]
        rows.append([str(load["clients"]), f"**{load['answered_per_s']:.0f}**", *times])
    return rows if len(rows) > 1 else [*rows, [NOT_MEASURED, "", "", ""]]


def scale_table(results: Results) -> Rows:
    """Workers and a Ray cluster."""
    rows = [["who plays", "episodes a minute", "the same, bit for bit"]]
    for name, way in results.get("scale", {}).get("ways", {}).items():
        same = "yes" if way["identical"] else "**no**"
        rows.append([name, f"**{way['episodes_per_minute']:.0f}**", same])
    return rows if len(rows) > 1 else [*rows, [NOT_MEASURED, "", ""]]


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


def _cell(result: Result, form: Callable[[Result], str]) -> str:
    try:
        return form(result)
    except KeyError:  # an older result file, or none
        return NOT_MEASURED


def success(result: Result) -> str:
    """A rate with its interval, if it has one."""
    if "success_low" not in result:  # a mean over tasks has no interval
        return f"**{percent(result['success'])}**"
    low, high = percent(result["success_low"]), percent(result["success_high"])
    return f"**{percent(result['success'])}** ({low} to {high})"


def points(row: Result) -> str:
    """What is gained over another on the same seeds, and its p-value; `reproduce` reads it."""
    return f"{row['gain_points']:+.1f} (p {row['p_value']:.2g})"


def percent(share: float) -> str:
    """A share as "12.5 %"."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def _rate(share: float, low: float, high: float) -> str:
    return f"{percent(share)} ({percent(low)} to {percent(high)})"


def _times(factor: float) -> str:
    return f"{factor:.0f} x"


TABLES: Final[dict[str, Callable[[Results], Rows]]] = {
    "success": success_table,
    "presets": preset_table,
    "speed": speed_table,
    "policies": policy_table,
    "arm": arm_table,
    "tasks": task_table,
    "peers": peer_table,
    "soak": soak_table,
    "scale": scale_table,
    "serve": serve_table,
    "sources": source_table,
    "commands": command_table,
}
