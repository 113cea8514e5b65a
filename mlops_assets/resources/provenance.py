"""Where a training run comes from: the commit of the code and the packages around it.

Knows git and the installed distributions; it names versions only, never where they were fetched.
"""

from __future__ import annotations

import subprocess
from functools import cache
from importlib.metadata import distributions
from importlib.metadata import version as installed_version

from mlops_assets.settings import PROJECT_ROOT

DISTRIBUTION = "mlops-assets"


def code_commit() -> str:
    """The commit of the checkout (``+changes`` when files differ from it), else the package's version."""
    if not (PROJECT_ROOT / ".git").exists():
        return f"{DISTRIBUTION} {installed_version(DISTRIBUTION)}"
    commit = _git("rev-parse", "HEAD")
    return f"{commit}+changes" if _git("status", "--porcelain", "--untracked-files=no") else commit


@cache  # a third of a second, and the same as long as the process lives
def environment() -> str:
    """Every installed package as ``name==version``, one a line, sorted.

    >>> "mlflow==" in environment()
    True
    """
    found = {dist.metadata["Name"].lower(): dist.version for dist in distributions()}
    return "".join(f"{name}=={found[name]}\n" for name in sorted(found))


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PROJECT_ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
