"""A policy over the stored history of a declared model: what `mlops replay` does."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from polars.exceptions import PolarsError

from mlops_assets.declarations import SpecError, find_spec, load_policy
from mlops_assets.ops.history import read_history
from mlops_assets.replay.engine import replay
from mlops_assets.replay.events import Replay
from mlops_assets.replay.history import History
from mlops_assets.resources.registry import EvidenceCorrupt, RegistryUnavailable
from mlops_assets.settings import Settings


class ReplayRefused(ValueError):
    """There is nothing to replay, or the policy cannot be; the message says why and how to mend it."""


def replay_policy(settings: Settings, model: str, policy: Path, first: date, last: date) -> Replay:
    """Re-run the policy in a file over the history of a model, from `first` to `last`, both included.

    Raises:
        ReplayRefused: the model is not declared, the file cannot be used, or there is no history of these days.
    """
    try:
        own = find_spec(settings.models_dir, model)
        wanted = load_policy(policy, own)
        history = read_history(settings, own)
    except (SpecError, RegistryUnavailable, EvidenceCorrupt) as error:
        raise ReplayRefused(str(error)) from error
    except (PolarsError, ValueError) as error:
        raise ReplayRefused(f"{settings.model_home(model).root} cannot be read: {error}") from error
    _check_days(history, settings, first, last)
    return replay(history, wanted, first, last)


def _check_days(history: History, settings: Settings, first: date, last: date) -> None:
    if first > last:
        raise ReplayRefused(f"--from {first} lies after --to {last}")
    if history.days is None:
        root = settings.model_home(history.own.name).root
        raise ReplayRefused(f"{root} holds no day of drift yet: there is nothing to replay")
    begin, end = history.days
    if last < begin or first > end:
        raise ReplayRefused(f"there is no history from {first} to {last}; it goes from {begin} to {end}")
