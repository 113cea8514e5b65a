"""Sends an exported model that was built elsewhere through the gate, as an operator may.

It only asks Dagster for the run: the gate judges it like any other candidate, and a waiver is recorded
with its reason and its author.
"""

from __future__ import annotations

from pathlib import Path

from mlops_assets.declarations import find_spec
from mlops_assets.release.gate_inputs import Waiver
from mlops_assets.resources.dagster_api import DagsterApi
from mlops_assets.settings import Settings

CANDIDATE_OP = "{model}__candidate"
EVALUATION_OP = "{model}__evaluation"


class SubmissionRefused(ValueError):
    """The folder cannot be used; the message says why."""


def submit_artefact(settings: Settings, model: str, folder: Path, *, waiver_reason: str, waived_by: str) -> str:
    """Launch the run that evaluates, registers and offers `folder`; returns its id.

    Raises:
        SubmissionRefused: the folder is not an exported model, or it has a label or a feature that is not declared.
        IncompleteWaiver, SpecError: a waiver lacks its reason or author; the model is not declared.
        DagsterUnavailable: the webserver does not answer or refuses.
    """
    from mlops_assets.training.artefact import ArtefactError, require_declared, verify

    Waiver.of(waiver_reason, waived_by)
    spec = find_spec(settings.models_dir, model)
    if not folder.is_dir():
        raise SubmissionRefused(f"{folder} is not a folder; give the one that holds manifest.json")
    try:
        require_declared(verify(folder, expected_digest=None), spec.data.labels, spec.features.defaults)
    except ArtefactError as error:
        raise SubmissionRefused(str(error)) from error
    config = {
        "ops": {
            CANDIDATE_OP.format(model=model): {"config": {"artefact": str(folder.resolve())}},
            EVALUATION_OP.format(model=model): {"config": {"waiver_reason": waiver_reason, "waived_by": waived_by}},
        }
    }
    return DagsterApi(settings).launch(f"{model}_submit", config=config, tags={"mlops/submitted": str(folder)})
