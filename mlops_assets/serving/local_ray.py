"""Starts the Ray that serving runs on: a small local one, or the cluster that the settings name.

Everything that Ray reads from the environment is set here, before it is imported: what makes Serve
fast, and the settings for the processes that it will start.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

from mlops_assets.serving import haproxy
from mlops_assets.settings import Settings

OBJECT_STORE_BYTES = 200 * 1024 * 1024
NAMESPACE = "mlops-assets"
APPLICATION = "mlops-assets"

# Measured for one replica on two cores: a second event loop and unbuffered request logs cost more than a prediction.
SWITCHES = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


def environment(settings: Settings) -> dict[str, str]:
    """The settings as environment variables, for the processes that Ray starts.

    Paths are absolute, because those processes have another working directory.
    """
    values: dict[str, str] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if value is None or value == "" or value == []:
            continue
        values[f"MLOPS_{name.upper()}"] = _as_text(value)
    return values


def start(settings: Settings) -> None:
    """Start (or join) Ray and Serve's HTTP server; returns when both are up."""
    os.environ.update(environment(settings))
    switches = SWITCHES | haproxy.environment(_proxy_folder(settings), settings)
    os.environ.update({name: os.environ.get(name, value) for name, value in switches.items()})
    import ray
    from ray import serve

    logs = settings.home.resolve() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    common: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.WARNING}
    if settings.ray_address:
        ray.init(address=settings.ray_address, runtime_env={"env_vars": environment(settings)}, **common)
    else:
        folder = temporary_folder(settings)
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(folder),
            **common,
        )
        _link(logs / "ray", folder / "session_latest" / "logs")
    serve.start(
        http_options={"host": settings.host, "port": settings.serve_port},
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )


def clear(settings: Settings) -> None:
    """End what a Ray of this home that was killed left behind."""
    haproxy.end_orphans(_proxy_folder(settings))


def stop(settings: Settings) -> None:
    """Stop the application, and the local Ray with every process that it started."""
    import psutil
    import ray
    from ray import serve

    if settings.ray_address:
        serve.delete(APPLICATION)
        ray.shutdown()
        return
    family = psutil.Process().children(recursive=True)
    serve.shutdown()
    ray.shutdown()
    _, alive = psutil.wait_procs(family, timeout=5)
    for process in alive:  # Ray's agents at times outlive their raylet
        process.kill()
    psutil.wait_procs(alive, timeout=5)


def temporary_folder(settings: Settings) -> Path:
    """Where the local Ray keeps sockets and logs: short, as a socket's path may have 107 bytes."""
    digest = hashlib.sha256(str(settings.home.resolve()).encode()).hexdigest()[:8]
    return Path("/tmp") / f"mlops-ray-{digest}"


def _proxy_folder(settings: Settings) -> Path:
    return temporary_folder(settings) / "ha"


def _link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def _as_text(value: Any) -> str:
    if isinstance(value, Path):
        return str(value.resolve())
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        import json

        return json.dumps(value)
    if hasattr(value, "get_secret_value"):
        return str(value.get_secret_value())
    return str(value)
