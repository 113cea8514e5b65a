"""What the demo keeps of its run: steps with their evidence, versions, requests and quality, as JSON and as a table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlops_assets.storage import write_json


@dataclass
class Step:
    """One step of the story; `evidence` is the file or folder that shows it, `page` where it is seen meanwhile."""

    name: str
    started: datetime
    seconds: float = 0.0
    verdict: str = "running"
    detail: str = ""
    evidence: str = ""
    page: str = ""

    def done(self, detail: str, *, evidence: Path | str = "", page: str = "", good: bool = True) -> None:
        """Close the step with what was decided and where to look; one that is not `good` ends the story."""
        self.detail, self.evidence, self.page = detail, str(evidence), page
        self.verdict = "pass" if good else "fail"


class StoryFailed(RuntimeError):
    """A step of the story did not come out as it must; the message says which and why."""


@dataclass
class Report:
    """Everything that ``report.json`` says."""

    path: Path
    console: Console
    started: float = field(default_factory=time.monotonic)
    steps: list[Step] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)
    quality: dict[str, Any] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Time a step, say what happens, and keep it even when it fails.

        Raises:
            StoryFailed: what was done is not good.
        """
        step = Step(name, datetime.now(UTC))
        self.steps.append(step)
        began = time.monotonic()
        self.console.print(f"\n{name}", style="bold cyan")
        try:
            yield step
        except KeyboardInterrupt:
            step.done("interrupted", good=False)
            raise
        except BaseException as error:
            step.done(f"{type(error).__name__}: {error}", good=False)
            raise
        finally:
            step.seconds = round(time.monotonic() - began, 1)
            self.write()
        took = (f" ({step.seconds:.0f} s)", "dim")
        self.console.print(Text.assemble("  ", _coloured(step.verdict), f" {step.detail}", took))
        if step.verdict == "fail":
            raise StoryFailed(f"{name}: {step.detail}")

    def write(self) -> Path:
        """Write the report as it stands."""
        return write_json(
            self.path,
            {
                "seconds_total": round(time.monotonic() - self.started, 1),
                "steps": self.steps,
                "versions": self.versions,
                "requests": self.requests,
                "quality": self.quality,
                "urls": self.urls,
            },
        )

    def show(self) -> None:
        """The summary for people."""
        table = Table("step", "s", "verdict", "what was decided", title="The closed loop", title_style="bold")
        for step in self.steps:
            table.add_row(step.name, f"{step.seconds:.0f}", _coloured(step.verdict), step.detail)
        self.console.print(table)
        versions = Table("version", "arm", "F1 on its test set", "verdict", title="Versions", title_style="bold")
        for version in self.versions:
            versions.add_row(str(version["version"]), version["arm"], f"{version['f1']:.3f}", version["verdict"])
        self.console.print(versions)
        if self.requests:
            sent, answered, failed = (self.requests[name] for name in ("sent", "answered", "failed"))
            self.console.print(f"requests: {sent} sent, {answered} answered, {failed} failed")
        if self.quality:
            self.console.print(
                f"weighted F1 on the same {self.quality['rows']} rows ({self.quality['named']}): "
                f"{self.quality['before']:.3f} with version {self.quality['first_version']}, "
                f"{self.quality['after']:.3f} with version {self.quality['last_version']}"
            )
        self.console.print(f"report: {self.path}")


def _coloured(verdict: str) -> Text:
    return Text(verdict, "green" if verdict == "pass" else "red")
