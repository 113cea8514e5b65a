"""What runs and what it says of itself, asked from outside like a user would."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import psutil

from mlops_assets.ops.processes import Service, services, supervisor_pid
from mlops_assets.ops.supervisor import answers
from mlops_assets.resources.dagster_api import DagsterApi, DagsterUnavailable
from mlops_assets.resources.endpoint import Endpoint, EndpointRefused, EndpointUnavailable
from mlops_assets.settings import Settings
from mlops_assets.storage import read_json

# Each look at the endpoint is answered by one replica, the least busy: of so many for each, hardly any is missed.
LOOKS = 4


def platform_status(settings: Settings) -> dict[str, Any]:
    """Every process with its state, every model with its versions; `healthy` when all is as it should be.

    What the endpoint calls degraded is not healthy here either, and says why.
    """
    processes = _processes(settings)
    parts = [_supervisor(settings, processes), *processes, _daemons(settings), *_endpoint(settings)]
    return {"healthy": all(part["ok"] for part in parts), "home": str(settings.home.resolve()), "parts": parts}


def _supervisor(settings: Settings, processes: list[dict[str, Any]]) -> dict[str, Any]:
    pid = supervisor_pid(settings)
    if pid is not None:
        return _part("supervisor", "up", f"process {pid}", ok=True)
    if any(process["state"] in ("up", "starting") for process in processes):
        return _part("supervisor", "dead", "nothing is started again: mlops down, then mlops up", ok=False)
    return _part("supervisor", "down", "not started: mlops up", ok=False)


def _processes(settings: Settings) -> list[dict[str, Any]]:
    path = settings.home / "run" / "platform.json"
    recorded = read_json(path)["processes"] if path.exists() else {}
    return [_process(settings, service, recorded.get(service.name)) for service in services(settings)]


def _process(settings: Settings, service: Service, known: dict[str, Any] | None) -> dict[str, Any]:
    page = f"{service.page} " if service.page else ""
    if known is None:
        return _part(service.name, "down", f"{page}not started: mlops up", ok=False)
    detail = f"{page}process {known['pid']}, restarted {known['restarts']} times"
    if known.get("given_up"):  # a supervisor from before there was such a thing says nothing
        log = settings.home.resolve() / "logs" / f"{service.name}.log"
        return _part(service.name, "given up", f"{detail}; tried again after pauses; {log} says why", ok=False)
    alive = psutil.pid_exists(known["pid"])
    ready = alive and (service.ready_url is None or answers(service.ready_url))
    return _part(service.name, "up" if ready else "starting" if alive else "down", detail, ok=ready)


def _daemons(settings: Settings) -> dict[str, Any]:
    try:
        silent = DagsterApi(settings).unhealthy_daemons()
    except DagsterUnavailable as error:
        return _part("daemons", "unknown", str(error), ok=False)
    return _part("daemons", "silent" if silent else "up", ", ".join(silent), ok=not silent)


def _endpoint(settings: Settings) -> list[dict[str, Any]]:
    try:
        with Endpoint(settings) as endpoint:
            looks = [endpoint.health() for _ in range(LOOKS * settings.ingress_replicas)]
    except (EndpointUnavailable, EndpointRefused) as error:
        return [_part("models", "unknown", str(error), ok=False)]
    replicas = {health["replica"]: health for health in looks}
    return [_of_all(said) for said in zip(*map(_said, replicas.values()), strict=True)]


def _said(health: dict[str, Any]) -> list[dict[str, Any]]:
    """What one replica says of each part."""
    return [
        *(_leant_on(name, health[name]) for name in ("guard", "registry")),
        *(_model(name, model) for name, model in health["models"].items()),
    ]


def _of_all(said: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the replicas say of one part: that it is well, or each fault, with how many have it where not all do."""
    faults = Counter(part["detail"] for part in said if not part["ok"])
    ill = next((part for part in said if not part["ok"]), said[0])
    told = [fault if n == len(said) else f"{fault} ({n} of {len(said)} replicas)" for fault, n in faults.items()]
    return {**ill, "detail": "; ".join(told) or ill["detail"]}


def _leant_on(name: str, health: dict[str, Any]) -> dict[str, Any]:
    return _part(name, "up" if health["ok"] else "degraded", health["error"] or "", ok=health["ok"])


def _model(name: str, health: dict[str, Any]) -> dict[str, Any]:
    stable, canary = health["stable"], health["canary"]
    detail = f"stable {stable['version']}" if stable else "no production version yet"
    if canary:
        how = "gets copies of" if canary["shadow"] else "takes"
        detail += f", canary {canary['version']} {how} {canary['weight']:.0%}"
    features = health["feature_store"]
    store_error = None if features["ok"] else f"feature store: {features['error']}"
    faults = [error for error in (health["error"], store_error, health["log"]["error"]) if error]
    state = "waiting" if not stable else "degraded" if faults else "serving"
    return _part(name, state, "; ".join([detail, *faults]), ok=state == "serving")


def _part(name: str, state: str, detail: str, *, ok: bool) -> dict[str, Any]:
    return {"name": name, "state": state, "detail": detail, "ok": ok}
