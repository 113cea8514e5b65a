"""What runs and what it says of itself, asked from outside like a user would."""

from __future__ import annotations

from typing import Any

import psutil

from mlops_assets.ops.processes import Service, services
from mlops_assets.ops.supervisor import answers
from mlops_assets.resources.dagster_api import DagsterApi, DagsterUnavailable
from mlops_assets.resources.endpoint import Endpoint, EndpointRefused, EndpointUnavailable
from mlops_assets.settings import Settings
from mlops_assets.storage import read_json


def platform_status(settings: Settings) -> dict[str, Any]:
    """Every process with its state, every model with its versions; `healthy` when all is as it should be."""
    parts = [*_processes(settings), _daemons(settings), *_models(settings)]
    return {"healthy": all(part["ok"] for part in parts), "home": str(settings.home.resolve()), "parts": parts}


def _processes(settings: Settings) -> list[dict[str, Any]]:
    path = settings.home / "run" / "platform.json"
    recorded = read_json(path)["processes"] if path.exists() else {}
    return [_process(settings, service, recorded.get(service.name)) for service in services(settings)]


def _process(settings: Settings, service: Service, known: dict[str, Any] | None) -> dict[str, Any]:
    page = f"{service.page} " if service.page else ""
    if known is None:
        return _part(service.name, "down", f"{page}not started: mlops up", ok=False)
    detail = f"{page}process {known['pid']}, restarted {known['restarts']} times"
    if known["given_up"]:
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


def _models(settings: Settings) -> list[dict[str, Any]]:
    try:
        with Endpoint(settings) as endpoint:
            health = endpoint.health()
    except (EndpointUnavailable, EndpointRefused) as error:
        return [_part("models", "unknown", str(error), ok=False)]
    parts = []
    for name, model in health["models"].items():
        stable, canary = model["stable"], model["canary"]
        detail = f"stable {stable['version']}" if stable else "no production version yet"
        if canary:
            how = "gets copies of" if canary["shadow"] else "takes"
            detail += f", canary {canary['version']} {how} {canary['weight']:.0%}"
        parts.append(_part(name, "serving" if stable else "waiting", detail, ok=True))
    return parts


def _part(name: str, state: str, detail: str, *, ok: bool) -> dict[str, Any]:
    return {"name": name, "state": state, "detail": detail, "ok": ok}
