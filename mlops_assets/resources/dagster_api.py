"""The door to Dagster's API: what ran, what it found, asking for a run, and reporting what happened outside.

For people and programs outside the graph (the `mlops` command, the demo); assets never use it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from mlops_assets.settings import Settings

LOCATION = {"repositoryLocationName": "mlops_assets", "repositoryName": "__repository__"}

_ENTRY = """
fragment Entry on MetadataEntry { __typename label
  ... on TextMetadataEntry { text } ... on IntMetadataEntry { intRepr } ... on FloatMetadataEntry { floatValue }
  ... on BoolMetadataEntry { boolValue } ... on JsonMetadataEntry { jsonString } ... on UrlMetadataEntry { url }
  ... on PathMetadataEntry { path } ... on TimestampMetadataEntry { timestamp } }
"""

_LATEST = (
    """
query($keys: [AssetKeyInput!]!, $limit: Int!) { assetNodes(assetKeys: $keys) {
  assetMaterializations(limit: $limit) { runId timestamp partition metadataEntries { ...Entry } } } }
"""
    + _ENTRY
)

_CHECKS = (
    """
query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  assetChecksOrError { ... on AssetChecks { checks { name
    executionForLatestMaterialization { runId status timestamp
      evaluation { success severity description metadataEntries { ...Entry } } } } } } } } }
"""
    + _ENTRY
)

_RUNS = """
query($tags: [ExecutionTag!], $limit: Int!) { runsOrError(filter: {tags: $tags}, limit: $limit) {
  ... on Runs { results { runId status jobName startTime endTime tags { key value } } } } }
"""

_LAUNCH = """
mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } }
  ... on PipelineNotFoundError { message } ... on InvalidSubsetError { message } } }
"""

_DAEMONS = "{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }"


class DagsterUnavailable(RuntimeError):
    """Dagster's webserver does not answer, or refused a request; the message says which."""


@dataclass(frozen=True)
class Materialization:
    """One materialization of an asset, with its metadata as plain values."""

    run_id: str
    at: datetime
    partition: str | None
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """One run: its id, its status as Dagster names it, and its tags."""

    run_id: str
    status: str
    job: str
    tags: Mapping[str, str]

    @property
    def finished(self) -> bool:
        return self.status in ("SUCCESS", "FAILURE", "CANCELED")


class DagsterApi:
    """A client of the webserver that the settings name."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.dagster_url
        self._http = httpx.Client(base_url=settings.dagster_url, timeout=30.0)

    def materializations(self, model: str, asset: str, limit: int = 1) -> list[Materialization]:
        """The latest materializations of an asset, newest first."""
        nodes = self._ask(_LATEST, keys=[{"path": [model, asset]}], limit=limit)["assetNodes"]
        events = nodes[0]["assetMaterializations"] if nodes else []
        return [
            Materialization(
                run_id=event["runId"],
                at=datetime.fromtimestamp(float(event["timestamp"]) / 1000, UTC),
                partition=event["partition"],
                metadata=_plain(event["metadataEntries"]),
            )
            for event in events
        ]

    def checks(self, model: str, asset: str) -> dict[str, dict[str, Any]]:
        """The asset's checks by name, as evaluated for its latest materialization."""
        node = self._ask(_CHECKS, key={"path": [model, asset]})["assetNodeOrError"]
        found = {}
        for check in node.get("assetChecksOrError", {}).get("checks", []):
            execution = check["executionForLatestMaterialization"]
            if execution and execution["evaluation"]:
                evaluation = execution["evaluation"]
                found[check["name"]] = {**evaluation, "metadata": _plain(evaluation["metadataEntries"])}
        return found

    def runs(self, tags: Mapping[str, str] | None = None, limit: int = 50) -> list[Run]:
        """Runs that carry all of `tags`, newest first."""
        wanted = [{"key": key, "value": value} for key, value in (tags or {}).items()]
        results = self._ask(_RUNS, tags=wanted or None, limit=limit)["runsOrError"]["results"]
        return [
            Run(run["runId"], run["status"], run["jobName"], {tag["key"]: tag["value"] for tag in run["tags"]})
            for run in results
        ]

    def launch(self, job: str, *, config: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Start a job; returns its run id.

        Raises:
            DagsterUnavailable: it was refused, with Dagster's reason.
        """
        params = {
            "selector": {**LOCATION, "jobName": job},
            "runConfigData": dict(config),
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        answer = self._ask(_LAUNCH, params=params)["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            reasons: Sequence[str] = [e["message"] for e in answer.get("errors", [])] or [answer.get("message", "")]
            raise DagsterUnavailable(f"Dagster refused to launch {job}: {'; '.join(reasons)}")
        return str(answer["run"]["runId"])

    def report(self, model: str, asset: str, *, description: str, metadata: Mapping[str, Any]) -> None:
        """Report a materialization of an external asset.

        Raises:
            DagsterUnavailable: the webserver does not answer or refuses.
        """
        body = {"description": description, "metadata": dict(metadata)}
        self._post(f"/report_asset_materialization/{model}/{asset}", body)

    def unhealthy_daemons(self) -> list[str]:
        """The required daemons that are not running."""
        statuses = self._ask(_DAEMONS)["instance"]["daemonHealth"]["allDaemonStatuses"]
        return [status["daemonType"] for status in statuses if status["required"] and not status["healthy"]]

    def asset_url(self, model: str, asset: str) -> str:
        return f"{self._url}/assets/{model}/{asset}"

    def _ask(self, query: str, **variables: Any) -> Any:
        body = self._post("/graphql", {"query": query, "variables": variables})
        if body.get("errors"):
            raise DagsterUnavailable(f"Dagster at {self._url} answered: {body['errors'][0]['message']}")
        return body["data"]

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        try:
            response = self._http.post(path, json=body)
            response.raise_for_status()
        except httpx.HTTPError as error:
            raise DagsterUnavailable(f"Dagster at {self._url} does not answer: {error}") from error
        return response.json()


def _plain(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """GraphQL's typed metadata entries as plain values."""
    plain: dict[str, Any] = {}
    for entry in entries:
        values = [v for key, v in entry.items() if key not in ("__typename", "label")]
        value = values[0] if values else None
        if entry["__typename"] == "IntMetadataEntry" and value is not None:
            value = int(value)
        if entry["__typename"] == "JsonMetadataEntry" and value is not None:
            value = json.loads(value)
        plain[entry["label"]] = value
    return plain
