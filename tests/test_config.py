"""Configs: what is saved is what is read, and nothing unknown slips in."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from robolearn.config import ConfigError, check_same, config_hash, load_config, save_config


@dataclass(frozen=True)
class Inner:
    width: int = 3
    scales: tuple[float, ...] = (1.0, 0.5)


@dataclass(frozen=True)
class Outer:
    data: Path
    out: Path | None = None
    extra: tuple[Path, ...] = ()
    inner: Inner = field(default_factory=Inner)
    rate: float = 1e-3
    name: str = "x"
    on: bool = False
    size: tuple[int, int] = (48, 84)


@pytest.mark.parametrize(
    "config",
    [
        Outer(Path("d")),
        Outer(Path("d"), Path("o"), (Path("a"), Path("b")), Inner(7, (2.0,)), 0.1, size=(1, 2)),
    ],
)
def test_configs_survive_a_round_trip(tmp_path, config):
    save_config(config, tmp_path / "run")
    assert load_config(Outer, tmp_path / "run") == config
    assert config_hash(load_config(Outer, tmp_path / "run")) == config_hash(config)


def test_changes_are_made_on_the_way(tmp_path):
    save_config(Outer(Path("d")), tmp_path)
    assert load_config(Outer, tmp_path, on=True, data=Path("e")) == Outer(Path("e"), on=True)


def test_the_hash_differs_with_every_setting():
    configs = [Outer(Path("d")), Outer(Path("e")), Outer(Path("d"), inner=Inner(width=4))]
    configs += [Outer(Path("d"), on=True), Outer(Path("d"), rate=2e-3)]
    hashes = {config_hash(config) for config in configs}
    assert len(hashes) == len(configs)
    assert all(len(text) == 12 for text in hashes)
    assert config_hash(Outer(Path("d"))) in hashes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(wings=2), "unknown key wings; known are data, out"),
        (lambda c: c["inner"].update(depth=1), "unknown key depth; known are width"),
        (lambda c: c.pop("data"), "data"),
    ],
)
def test_other_keys_are_an_error(tmp_path, change, message):
    save_config(Outer(Path("d")), tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    change(values)
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=message):
        load_config(Outer, tmp_path)


@pytest.mark.parametrize("text", [None, "", "{", "[1]"])
def test_a_config_that_cannot_be_read_is_named(tmp_path, text):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json is missing or unusable"):
        load_config(Outer, tmp_path)


def test_a_folder_goes_on_with_its_settings_only(tmp_path):
    free = ("out", "name")
    begun = Outer(Path("d"), Path("o"), inner=Inner(4))
    check_same(begun, tmp_path, "begun.json", free)
    before = (tmp_path / "begun.json").read_text()
    assert "name" not in json.loads(before)
    check_same(Outer(Path("d"), Path("p"), name="y", inner=Inner(4)), tmp_path, "begun.json", free)
    assert (tmp_path / "begun.json").read_text() == before
    with pytest.raises(ValueError, match=r"settings \(inner.width 4, not 5\); take"):
        check_same(Outer(Path("d"), inner=Inner(5)), tmp_path, "begun.json", free)
    (tmp_path / "begun.json").write_text("{")
    with pytest.raises(ConfigError, match="unusable"):
        check_same(begun, tmp_path, "begun.json", free)


def test_a_setting_that_is_newer_than_the_folder_was_as_by_default(tmp_path):
    check_same(Outer(Path("d")), tmp_path, "begun.json", ("out",))
    told = json.loads((tmp_path / "begun.json").read_text())
    told.pop("inner")
    (tmp_path / "begun.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match="begun with other settings"):
        check_same(Outer(Path("d"), inner=Inner(5)), tmp_path, "begun.json", ("out",))
    check_same(Outer(Path("d")), tmp_path, "begun.json", ("out",))
    assert "inner" in json.loads((tmp_path / "begun.json").read_text())


def test_so_was_one_within_settings(tmp_path):
    check_same(Outer(Path("d"), inner=Inner(4)), tmp_path, "begun.json", ())
    told = json.loads((tmp_path / "begun.json").read_text())
    told["inner"].pop("scales")
    (tmp_path / "begun.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"\(inner.scales \[1.0, 0.5\], not \[2.0\]\)"):
        check_same(Outer(Path("d"), inner=Inner(4, (2.0,))), tmp_path, "begun.json", ())
    check_same(Outer(Path("d"), inner=Inner(4)), tmp_path, "begun.json", ())


def test_many_settings_that_differ_are_not_all_told(tmp_path):
    check_same({str(k): k for k in range(9)}, tmp_path, "begun.json", ())
    with pytest.raises(ValueError, match=r"\(0 0, not 1; 1 1, not 2; 2 2, not 3; \.\.\.\); take"):
        check_same({str(k): k + 1 for k in range(9)}, tmp_path, "begun.json", ())


def test_settings_that_have_become_free_do_not_matter(tmp_path):
    check_same(Outer(Path("d"), name="old"), tmp_path, "begun.json", ())
    check_same(Outer(Path("d"), name="new"), tmp_path, "begun.json", ("name",))
