"""`robolearn doctor`: is this machine ready, and what to do where it is not."""

import grp
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table
from rich.text import Text

Status = Literal["ok", "warn", "fail"]

COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "bold red"}
REINSTALL: Final = "run make setup, or reinstall robolearn with pip"
MIN_PYTHON: Final = (3, 12)
MIN_FREE_DISK_GB: Final = 10.0  # a training run with its dataset, image cache and videos
MIN_MEMORY_GB: Final = 4.0  # torch, a simulator in each worker and the image cache
DEVICES: Final = Path("/dev")
PROBE_TIMEOUT_S: Final = 120
# The instructions with which bf16 matrix products are faster than float32 ones, on any CPU.
BF16_FLAGS: Final = frozenset({"amx_bf16", "bf16"})
CPU_FLAGS: Final[tuple[str, ...]] = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
ENCODERS: Final = {
    "libx264": "no recordings with pictures, and no videos in reports",
}


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    name: str
    status: Status  # "fail": robolearn does not work; "warn": something will be slow or missing
    found: str
    advice: str = ""  # what to do; empty if all is well


def check() -> list[Finding]:
    """Runs all checks. A check that itself breaks, as with a damaged package, is a failure."""
    return [_run(name, probe) for name, probe in PROBES.items()]


def main() -> int:
    """Prints the findings as a table; returns 1 if something required fails, else 0."""
    findings = check()
    table = Table("check", "", "found", "what to do", title="robolearn doctor")
    for finding in findings:
        status = Text(finding.status, COLOURS[finding.status])
        # Text, not str: rich would take the brackets of an error message for markup.
        table.add_row(finding.name, status, Text(finding.found), Text(finding.advice))
    Console().print(table)
    return int(any(finding.status == "fail" for finding in findings))


def cpu_flags() -> frozenset[str]:
    """The instruction sets of the CPU as Linux names them; empty on other systems."""
    return frozenset(_cpu_info("flags", "Features").split())  # x86 and Arm


def _cpu_info(*names: str) -> str:
    """What Linux says of the first CPU under one of these names; "" if nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(names)), "")


def bf16_pays() -> bool:
    """Whether bf16 autocast is faster than float32 on this CPU.

    AVX-512 has products of bf16, too. AMD's are twice as fast and more; an Intel whose AMX is
    hidden from a virtual machine trained a flow policy at two thirds of the speed of float32.
    """
    flags = cpu_flags()
    amd = _cpu_info("vendor_id") == "AuthenticAMD"
    return bool(flags & BF16_FLAGS) or (amd and "avx512_bf16" in flags)


def usable_cores() -> int:
    """The number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def serial_ports() -> list[Path]:
    """The serial ports that may be a servo bus, under a name that survives replugging if any."""
    named = sorted((DEVICES / "serial" / "by-id").glob("*"))
    targets = {port.resolve() for port in named}
    patterns = ("ttyACM*", "ttyUSB*", "tty.usbmodem*", "tty.usbserial*")
    others = sorted(port for pattern in patterns for port in DEVICES.glob(pattern))
    return named + [port for port in others if port not in targets]


def _run(name: str, probe: Callable[[], Finding]) -> Finding:
    try:
        return probe()
    # The doctor is called when something is broken, so whatever a check raises is its finding.
    except Exception as error:  # noqa: BLE001
        return Finding(name, "fail", f"{type(error).__name__}: {error}", REINSTALL)


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < MIN_PYTHON:
        return Finding("Python", "fail", found, f"robolearn needs Python >= 3.12; {REINSTALL}")
    return Finding("Python", "ok", found)


def _packages() -> Finding:
    needed = [Requirement(line) for line in importlib.metadata.requires("robolearn") or []]
    needed = [r for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    wrong = [text for requirement in needed if (text := _mismatch(requirement))]
    if wrong:
        return Finding("packages", "fail", ", ".join(wrong), REINSTALL)
    shown = ("lerobot", "torch", "mujoco", "gymnasium", "numpy", "av")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in shown)
    return Finding("packages", "ok", versions)


def _mismatch(requirement: Requirement) -> str:
    """What is wrong with an installed package, "" if nothing."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement.name} is missing"
    # A local build such as 2.11.0+cpu or a pre-release of a tested version is inside the bounds.
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"{requirement.name} {version} is not {requirement.specifier}"


def _rendering() -> Finding:
    from robolearn.envs.render import BACKENDS  # brings MuJoCo, and help shall not wait for it

    works = {name: drawn for name in BACKENDS if (drawn := _renderer(name))}
    found = ", ".join(
        f"{name}: {works[name]}" if name in works else f"{name} does not load" for name in BACKENDS
    )
    if works:
        return Finding("rendering", "ok", found)
    packages = " ".join(BACKENDS.values())
    return Finding("rendering", "fail", found, f"sudo apt-get install {packages}")


def _renderer(backend: str) -> str:
    """What draws with this OpenGL backend, "" if it does not load.

    It is tried in a process of its own: a broken driver crashes, and one process binds to one
    backend for good.
    """
    code = "from robolearn.envs.render import gl_renderer; print(gl_renderer())"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "MUJOCO_GL": backend},
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return ""
    # PyOpenGL may print a line of its own when the context goes.
    return done.stdout.partition("\n")[0] if done.returncode == 0 else ""


def _cpu() -> Finding:
    flags = cpu_flags()
    names = [name for name in CPU_FLAGS if name in flags] or [platform.machine()]
    precision = "bf16 autocast pays" if bf16_pays() else "float32 is the faster precision"
    return Finding("CPU", "ok", f"{', '.join(names)}: {precision}")


def _threads() -> Finding:
    import torch

    cores, threads = usable_cores(), torch.get_num_threads()
    found = f"{cores} cores, torch uses {threads} threads, load {os.getloadavg()[0]:.1f}"
    if threads > cores:
        advice = f"more threads than cores are slow: export OMP_NUM_THREADS={cores}"
        return Finding("threads", "warn", found, advice)
    return Finding("threads", "ok", found)


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found = f"{properties.name}, {properties.total_memory / 2**30:.0f} GB: --device cuda"
        return Finding("GPU", "ok", found)
    if (DEVICES / "nvidia0").exists():
        advice = f"install a driver for CUDA {torch.version.cuda}"
        return Finding("GPU", "warn", "torch cannot use the NVIDIA GPU", advice)
    return Finding("GPU", "ok", "none, training runs on the CPU")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    found = f"{free:.0f} GB free in {Path.cwd()}"
    if free < MIN_FREE_DISK_GB:
        return Finding("disk", "warn", found, f"free {MIN_FREE_DISK_GB:.0f} GB for runs and data")
    return Finding("disk", "ok", found)


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    if total < MIN_MEMORY_GB:
        advice = f"{MIN_MEMORY_GB:.0f} GB are needed to train; use fewer environment workers"
        return Finding("memory", "warn", f"{total:.1f} GB", advice)
    return Finding("memory", "ok", f"{total:.1f} GB")


def _serial() -> Finding:
    ports = serial_ports()
    if not ports:
        return Finding("serial ports", "ok", "none, only a real arm needs one")
    found = ", ".join(map(str, ports))
    closed = [port for port in ports if not os.access(port, os.R_OK | os.W_OK)]
    if closed:
        groups = ",".join(sorted({grp.getgrgid(port.stat().st_gid).gr_name for port in closed}))
        advice = f"no permission: sudo usermod -aG {groups} $USER, then log in again"
        return Finding("serial ports", "warn", found, advice)
    return Finding("serial ports", "ok", found)


def _video() -> Finding:
    import av

    missing = [name for name in ENCODERS if name not in av.codecs_available]
    if missing:
        lost = "; ".join(f"without {name} {ENCODERS[name]}" for name in missing)
        return Finding("video", "fail", lost, "pip install --force-reinstall 'av>=15,<16'")
    return Finding("video", "ok", f"PyAV {av.__version__} encodes {', '.join(ENCODERS)}")


PROBES: Final[dict[str, Callable[[], Finding]]] = {
    "Python": _python,
    "packages": _packages,
    "rendering": _rendering,
    "CPU": _cpu,
    "threads": _threads,
    "GPU": _gpu,
    "disk": _disk,
    "memory": _memory,
    "serial ports": _serial,
    "video": _video,
}
