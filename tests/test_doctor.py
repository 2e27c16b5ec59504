"""The doctor's checks, each on a machine that is well and on one that is not."""

import importlib.metadata
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from robolearn import doctor
from robolearn.doctor import Finding


def finding(name):
    return doctor._run(name, doctor.PROBES[name])


def test_this_machine_can_run_robolearn():
    findings = doctor.check()
    assert [f.name for f in findings] == list(doctor.PROBES)
    assert not [f for f in findings if f.status == "fail"]
    assert all(f.found for f in findings)


def test_whatever_is_wrong_comes_with_advice(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 11, 2))
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["numpy<1", "no-such-package"])
    monkeypatch.setattr(doctor, "_renderer", lambda _: "")
    monkeypatch.setattr("torch.get_num_threads", lambda: 10_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1e9))
    monkeypatch.setattr(os, "sysconf", lambda _: 1024)
    monkeypatch.setattr("av.codecs_available", {"libsvtav1"})
    found = {f.name: f for f in doctor.check()}
    wrong = {name: f.status for name, f in found.items() if f.status != "ok"}
    assert wrong == {
        "Python": "fail",
        "packages": "fail",
        "rendering": "fail",
        "threads": "warn",
        "disk": "warn",
        "memory": "warn",
        "video": "fail",
    }
    assert all(found[name].advice for name in wrong)
    assert "numpy" in found["packages"].found
    assert "no-such-package is missing" in found["packages"].found
    assert "libegl1" in found["rendering"].advice
    assert "libosmesa6" in found["rendering"].advice
    assert "libx264" in found["video"].found


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        ("torch>=2.7,<2.12", ""),  # installed: a local build of a tested version
        ("torch<2", "torch 2.11.0+cpu is not <2"),
        ('torch<2; extra == "ray"', None),  # not asked for
    ],
)
def test_package_bounds(monkeypatch, requirement, expected):
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: [requirement])
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.11.0+cpu")
    found = doctor._packages()
    assert (found.found if found.status == "fail" else "") == (expected or "")


@pytest.mark.parametrize("working", ["egl", "osmesa"])
def test_one_rendering_backend_is_enough(monkeypatch, working):
    monkeypatch.setattr(doctor, "_renderer", lambda name: "llvmpipe" if name == working else "")
    found = doctor._rendering()
    assert found.status == "ok"
    assert f"{working}: llvmpipe" in found.found
    assert "does not load" in found.found


def test_backend_that_crashes_or_hangs_is_contained(monkeypatch):
    assert doctor._renderer("nonsense") == ""

    def hang(*_, **__):
        raise subprocess.TimeoutExpired("python", 1)

    monkeypatch.setattr(subprocess, "run", hang)
    assert doctor._renderer("egl") == ""


@pytest.mark.parametrize(
    ("cpuinfo", "pays"),
    [
        ("vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512_bf16\n", True),
        ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx2 avx512_bf16\n", False),
        ("flags : fpu avx2 amx_bf16\n", True),
        ("flags : fpu avx2 avx512f\n", False),
        ("Features : asimd bf16\n", True),
        ("", False),
    ],
)
def test_bf16_pays_where_the_cpu_is_fast_at_it(monkeypatch, cpuinfo, pays):
    monkeypatch.setattr("pathlib.Path.read_text", lambda _: cpuinfo)
    assert doctor.bf16_pays() is pays
    assert ("bf16 autocast pays" in doctor._cpu().found) is pays


def test_cpu_flags_are_empty_without_proc(monkeypatch):
    def missing(_):
        raise FileNotFoundError

    monkeypatch.setattr("pathlib.Path.read_text", missing)
    assert doctor.cpu_flags() == frozenset()


def test_gpu(monkeypatch):
    card = SimpleNamespace(name="Some GPU", total_memory=24 * 2**30)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: card)
    assert "Some GPU, 24 GB" in finding("GPU").found
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("pathlib.Path.exists", lambda _: True)
    assert finding("GPU").status == "warn"
    assert "CUDA" in finding("GPU").advice


def test_serial_port_without_permission(monkeypatch, tmp_path):
    port = tmp_path / "ttyACM0"
    port.touch()
    monkeypatch.setattr(doctor, "serial_ports", lambda: [port])
    assert finding("serial ports").status == "ok"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert finding("serial ports").status == "warn"
    assert "usermod -aG" in finding("serial ports").advice


def test_serial_ports_are_listed_once(monkeypatch, tmp_path):
    (tmp_path / "serial" / "by-id").mkdir(parents=True)
    for name in ("ttyACM0", "ttyUSB0", "tty0"):
        (tmp_path / name).touch()
    named = tmp_path / "serial" / "by-id" / "usb-arm"
    named.symlink_to(tmp_path / "ttyACM0")
    monkeypatch.setattr(doctor, "DEVICES", tmp_path)
    assert doctor.serial_ports() == [named, tmp_path / "ttyUSB0"]


def test_check_that_breaks_is_a_failure():
    def broken():
        raise ImportError("libtorch.so: cannot open [shared] object")

    found = doctor._run("GPU", broken)
    assert found.status == "fail"
    assert "[shared]" in found.found
    assert found.advice


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_exit_code_and_table(monkeypatch, capsys, status, code):
    planted = Finding("thing", status, "[bold]found[/bold]", "do this")
    monkeypatch.setattr(doctor, "check", lambda: [planted])
    assert doctor.main() == code
    shown = capsys.readouterr().out
    assert "[bold]found[/bold]" in shown
    assert "do this" in shown
