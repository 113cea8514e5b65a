"""Alert rules and dashboard: they fire when they should, and name only metrics that the endpoint has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlops_assets.serving.exposition import NAMES
from mlops_assets.settings import PROJECT_ROOT

RULES = PROJECT_ROOT / "deploy" / "prometheus" / "rules.yaml"
DASHBOARD = PROJECT_ROOT / "deploy" / "grafana" / "mlops-assets.json"
UNIT_TESTS = Path(__file__).with_name("rules.test.yaml")
METRIC = re.compile(r"\bmlops[_:][a-z0-9_:]+")

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (package prometheus) is missing")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    """Every query of the dashboard: its panels' and its variables'."""
    document = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in document["panels"] for target in panel["targets"]]
    return asked + [variable["definition"] for variable in document["templating"]["list"] if "definition" in variable]


@pytest.mark.slow
@needs_promtool
def test_every_alert_fires_when_it_should_and_not_before() -> None:
    done = subprocess.run(["promtool", "test", "rules", str(UNIT_TESTS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_configuration_is_prometheus_own() -> None:
    path = RULES.with_name("prometheus.yaml")
    done = subprocess.run(["promtool", "check", "config", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_seen_to_fire_in_a_test() -> None:
    cases = yaml.safe_load(UNIT_TESTS.read_text())["tests"]
    fired = {case["alertname"] for test in cases for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules() if "alert" in rule}


def test_rules_name_only_metrics_that_exist() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    named = {name for rule in rules() for name in METRIC.findall(rule["expr"])}
    assert named - recorded <= NAMES
    assert {rule["labels"]["severity"] for rule in rules() if "alert" in rule} == {"page", "ticket"}


def test_the_dashboard_names_only_metrics_that_exist_and_leaves_none_out() -> None:
    named = {name for query in queries() for name in METRIC.findall(query)}
    assert named == NAMES


def test_the_dashboard_takes_its_data_source_from_a_variable() -> None:
    document = json.loads(DASHBOARD.read_text())
    assert {panel["datasource"]["uid"] for panel in document["panels"]} == {"${datasource}"}
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])
