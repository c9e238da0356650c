"""What the benchmarks share: what each says of its machine, versions and commit, and the browser's driver."""

from __future__ import annotations

import importlib.util
import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = (
    "amatch-widgets",
    "torch",
    "timm",
    "numpy",
    "pillow",
    "ipywidgets",
    "ipyvuetify",
    "jupyterlab",
    "ipykernel",
)


def provenance() -> dict[str, Any]:
    """Return cores, versions and commit, JSON-able."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "commit": _git("rev-parse", "--short", "HEAD")
        + ("+changes" if _git("status", "--porcelain") else ""),
    }


def peak_memory_mb() -> float:
    """Return the largest resident size that this process has had, in MB."""
    try:
        status = Path("/proc/self/status").read_text()
        return float(status.split("VmHWM:")[1].split()[0]) / 2**10
    except (OSError, IndexError):
        pass  # no Linux; there getrusage would count the process that started this one, too
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if platform.system() == "Darwin" else 2**10)


def lab_driver(name: str = "lab") -> Any:
    """Import a module of the browser tests from its file; by default the one that drives JupyterLab."""
    spec = importlib.util.spec_from_file_location(f"amatch_{name}", ROOT / "tests" / "browser" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=False)
    return run.stdout.strip()
