"""The door to the prediction endpoint: its HTTP API as Python calls, with its refusals as exceptions.

Used by the graph, the `mlops` command and the demo. It retries nothing and decides nothing: whether to
ask again is the caller's matter.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from datetime import datetime
from functools import cache, cached_property
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import httpx

from mlops_assets.settings import Settings

_TIMEOUT = httpx.Timeout(10.0, connect=2.0)
# What the endpoint, or a proxy before it, answers in place of a reply that may come a moment later.
_NOT_NOW = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)


class EndpointUnavailable(RuntimeError):
    """The endpoint does not answer, or not now: it is not up, still starting, or too slow. Ask again later."""


class EndpointRefused(RuntimeError):
    """The endpoint answered, and it was a refusal; `problem` is its RFC 9457 document."""

    def __init__(self, request: str, problem: Mapping[str, Any]) -> None:
        super().__init__(f"{request}: {problem.get('status')} {problem.get('title')}: {problem.get('detail')}")
        self.problem = dict(problem)

    @property
    def status(self) -> int:
        """The HTTP status code."""
        return int(self.problem["status"])


class Endpoint:
    """A client of the endpoint that the settings name; safe to share between threads.

    Every method raises `EndpointUnavailable` when nothing answers within 2 s (connect) or 10 s (reply), or the answer
    is that it cannot serve now (429, 502, 503, 504), and `EndpointRefused` when the answer is another error.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        if "_http" in self.__dict__:
            self._http.close()
            del self.__dict__["_http"]

    def health(self) -> dict[str, Any]:
        """``GET /health``: versions in each arm and the state of what the endpoint leans on."""
        return self._ask("GET", "/health")

    def predict(
        self,
        model: str,
        text: str,
        *,
        customer_id: str | None = None,
        return_probabilities: bool = False,
        event_timestamp: datetime | None = None,
        repeat: bool = False,
    ) -> dict[str, Any]:
        """``POST /models/{model}/predict``; `event_timestamp` and `repeat` are for replays alone."""
        body: dict[str, Any] = {"text": text}
        body |= {"customer_id": customer_id} if customer_id is not None else {}
        body |= {"return_probabilities": True} if return_probabilities else {}
        body |= {"event_timestamp": event_timestamp.isoformat()} if event_timestamp else {}
        body |= {"repeat": True} if repeat else {}
        return self._ask("POST", f"/models/{model}/predict", body, self._predict_headers)

    def feedback(
        self, model: str, prediction_id: str, label: str, *, label_timestamp: datetime | None = None
    ) -> dict[str, Any]:
        """``POST /models/{model}/feedback``: the true label of an earlier prediction."""
        body = {"prediction_id": prediction_id, "label": label}
        body |= {"label_timestamp": label_timestamp.isoformat()} if label_timestamp else {}
        return self._ask("POST", f"/models/{model}/feedback", body, self._predict_headers)

    def rollout(self, model: str) -> dict[str, Any]:
        """``GET /models/{model}/rollout``: phase, arms, counts and evidence of the newest rollout."""
        return self._ask("GET", f"/models/{model}/rollout")

    def refused_version(self, model: str) -> int | None:
        """Number of the version that some replica should serve and cannot load; 0: none; None: no replica said yet."""
        from prometheus_client.parser import text_string_to_metric_families

        reply = self._reply("GET", "/metrics")
        try:
            families = list(text_string_to_metric_families(reply.text))
        except ValueError as error:
            raise _not_ours(reply) from error
        samples = (s for family in families if family.name == "mlops_refused_version" for s in family.samples)
        return max((int(s.value) for s in samples if s.labels["model"] == model), default=None)

    def seal(self, model: str, version: int, approval: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Ask the guard to let a version be promoted; `approval`: who agreed (`by`) and when (`at`, ISO 8601).

        Returns:
            ``{"result": "sealed" | "aborted" | "not ready", "why": the guard's words, "phase": ...}``.
        """
        body = {"version": version, "approval": approval}
        return _rollout_answer(self._admin(f"/models/{model}/rollout/seal", body))

    def abort(self, model: str, version: int, reason: str) -> dict[str, Any]:
        """Stop the rollout of a version; the reply has the form of `seal`'s."""
        return _rollout_answer(self._admin(f"/models/{model}/rollout/abort", {"version": version, "reason": reason}))

    def set_clock(self, now: datetime) -> datetime:
        """``POST /clock``: move the replayed clock forward; returns where it stands."""
        return datetime.fromisoformat(self._admin("/clock", {"now": now.isoformat()})["now"])

    @cached_property
    def _http(self) -> httpx.Client:
        # Without the environment's proxies: the endpoint is a neighbour, and the token is for it alone.
        return httpx.Client(base_url=self.settings.endpoint, timeout=_TIMEOUT, trust_env=False, verify=_trusted())

    @property
    def _predict_headers(self) -> dict[str, str]:
        return self._token if self.settings.token or self.settings.predict_token else {}

    @property
    def _token(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.settings.bearer()}"}

    def _admin(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._ask("POST", path, body, self._token)

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        reply = self._reply(method, path, body, headers)
        try:
            document: dict[str, Any] = reply.json()
        except ValueError as error:
            raise _not_ours(reply) from error
        return document

    def _reply(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        try:
            reply = self._http.request(method, path, json=body, headers=headers)
        except httpx.TransportError as error:
            raise EndpointUnavailable(
                f"{method} {self.settings.endpoint}{path}: {type(error).__name__}: {error}; is it up? `mlops status`"
            ) from error
        if reply.status_code in _NOT_NOW:
            raise EndpointUnavailable(f"{method} {path}: {_problem(reply).get('detail', 'unavailable')}")
        if reply.is_error:
            raise EndpointRefused(f"{method} {path}", _problem(reply))
        return reply


@cache
def _trusted() -> ssl.SSLContext:
    """Loading the certificates takes 20 ms, so one context serves every client of the process."""
    return ssl.create_default_context()


def _rollout_answer(reply: Mapping[str, Any]) -> dict[str, Any]:
    """The guard's "sealed", "aborted: why" or "not ready: why", taken apart."""
    result, _, why = str(reply["answer"]).partition(":")
    return {"result": result, "why": why.strip() or reply["answer"], "phase": reply["phase"]}


def _not_ours(reply: httpx.Response) -> EndpointUnavailable:
    """What answered well, but not in the endpoint's form: something else listens there, or a proxy stands before."""
    return EndpointUnavailable(f"{reply.url} answers, but not as the endpoint does; does something else listen there?")


def _problem(reply: httpx.Response) -> dict[str, Any]:
    """The problem document of a refusal; a reply that has none (a proxy's page) is described in its place."""
    try:
        document = reply.json()
    except ValueError:
        document = None
    if isinstance(document, dict) and "status" in document:
        return document
    return {"title": reply.reason_phrase, "status": reply.status_code, "detail": reply.text[:200]}
