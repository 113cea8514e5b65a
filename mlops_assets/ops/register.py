"""Makes an MLflow model that somebody logged a version that can be served, and offers it as a candidate.

The gate judges our own exports only, so such a model goes past it: with a waiver, recorded with its reason
and its author, as the version's evidence. From there on the rollout is that of any version.
"""

from __future__ import annotations

from datetime import UTC, datetime

from mlops_assets import clock
from mlops_assets.declarations import find_spec
from mlops_assets.release.gate_inputs import Waiver
from mlops_assets.resources.registry import ArtefactMismatch, Registry, Version
from mlops_assets.settings import Settings
from mlops_assets.spec import ModelSpec
from mlops_assets.storage import digest_json

_GATE = "evidence.gate"


class RegistrationRefused(ValueError):
    """The model cannot be used; the message says why."""


def register_model(settings: Settings, model: str, address: str, *, waiver_reason: str, waived_by: str) -> Version:
    """Record the digest of a logged model's files, once it is seen that it can be served; a no-op when repeated.

    This loads the model, and loading runs its code. With a waiver the version also becomes the candidate, unless it
    is in production or in a canary already.

    Args:
        address: ``models:/NAME/VERSION``, ``models:/m-ID`` or ``runs:/RUN/NAME``.

    Raises:
        RegistrationRefused: the model cannot be served or is an export, its files are not those that were
            registered, or a canary has sent it back.
        IncompleteWaiver, SpecError: half a waiver is given; the model is not declared.
        UnknownAddress, RegistryUnavailable: there is no such model, or MLflow cannot be asked.
    """
    from mlops_assets.resources.mlflow_model import model_digest
    from mlops_assets.resources.pyfunc import PyfuncPredictor
    from mlops_assets.training.artefact import ArtefactError

    waiver = Waiver.of(waiver_reason, waived_by)
    spec = find_spec(settings.models_dir, model)
    registry = Registry(settings)
    logged = registry.logged_model(model, address)
    if logged.version is not None:
        _require_foreign(registry.get(model, logged.version))
    try:
        with logged.folder() as folder:
            digest = logged.digest or model_digest(folder)
            PyfuncPredictor.load(folder, expected_digest=digest, spec=spec)
    except (ArtefactError, ArtefactMismatch) as error:
        raise RegistrationRefused(str(error)) from error
    # Nobody says what it was trained on: whatever there was by now may have been among it.
    version = registry.register_logged(model, logged, digest, {"trained_until": clock.now(settings).isoformat()})
    return _offered(settings, registry, spec, version, waiver) if waiver else version


def next_step(version: Version) -> str:
    """What becomes of a registered version, for people."""
    if "production" in version.aliases:
        return "it is in production"
    if "canary" in version.aliases:
        return "it is in a canary"
    if "candidate" in version.aliases:
        return "the rollout sensor takes it from there"
    if _GATE in version.tags:
        return f"offer it again with `mlops canary start {version.version} --model {version.model}`"
    return "it needs a waiver (--waive) to be released"


def _require_foreign(version: Version) -> None:
    if version.artefact_digest and version.artefact_format == "export":
        raise RegistrationRefused(f"version {version.version} of {version.model} is an export: it has been registered")


def _offered(settings: Settings, registry: Registry, spec: ModelSpec, version: Version, waiver: Waiver) -> Version:
    """The version as the candidate, with the waiver as its gate evidence."""
    model, number = version.model, version.version
    if version.sent_back and not version.in_use:
        again = f"offer it again with `mlops canary start {number} --model {model}`"
        raise RegistrationRefused(f"version {number} of {model} was sent back ({version.tags['rollout']}): {again}")
    if version.taken_up:
        return version
    if _GATE not in version.tags:
        registry.attach_evidence(model, number, "gate", _waived(settings, spec, version, waiver))
        registry.set_tags(model, number, {"gate": "waived"})
    return registry.offer(model, number)


def _waived(settings: Settings, spec: ModelSpec, version: Version, waiver: Waiver) -> dict[str, object]:
    from mlops_assets.release.claim import Claim
    from mlops_assets.release.gate_inputs import GateDecision
    from mlops_assets.verdict import Verdict

    message = "the gate judges exported models, and this one is another MLflow model"
    claim = Claim("not_judged", Verdict.INSUFFICIENT_DATA, None, None, 0, None, message)
    decision = GateDecision(Verdict.INSUFFICIENT_DATA, (claim,), waiver)
    return {
        "model": version.model,
        "judged": False,
        "at": clock.now(settings),
        "decided": datetime.now(UTC),
        "artefact_digest": version.artefact_digest,
        "spec_digest": digest_json(spec),
        "spec": spec.model_dump(mode="json"),
        "decision": decision.to_dict(),
    }
