"""The charts of pages: matplotlib figures as inline SVG in the colours of the page."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

# Stand-ins that matplotlib draws with; `_svg` turns them into the page's CSS variables, so that a
# chart follows the light or dark theme.
THEME: Final = {
    "ink": "#010101",
    "rule": "#020202",
    "good": "#030303",
    "bad": "#040404",
    "series-0": "#050505",
    "series-1": "#060606",
    "series-2": "#070707",
    "series-3": "#080808",
}
# The colours of lines, in their order; further lines are not drawn.
SERIES: Final = tuple(name for name in THEME if name.startswith("series"))


def length_chart(solved: Sequence[int], failed: Sequence[int]) -> Markup:
    """A histogram of episode lengths in steps, successes below failures."""
    axes = _axes("episode length, steps", "episodes")
    edges = np.histogram_bin_edges([*solved, *failed], bins=24).tolist()
    colours = [THEME["good"], THEME["bad"]]
    axes.hist([list(solved), list(failed)], edges, stacked=True, color=colours, rwidth=0.88)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    return _svg(axes)


def solved_chart(evaluations: Sequence[tuple[Sequence[int], int]], end: int) -> Markup:
    """The share of episodes that have succeeded within a number of steps.

    Args:
        evaluations: per line the lengths of the successful episodes and the number of all.
        end: the length of the longest episode, steps.
    """
    axes = _axes("steps", "solved by then")
    for series, (lengths, n) in zip(SERIES, evaluations, strict=False):
        share = np.arange(len(lengths) + 1) / n
        steps, shares = [0, *sorted(lengths), end], [*share, share[-1]]
        axes.step(steps, shares, where="post", color=THEME[series], linewidth=1.6)
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    return _svg(axes)


def loss_chart(curves: Mapping[str, np.ndarray], unit: str) -> Markup:
    """Losses over training: the median of each stretch of the run with its 10-90 % band.

    Args:
        curves: per line its points, float (P, 2): position in training and loss.
        unit: what the positions count.
    """
    axes = _axes(unit, "loss")
    for series, points in zip(SERIES, curves.values(), strict=False):
        stretches = np.array_split(points, min(len(points), 150))
        x = [stretch[:, 0].mean() for stretch in stretches]
        low, middle, high = np.transpose([np.percentile(s[:, 1], (10, 50, 90)) for s in stretches])
        axes.fill_between(x, low, high, color=THEME[series], alpha=0.2, linewidth=0)
        axes.plot(x, middle, color=THEME[series], linewidth=1.6)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if all((points[:, 1] > 0).all() for points in curves.values()):
        axes.set_yscale("log")
    return _svg(axes)


def candidates_chart(name: str, points: Sequence[tuple[int, float, float, float]]) -> Markup:
    """Success against the number of candidates.

    Args:
        name: of what was evaluated; tells the charts of a page apart.
        points: number of candidates, success, and the lower and upper end of its interval, 0..1.
    """
    axes = _axes(f"candidates, {name}", "success")
    axes.set_xscale("log", base=2)
    _draw_successes(axes, points)
    return _svg(axes)


def rounds_chart(points: Sequence[tuple[int, float, float, float]]) -> Markup:
    """Success by round: number, success, and the lower and upper end of its interval, 0..1."""
    axes = _axes("round", "success")
    _draw_successes(axes, points)
    return _svg(axes)


def calibration_chart(points: Sequence[Sequence[float]]) -> Markup:
    """What a critic said, against what came; on the diagonal it was right on average."""
    axes = _axes("value, mean episodes", "return")
    said, came = np.array(points).T
    ends = [min(said.min(), came.min()), max(said.max(), came.max())]
    axes.plot(ends, ends, color=THEME["rule"], linewidth=1)
    axes.plot(said, came, "o-", color=THEME["series-0"], markersize=3)
    return _svg(axes)


def cost_chart(xlabel: str, agents: Mapping[str, tuple[float, float, float, float]]) -> Markup:
    """Success against what it costs.

    Args:
        xlabel: what is spent.
        agents: by name how much of it, success, and its interval's ends, 0..1.
    """
    axes = _axes(xlabel, "success")
    for index, (name, (cost, success, low, high)) in enumerate(agents.items()):
        color, ends = THEME[SERIES[index % len(SERIES)]], [[success - low], [high - success]]
        axes.errorbar([cost], [success], ends, fmt="o", color=color, markersize=5, elinewidth=1)
        beside = (7, 8 - 11 * (index % 3))  # names of points that lie together stay apart
        where: dict[str, Any] = {"xytext": beside, "textcoords": "offset points", "fontsize": 8}
        axes.annotate(name, (cost, success), color=THEME["ink"], **where)
    axes.set_xscale("symlog", linthresh=1.0)  # a script costs nothing
    axes.set_xlim(-0.2, 3.0 * max(1.0, *(row[0] for row in agents.values())))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    _percents(axes)
    return _svg(axes)


def profile_chart(agents: Mapping[str, Sequence[float]], thresholds: Sequence[float]) -> Markup:
    """The share of episodes that came at least so far, by agent; see `SERIES`."""
    axes = _axes("progress", "episodes that came so far")
    for series, shares in zip(SERIES, agents.values(), strict=False):
        axes.plot(thresholds, shares, color=THEME[series], linewidth=1.6)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    _percents(axes)
    return _svg(axes)


def levels_chart(name: str, agents: Mapping[str, Sequence[tuple[float, ...]]]) -> Markup:
    """Success by the level of a variation.

    Args:
        name: of the variation.
        agents: by name the points: level, success, and its interval's ends, 0..1; see `SERIES`.
    """
    return curves_chart(f"{name}, level", agents)


def curves_chart(xlabel: str, curves: Mapping[str, Sequence[tuple[float, ...]]]) -> Markup:
    """Success against whole numbers, in several lines.

    Args:
        xlabel: what the numbers are.
        curves: by name the points: number, success, and its interval's ends, 0..1; see `SERIES`.
    """
    axes = _axes(xlabel, "success")
    for series, points in zip(SERIES, curves.values(), strict=False):
        numbers, success, low, high = np.array(points).T
        axes.fill_between(numbers, low, high, color=THEME[series], alpha=0.15, linewidth=0)
        axes.plot(numbers, success, "o-", color=THEME[series], linewidth=1.6, markersize=3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _percents(axes)
    return _svg(axes)


def course_chart(successes: Sequence[float], worst: Sequence[float]) -> Markup:
    """The course of a search for the worst: of each point, and of the worst so far, success."""
    axes, numbers = _axes("point of the search", "success"), range(len(successes))
    axes.plot(numbers, successes, "o", color=THEME["series-0"], markersize=3, alpha=0.7)
    axes.step(numbers, worst, where="post", color=THEME["bad"], linewidth=1.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _percents(axes)
    return _svg(axes)


def side_chart(name: str, points: Sequence[tuple[float, float]], worst: float) -> Markup:
    """Success of a search's points along one side of its box.

    Args:
        name: of the side.
        points: value and success.
        worst: the value of the worst point.
    """
    axes = _axes(name, "success")
    values, successes = np.array(points).T
    axes.plot(values, successes, "o", color=THEME["series-0"], markersize=3, alpha=0.7)
    axes.axvline(worst, color=THEME["bad"], linewidth=1.2)
    _percents(axes)
    return _svg(axes)


def _percents(axes: Axes) -> None:
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _draw_successes(axes: Axes, points: Sequence[tuple[int, float, float, float]]) -> None:
    counts, success, low, high = np.array(points).T
    color, interval = THEME["series-0"], [success - low, high - success]
    axes.errorbar(counts, success, interval, fmt="o-", color=color, markersize=3, elinewidth=1)
    axes.set_xticks(counts, [f"{count:.0f}" for count in counts])
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _axes(xlabel: str, ylabel: str) -> Axes:
    # A Figure of its own: pyplot would keep it alive and touch the reader's settings.
    axes = Figure(figsize=(5.6, 2.7), layout="constrained").add_subplot()
    axes.set_xlabel(xlabel, color=THEME["ink"], fontsize=9)
    axes.set_ylabel(ylabel, color=THEME["ink"], fontsize=9)
    axes.tick_params(which="both", color=THEME["rule"], labelcolor=THEME["ink"], labelsize=8)
    axes.grid(axis="y", color=THEME["rule"], linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(THEME["rule"])
    return axes


def _svg(axes: Axes) -> Markup:
    """The figure without any outside reference, its text as text in the page's font."""
    figure = axes.get_figure(root=True)
    assert figure is not None  # `_axes` made it
    buffer = io.StringIO()
    # A salt of its own gives each chart of the page its own ids, and the same ones on every run.
    salt = f"{axes.get_xlabel()}, {axes.get_ylabel()}"
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # every figure would bring its own axes_1
    for name, stand_in in THEME.items():
        svg = svg.replace(stand_in, f"var(--{name})")
    return Markup(svg)
