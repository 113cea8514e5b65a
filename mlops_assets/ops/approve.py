"""A person's word that a version which was judged fit may go into production.

It only reports the approval to Dagster, once it has seen that a version waits for one; the graph reads it
from there, and the guard writes it into the rollout's evidence.
"""

from __future__ import annotations

from mlops_assets.resources.dagster_api import DagsterApi
from mlops_assets.resources.endpoint import Endpoint
from mlops_assets.settings import Settings


class ApprovalRefused(ValueError):
    """There is nothing to approve; the message says what there is."""


def approve_version(settings: Settings, model: str, version: int, *, by: str) -> None:
    """Report that `by` agrees to exactly this version.

    Raises:
        ApprovalRefused: nobody is named, or no rollout of this version waits for a person.
        DagsterUnavailable, EndpointUnavailable, EndpointRefused: either does not answer, or refuses.
    """
    from mlops_assets.lineage.release import APPROVAL

    if not by.strip():
        raise ApprovalRefused("an approval needs the name of who agrees (--by)")
    with Endpoint(settings) as endpoint:
        rollout = endpoint.rollout(model)
    if rollout.get("version") != version:
        newest = (
            f": the newest one is of version {rollout['version']}" if "version" in rollout else ", nor of another one"
        )
        raise ApprovalRefused(f"there is no rollout of version {version} of {model}{newest}")
    if rollout["phase"] != "waiting_promotion":
        raise ApprovalRefused(
            f"version {version} of {model} does not wait for a person: it is {rollout['phase']}: {rollout['reason']}"
        )
    DagsterApi(settings).report(
        model,
        APPROVAL,
        description=f"{by} lets version {version} go into production",
        metadata={"version": version, "by": by},
    )
