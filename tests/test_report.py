"""The report of a small made-up evaluation: complete, self-contained, safe."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import av
import matplotlib
import numpy as np
import pytest

from robolearn.envs.pick_place import BINS, CUBES, PHRASES
from robolearn.film import write_video
from robolearn.report import ReportError, goal, phrasing, write_report
from robolearn.stats import wilson

TEXTS = [
    "put the red cube in the blue bin",
    "drop the red block into the blue box",
    "put the green cube in the yellow bin",
]


def make_episode(seed, **changes):
    """Every third episode fails."""
    text, success = TEXTS[seed % len(TEXTS)], seed % 3 != 0
    return {
        "seed": seed,
        "instruction": text,
        "agent_instruction": text,
        "success": success,
        "length": 40 + seed if success else 200,
        "progress": 1.0 if success else 0.4,
        "fault": "",
        "latency_p50_ms": 12.5,
        "video": None,
        **changes,
    }


def write_evaluation(folder, episodes, **changes):
    n, successes = len(episodes), sum(episode["success"] for episode in episodes)
    low, high = wilson(successes, n)
    result = {
        "format": 1,
        "env_id": "robolearn/PickPlace-v0",
        "policy": "runs/demo",
        "command": "robolearn eval --policy runs/demo",
        "n": n,
        "successes": successes,
        "success": successes / max(n, 1),
        "success_low": low,
        "success_high": high,
        "seeds": [episodes[0]["seed"], episodes[-1]["seed"]] if episodes else [0, 0],
        "replan_every": 4,
        "latency_ms": {"p50": 12.5, "p99": 31.25},
        "wall_seconds": 193.2,
        "versions": {"mujoco": "4.0.0"},
        "renderer": "egl",
        "config_hash": "9c1f0a77",
        "instructions": "matched",
        "held_out_instructions": False,
        "episodes": episodes,
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def write_log(run, records):
    run.mkdir(exist_ok=True)
    (run / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return run


class Page(HTMLParser):
    """What a test asks of a page: tags, attributes, text, and that every tag is closed."""

    VOID = frozenset({"meta", "input", "br"})

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags, self.rows, self.text, self._open = [], [], "", []
        self.feed(self.source)
        self.close()
        assert self._open == []
        self.text = " ".join(self.text.split())
        self.rows = [" ".join(row.split()) for row in self.rows]

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data + " "
        if "tr" in self._open:
            self.rows[-1] += data + " "

    def values(self, attribute):
        return [values[attribute] for _, values in self.tags if attribute in values]

    def row(self, name):
        (row,) = [row for row in self.rows if row.startswith(f"{name} ")]
        return row


@pytest.fixture
def evaluation(tmp_path):
    """Thirty episodes, ten failures, every one of them filmed with as many frames as its seed."""
    episodes = []
    for seed in range(1, 31):
        video = f"videos/ep-{seed:07d}.mp4"
        write_video(tmp_path / "eval" / video, np.full((seed, 16, 16, 3), 90, np.uint8), fps=20)
        episodes.append(make_episode(seed, video=video))
    return write_evaluation(tmp_path / "eval", episodes)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "reports" / "report.html"


def test_report_holds_every_figure_and_every_episode(evaluation, tmp_path, out):
    log = [{"step": s, "samples": 128 * s, "loss": 1 / s, "samples_per_s": 2100, "seconds": 0.1 * s}
           for s in range(1, 601)]  # fmt: skip
    write_report(evaluation, write_log(tmp_path / "run", log), out)
    page = Page(out)
    text = page.text
    low, high = wilson(20, 30)
    assert f"66.7 % success, 20 of 30 episodes, 95 % Wilson interval {100 * low:.1f}" in text
    assert f"{100 * low:.1f}–{100 * high:.1f} %" in page.row("eval")
    for figure in ("1–30", "every 4 steps", "12.5 ms", "31.2 ms", "3 min 13 s", "egl", "9c1f0a77",
                   "robolearn eval --policy runs/demo", "mujoco 4.0.0", "samples seen",
                   "600 steps in 1 min 0 s at 2,100 samples/s"):  # fmt: skip
        assert figure in text
    for seed in range(1, 31):
        row = page.row(seed)
        assert TEXTS[seed % 3] in row
        assert ("success" if seed % 3 else "failure") in row
    assert len([tag for tag, _ in page.tags if tag == "svg"]) == 3


def test_nothing_outside_the_file_is_referred_to(evaluation, tmp_path, out):
    write_report(evaluation, write_log(tmp_path / "run", [{"step": 1, "loss": 1.0}]), out)
    page = Page(out)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert all(source.startswith("data:video/mp4;base64,") for source in page.values("src"))
    for reference in page.values("href") + page.values("xlink:href"):
        assert reference.startswith("#")
        assert reference[1:] in ids
    assert set(re.findall(r"url\((.)", page.source)) <= {"#"}
    assert not re.search(r"https?:|@import|<link", page.source)
    assert list(out.parent.iterdir()) == [out]


def test_embedded_videos_decode_and_failures_come_first(evaluation, out):
    write_report(evaluation, None, out, max_videos=12)
    lengths = []
    for source in Page(out).values("src"):
        data = base64.b64decode(source.split(",", 1)[1], validate=True)
        with av.open(io.BytesIO(data)) as container:
            lengths.append(sum(1 for _ in container.decode(video=0)))
    # A film has as many frames as its seed: eight failures, and a third kept for successes.
    assert lengths == [3, 6, 9, 12, 15, 18, 21, 24, 1, 2, 4, 5]


def test_success_by_goal_and_by_phrasing(evaluation, out):
    write_report(evaluation, None, out)
    text = Page(out).text
    by_goal, by_phrasing = text.split("Success by goal")[1].split("Success by phrasing")
    assert by_goal.split("%")[0].strip() == "red cube → blue bin 50.0"
    assert "10/20 green cube → yellow bin 100.0 % 10/10" in by_goal
    assert by_phrasing.startswith(" put the … cube in the … bin 50.0 % 10/20 drop the … block into")


def test_every_wording_of_the_task_has_the_right_goal():
    known = PHRASES.all("all")
    goals = {text: f"{CUBES[cube]} cube → {BINS[bin_]} bin" for text, (cube, bin_) in known.items()}
    assert {text: goal(text) for text in known} == goals
    assert len({phrasing(text) for text in known}) == sum(map(len, PHRASES.templates.values()))
    assert goal("stack the Red cube on the blue cube") == "red cube → blue cube"
    assert goal("open the drawer") == "open the drawer"


def test_what_the_agent_was_told_is_shown_where_it_differs(tmp_path, out):
    episodes = [
        make_episode(1, agent_instruction="put the blue cube in the blue bin"),
        make_episode(2),
    ]
    folder = write_evaluation(
        tmp_path / "control", episodes, instructions="shuffled", held_out_instructions=True
    )
    write_report(folder, None, out)
    page = Page(out)
    assert "told: put the blue cube" in page.row(1)
    assert "told" not in page.row(2)
    assert "shuffled, held-out phrasings" in page.row("control")


def test_moves_are_shown_where_they_are_known(tmp_path, out):
    jumps = {"border_p50": 0.012, "border_p99": 0.08}
    write_report(write_evaluation(tmp_path / "e", [make_episode(1)], jumps=jumps), None, out)
    text = Page(out).text
    assert "Moves where a chunk begins, p50 / p99 1.20 / 8.00 %" in text
    assert "Moves inside of chunks" not in text


def test_evaluations_stand_side_by_side_with_a_paired_test(evaluation, tmp_path, out):
    none = [make_episode(seed, success=False) for seed in range(1, 31)]
    control = write_evaluation(tmp_path / "control", none)
    other_seeds = write_evaluation(
        tmp_path / "later", [make_episode(seed) for seed in range(31, 41)]
    )
    write_report(evaluation, None, out, [control, other_seeds])
    page = Page(out)
    assert "66.7 % 20/30" in page.row("eval")
    assert "0.0 % 0/30 0.0–11.4 % 1.9e-06" in page.row("control")  # 2 / 2**20
    assert "– 12.5" in page.row("later")


def test_strings_are_escaped(tmp_path, out):
    attack = "<script>alert('x')</script>"
    episodes = [make_episode(seed, instruction=attack, fault=attack) for seed in (1, 2, 3)]
    changes = dict.fromkeys(("env_id", "policy", "command", "renderer", "instructions"), attack)
    folder = write_evaluation(tmp_path / "a & <b>", episodes, **changes)
    run = write_log(tmp_path / "run", [{"step": 1, f"{attack}/loss": 0.5}])
    write_report(folder, run, out)
    page = Page(out)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert page.text.count(attack) >= 9
    assert page.row("a & <b>")


def test_charts_follow_the_theme_and_leave_matplotlib_alone(evaluation, tmp_path, out):
    before = dict(matplotlib.rcParams)
    pages = []
    for _ in range(2):
        write_report(evaluation, write_log(tmp_path / "run", [{"step": 1, "loss": 1.0}]), out)
        pages.append(out.read_bytes())
    assert dict(matplotlib.rcParams) == before
    assert pages[0] == pages[1]
    svgs = "".join(re.findall(r"<svg.*?</svg>", out.read_text(), flags=re.DOTALL))
    for name in ("good", "bad", "ink", "rule", "series-0"):
        assert f"var(--{name})" in svgs
    assert not re.search(r"#0[1-8]0[1-8]0[1-8]", svgs)


def test_smallest_evaluation(tmp_path, out):
    write_report(write_evaluation(tmp_path / "one", [make_episode(1)]), None, out)
    page = Page(out)
    assert "100.0 % success, 1 of 1 episodes" in page.text
    assert "video" not in [tag for tag, _ in page.tags]
    assert "Learning curve" not in page.text


def test_log_of_a_killed_resumed_and_diverged_run(evaluation, tmp_path, out):
    run = write_log(
        tmp_path / "run",
        [{"step": 10, "loss": 1.0, "seconds": 1}, {"step": 20, "loss": 0.5, "seconds": 2},
         {"step": 10, "loss": float("nan"), "seconds": 4}, {"step": 30, "validation/loss": -0.1,
         "learning_rate": 1e-4, "seconds": 7201}],
    )  # fmt: skip
    with (run / "log.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')
    write_report(evaluation, run, out)
    text = Page(out).text
    assert "optimiser steps" in text
    assert "loss validation/loss 30 steps in 2 h 0 min" in text


def damage(name, text):
    def do(folder, run):
        path = (run if name == "log.jsonl" else folder) / name
        path.unlink() if text is None else path.write_text(text)

    return do


def change(**changes):
    def do(folder, run):
        path = folder / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return do


def drop(key):
    def do(folder, run):
        path = folder / "result.json"
        result = json.loads(path.read_text())
        (result if key in result else result["episodes"][1]).pop(key)
        path.write_text(json.dumps(result))

    return do


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (damage("result.json", None), r"eval holds no result\.json: give a folder"),
        (damage("result.json", '{"format": 1,'), r"result\.json is damaged .* run the evaluation"),
        (damage("result.json", "[]"), "not a result of format 1"),
        (change(format=2), "not a result of format 1"),
        (change(episodes=[]), "holds no episodes"),
        (drop("latency_ms"), "lacks latency_ms"),
        (drop("progress"), r"episodes\[1\], lacks progress"),
        (damage("videos/ep-0000003.mp4", None), r"ep-0000003\.mp4 is missing"),
        (damage("log.jsonl", None), r"run holds no log\.jsonl"),
        (damage("log.jsonl", ""), "holds no steps"),
        (damage("log.jsonl", '{"step": 1}\n{"st\n{"step": 3}\n'), "line 2, is not a record"),
        (damage("log.jsonl", '{"loss": 1}\n{"step": 3}\n'), "line 1, is not a record"),
    ],
)
def test_missing_or_damaged_input_is_one_sentence(evaluation, tmp_path, out, break_it, message):
    run = write_log(tmp_path / "run", [{"step": 1, "loss": 1.0}])
    write_report(evaluation, run, out)
    before = out.read_bytes()
    break_it(evaluation, run)
    with pytest.raises(ReportError, match=message) as caught:
        write_report(evaluation, run, out)
    assert "\n" not in str(caught.value)
    assert out.read_bytes() == before


def test_output_that_cannot_be_written(evaluation, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="cannot write the report to"):
        write_report(evaluation, None, tmp_path / "file" / "report.html")
