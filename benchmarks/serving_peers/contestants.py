"""Who is compared: how each server is started, what it is sent, and when it counts as ready.

All of them run the same weights on the same two cores. Where a server has a usual number of processes it gets that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from mlops_assets.release.rollout import Phase
from mlops_assets.settings import PROJECT_ROOT, Settings

from .models import Message, Models

FOLDER = Path(__file__).resolve().parent
ENVIRONMENT = PROJECT_ROOT / ".venv-bench"
# The runtime is the product's own, version for version; torch is needed by neither server.
RUNTIME = ("onnxruntime==1.32.0", "numpy==2.4.6", "tokenizers==0.23.3")
BENTOML, LITSERVE = "bentoml==1.4.38", "litserve==0.2.19"


class NotInstallable(RuntimeError):
    """A peer cannot be installed here; the message is pip's last word."""


@dataclass(frozen=True)
class Contestant:
    """One server.

    Attributes:
        name: for ``--only``.
        title: what stands in the table.
        command: how to start it on a port.
        route: where it is asked.
        body: the JSON that carries a message.
        env: extra environment, given the port.
        is_ready: whether an answer shows everything at work; called with the server's address and the answer.
        needs: a requirement that goes into the benchmark's own environment, if any.
    """

    name: str
    title: str
    command: Callable[[int], Sequence[str]]
    route: str
    body: Callable[[Message], Any]
    env: Callable[[int], Mapping[str, str]]
    is_ready: Callable[[str, Any], bool] = lambda address, answer: True  # noqa: ARG005
    needs: str | None = None

    def bodies(self, messages: Sequence[Message]) -> list[str]:
        """One request body per message."""
        return [json.dumps(self.body(message)) for message in messages]

    def install(self) -> None:
        """Make sure that what it needs is there.

        Raises:
            NotInstallable: it is not, and cannot be fetched.
        """
        if self.needs is None:
            return
        python = ENVIRONMENT / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        done = subprocess.run(
            [python, "-m", "pip", "install", "--quiet", self.needs, *RUNTIME], capture_output=True, text=True
        )
        if done.returncode:
            raise NotInstallable(done.stderr.strip().splitlines()[-1])


def contestants(models: Models, home: Settings) -> list[Contestant]:
    """All of them, ours first."""
    shared = {"PYTHONPATH": str(PROJECT_ROOT)}
    packed = shared | {"BENCH_ARTEFACT": str(models.stable.folder)}
    padded = shared | {"BENCH_ARTEFACT": str(models.padded.folder)}
    return [
        _ours(home, replicas=1),
        _ours(home, replicas=2),
        _tuned("tuned", "hand-tuned FastAPI, ONNX, micro-batches, 2 workers (no canary, no log, no features)", padded),
        _tuned(
            "tuned-packed",
            "the same with our network, predictor and batcher",
            packed | {"BENCH_BATCHER": "ours"},
        ),
        Contestant(
            "naive",
            "naive FastAPI, torch pyfunc",
            lambda port: _uvicorn("naive:app", port, workers=1),
            "/predict",
            _text,
            lambda _: shared | {"BENCH_TORCH": str(models.torch)},
        ),
        _mlflow("mlflow-torch", "`mlflow models serve`, torch, 2 workers", models.torch, shared, workers=2),
        _mlflow("mlflow-onnx", "`mlflow models serve`, ONNX, 1 worker", models.onnx, shared, workers=1),
        Contestant(
            "ray",
            "Ray Serve as its tutorial shows, ONNX, 2 replicas",
            lambda port: [sys.executable, "ray_tutorial.py", str(port)],
            "/",
            _text,
            lambda _: padded | {"RAY_USAGE_STATS_ENABLED": "0"},
        ),
        _bentoml("bentoml", "BentoML, adaptive batching, ONNX, 2 workers", padded),
        _bentoml("bentoml-packed", "BentoML with our network and predictor", packed | {"BENCH_PREDICTOR": "ours"}),
        Contestant(
            "litserve",
            "LitServe, batches of 8, ONNX, 2 workers",
            lambda port: [_tool("python"), "lit.py", str(port)],
            "/predict",
            _text,
            lambda _: padded,
            needs=LITSERVE,
        ),
    ]


def _ours(home: Settings, replicas: int) -> Contestant:
    def env(port: int) -> dict[str, str]:
        settings = home.model_copy(update={"serve_port": port, "ingress_replicas": replicas})
        return settings.as_environment() | {"PYTHONPATH": str(PROJECT_ROOT)}

    return Contestant(
        f"ours-{replicas}",
        f"**ours, {replicas} ingress {'replica' if replicas == 1 else 'replicas'}**, "
        "10 % canary, log and feature store on",
        lambda port: [sys.executable, "-m", "mlops_assets.serving"],  # noqa: ARG005
        "/predict",
        lambda message: {"text": message.text, "customer_id": message.customer_id},
        env,
        _all_at_work,
    )


def _all_at_work(address: str, answer: Any) -> bool:
    """The canary takes its share, and the customer's features were looked up."""
    rollout = httpx.get(f"{address}/models/{answer['model']}/rollout", timeout=10).json()
    return rollout.get("phase") == Phase.PROGRESSING.value and answer["features_source"] == "online"


def _tuned(name: str, title: str, env: Mapping[str, str]) -> Contestant:
    return Contestant(
        name, title, lambda port: _uvicorn("tuned:app", port, workers=2), "/predict", _text, lambda _: env
    )


def _bentoml(name: str, title: str, env: Mapping[str, str]) -> Contestant:
    return Contestant(
        name,
        title,
        lambda port: [_tool("bentoml"), "serve", "bento:IntentClassifier", "--host=127.0.0.1", f"--port={port}"],
        "/predict",
        lambda message: {"texts": [message.text]},
        lambda _: {**env, "BENTOML_DO_NOT_TRACK": "True"},
        needs=BENTOML,
    )


def _mlflow(name: str, title: str, model: Path, env: Mapping[str, str], workers: int) -> Contestant:
    def command(port: int) -> list[str]:
        served = ["-m", str(model), "-h", "127.0.0.1", "-p", str(port), "-w", str(workers), "--env-manager", "local"]
        return [sys.executable, "-m", "mlflow", "models", "serve", *served]

    def body(message: Message) -> dict[str, Any]:
        return {"dataframe_split": {"columns": ["text"], "data": [[message.text]]}}

    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it starts a `uvicorn` that it finds there
    return Contestant(name, title, command, "/invocations", body, lambda _: {**env, "PATH": path})


def _text(message: Message) -> dict[str, str]:
    return {"text": message.text}


def _uvicorn(app: str, port: int, workers: int) -> list[str]:
    options = ["--host=127.0.0.1", f"--port={port}", f"--workers={workers}", "--no-access-log", "--log-level=warning"]
    return [sys.executable, "-m", "uvicorn", app, *options]


def _tool(name: str) -> str:
    return str(ENVIRONMENT / "bin" / name)
