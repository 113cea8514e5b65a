"""Samples how busy the endpoint's machine is, for the monitor of the processor.

The last hour stays in one small file; what is too busy is for the monitor to say.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections import deque
from datetime import UTC, datetime
from pathlib import Path

import psutil

from mlops_assets.monitoring.machine import Sample, read_samples, write_samples
from mlops_assets.serving.trouble import Trouble

log = logging.getLogger("mlops_assets.serving")

SAMPLE_SECONDS = 10.0
_AN_HOUR = 360
_GPU_SECONDS = 5.0


class MachineSampler:
    """One machine; a sample covers the time since the one before it."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._samples = deque(read_samples(home), maxlen=_AN_HOUR)
        self._unwritten = Trouble("the load of the machine cannot be written")
        self._nvidia = shutil.which("nvidia-smi")
        psutil.cpu_percent()  # where the first sample begins

    def sample(self) -> Sample:
        """Take a sample and keep it; where it cannot be written now, it is with a later one."""
        taken = Sample(datetime.now(UTC), psutil.cpu_percent() / 100, self._gpu())
        self._samples.append(taken)
        try:
            write_samples(self._home, self._samples)
        except OSError as error:
            self._unwritten.met(error)
        else:
            self._unwritten.over()
        return taken

    def _gpu(self) -> float | None:
        """The share in use of the busiest GPU; None without one."""
        if self._nvidia is None:
            return None
        command = [self._nvidia, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        try:
            said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_GPU_SECONDS)
        except (subprocess.SubprocessError, OSError) as error:
            log.warning("nvidia-smi cannot tell how busy the GPU is: %s", error)
            return None
        shares = [int(line) / 100 for line in said.stdout.split() if line.isdigit()]
        return max(shares, default=None)
