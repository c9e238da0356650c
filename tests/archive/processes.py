"""A Dask cluster of real processes on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

distributed = pytest.importorskip("distributed")

WAIT_S = 60
_ENVIRONMENT = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "30s"}


class Cluster:
    """A scheduler and workers, started as a person would: `dask scheduler`, `dask worker`."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []
        self.file = folder / "scheduler.json"

    def start(self, *command):
        log = (self.folder / f"log-{len(self.processes)}.txt").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *command, "--scheduler-file", str(self.file)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_ENVIRONMENT, "PYTHONWARNINGS": "ignore"},
            start_new_session=True,
        )
        log.close()
        self.processes.append(process)
        return process

    def scheduler(self):
        return self.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")

    def worker(self):
        return self.start(
            "worker", "--nthreads", "1", "--no-dashboard", "--no-nanny", "--local-directory", str(self.folder)
        )

    def client(self):
        return distributed.Client(scheduler_file=str(self.file), timeout=30)

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(WAIT_S)

    @staticmethod
    def kill(process):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(WAIT_S)
