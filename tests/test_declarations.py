"""How declarations are read, and what is said about one that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from dagster.components.core.defs_module import ComponentFileModel

from mlops_assets.declarations import BESIDE_ATTRIBUTES, SpecError, find_specs, load_policy, load_spec
from mlops_assets.settings import PROJECT_ROOT
from mlops_assets.spec import ModelSpec

WHOLE = """\
type: mlops_assets.lineage.model.ClosedLoopModel
attributes:
  name: tickets
  data:
    labels: [yes, no]
  gate:
    min_f1: 0.8
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "tickets" / "defs.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_model_that_comes_along_has_the_designs_values() -> None:
    (spec,) = find_specs(PROJECT_ROOT / "mlops_assets" / "models")
    assert spec.name == "intent_classifier"
    assert spec.data.labels == ("greeting", "farewell", "query", "complaint", "order_status", "refund", "other")
    assert (spec.gate.min_f1, spec.gate.max_latency_ms) == (0.92, 50)
    assert (spec.canary.weights, spec.canary.minutes, spec.canary.min_success) == ((0.10,), 30, 0.99)
    assert (spec.canary.max_p99_ms, spec.retrain.schedule) == (100, "0 2 * * 1")


def test_what_is_not_said_has_its_default(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, "type: x\nattributes: {name: tickets}\n"))
    assert spec == ModelSpec(name="tickets")


BROKEN = {
    "an unknown field": (
        WHOLE.replace("min_f1", "min_f2"),
        ":7: gate.min_f2: unknown field; allowed here: ",
    ),
    "a value out of range": (
        WHOLE.replace("0.8", "1.8"),
        ":7: gate.min_f1: Input should be less than or equal to 1 (given: 1.8)",
    ),
    "a value of another type": (WHOLE.replace("0.8", "high"), ":7: gate.min_f1: Input should be a valid number"),
    "an item of a list": (
        WHOLE.replace("[yes, no]", "[a, [b]]"),
        ":5: data.labels.1: Input should be a valid string",
    ),
    "a ladder that falls": (
        WHOLE + "  canary:\n    weights: [0.5, 0.1]\n",
        ":8: canary: Value error, weights must rise from step to step",
    ),
    "a ladder that takes too long": (
        WHOLE + "  canary:\n    weights: [0.1, 0.2, 0.3]\n    max_minutes: 80\n",
        ":8: canary: Value error, max_minutes (80) ends before the steps can (90 minutes)",
    ),
    "labels that repeat": (WHOLE.replace("[yes, no]", "[a, a]"), ":5: data.labels: Value error, labels must be unique"),
    "a label that is empty": (
        WHOLE.replace("[yes, no]", "[a, '']"),
        ":5: data.labels.1: String should have at least 1 character",
    ),
    "a learning rate below zero": (
        WHOLE + "  training:\n    search:\n      learning_rate:\n      - 0.1\n      - -1\n",
        ":12: training.search.learning_rate.1: Input should be greater than 0 (given: -1)",
    ),
    "batches without rows": (
        WHOLE + "  training:\n    search:\n      batch_size: [0]\n",
        ":10: training.search.batch_size.0: Input should be greater than or equal to 1 (given: 0)",
    ),
    "no epochs": (
        WHOLE + "  training:\n    search:\n      epochs: [0]\n",
        ":10: training.search.epochs.0: Input should be greater than or equal to 1 (given: 0)",
    ),
    "a dropout of everything": (
        WHOLE + "  training:\n    search:\n      dropout: [0.1, 2.0]\n",
        ":10: training.search.dropout.1: Input should be less than 1 (given: 2.0)",
    ),
    "nothing to try": (
        WHOLE + "  training:\n    search:\n      epochs: []\n",
        ":10: training.search.epochs: Tuple should have at least 1 item",
    ),
    "a section beside the attributes": (
        WHOLE + "canary:\n  approval: manual\n",
        ":8: canary: indent it under attributes; allowed beside them: type, template_vars_module, ",
    ),
    "a date that no calendar has": (
        WHOLE.replace("  gate:", "    start: 2026-13-01\n  gate:"),
        ":6: data.start: Input should be a valid date or datetime, month value is outside expected range of 1-12",
    ),
    "a number that is none": (
        WHOLE.replace("0.8", "0b_"),
        ":7: gate.min_f1: Input should be a valid number, unable to parse string as a number (given: '0b_')",
    ),
    "a feature that nobody computes": (
        WHOLE + "  features:\n    defaults:\n      shoe_size: 42\n",
        ":10: features.defaults.shoe_size: Value error, no feature of the view customer_profile; there are: orders_90d",
    ),
    "a default that is no number": (
        WHOLE + "  features:\n    defaults:\n      orders_90d: .nan\n",
        ":10: features.defaults.orders_90d: Input should be a finite number (given: nan)",
    ),
    "a default without bounds": (
        WHOLE + "  features: {defaults: {orders_90d: -.inf}}\n",
        ":8: features.defaults.orders_90d: Input should be a finite number (given: -inf)",
    ),
    "a time without end": (
        WHOLE + "  canary:\n    max_minutes: .inf\n",
        ":9: canary.max_minutes: Input should be a finite number (given: inf)",
    ),
    "days that no calendar reaches": (
        WHOLE + "  retrain:\n    max_age_days: 1000000\n",
        ":9: retrain.max_age_days: Input should be less than or equal to 36525 (given: 1000000)",
    ),
    "a seed that nothing can be drawn with": (
        WHOLE + "  training:\n    seed: -1\n",
        ":9: training.seed: Input should be greater than or equal to 0 (given: -1)",
    ),
    "a digest that is none": (
        WHOLE + "  encoder:\n    weights_sha256: abc\n",
        ":9: encoder.weights_sha256: String should match pattern '^[0-9a-f]{64}$' (given: 'abc')",
    ),
    "a schedule that is none": (
        WHOLE + "  retrain:\n    schedule: weekly\n",
        ":9: retrain.schedule: Value error, no cron schedule (Exactly 5, 6 or 7 columns",
    ),
    "a schedule with seconds": (
        WHOLE + "  retrain:\n    schedule: 0 2 * * 1 30\n",
        ":9: retrain.schedule: Value error, a cron schedule has five fields: minute hour day month weekday",
    ),
    "a schedule with a 25th hour": (
        WHOLE + "  retrain:\n    schedule: 0 25 * * 1\n",
        ":9: retrain.schedule: Value error, no cron schedule ([0 25 * * 1] is not acceptable, out of range)",
    ),
    "a schedule for the 30th of February": (
        WHOLE + "  retrain:\n    schedule: 0 2 30 2 *\n",
        ":9: retrain.schedule: Value error, no cron schedule (failed to find next date",
    ),
    "an owner without an address": (
        WHOLE + "  owners: ['team:support', bob]\n",
        ":8: owners.1: Value error, an owner is an e-mail address or team:name (given: 'bob')",
    ),
    "a section that is given twice": (
        WHOLE + "  gate:\n    min_f1: 0.5\n",
        ":8: not valid YAML: gate is given twice; a key may be given once",
    ),
    "a field that is given twice": (WHOLE + "    min_f1: 0.5\n", ":8: not valid YAML: min_f1 is given twice"),
    "a name that is none": (WHOLE.replace("tickets", "My Tickets"), ":3: name: String should match pattern"),
    "a name that is missing": (WHOLE.replace("  name: tickets\n", ""), ":2: name: Field required"),
    "no attributes": ("type: x\n", ":1: needs a mapping with `type` and `attributes`"),
    "an empty file": ("", ":1: needs a mapping with `type` and `attributes`"),
    "no YAML": ("type: x\nattributes: {name: [\n", ":3: not valid YAML: "),
    "a tab": ("type: x\nattributes:\n\tname: a\n", ":3: not valid YAML: "),
    "a control character": ("type: x\nattributes: {name: '\x07'}\n", ": not valid YAML: "),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_is_named_by_file_line_field_and_what_is_allowed(tmp_path: Path, fault: str) -> None:
    text, said = BROKEN[fault]
    path = write(tmp_path, text.replace("[yes, no]", "['yes', 'no']"))
    with pytest.raises(SpecError) as error:
        load_spec(path)
    assert str(path) in str(error.value)
    assert said in str(error.value)


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    path.write_bytes("name: ärger".encode("latin-1"))
    with pytest.raises(SpecError, match=f"{path}: not valid YAML: 'utf-8'"):
        load_spec(path)


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    text = WHOLE.replace("min_f1", "min_f2").replace("[yes, no]", "[a, a]")
    with pytest.raises(SpecError) as error:
        load_spec(write(tmp_path, text))
    assert len(str(error.value).splitlines()) == 2


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read: No such file"):
        load_spec(tmp_path / "defs.yaml")


def test_two_models_may_not_share_a_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, WHOLE.replace("[yes, no]", "[a, b]")).parent.rename(tmp_path / f"model_{name}")
    with pytest.raises(SpecError, match="two models share a name: tickets, tickets"):
        find_specs(tmp_path)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=f"{tmp_path}: no model is declared; give each a folder with a defs.yaml"):
        find_specs(tmp_path)


def test_what_dagster_lets_stand_beside_the_attributes_is_let(tmp_path: Path) -> None:
    text = "requirements: {env: [HOME]}\n" + WHOLE.replace("[yes, no]", "[a, b]")
    assert load_spec(write(tmp_path, text)).name == "tickets"
    assert set(ComponentFileModel.model_fields) == {"attributes", *BESIDE_ATTRIBUTES}


def test_a_section_may_be_written_once_and_used_twice(tmp_path: Path) -> None:
    text = (
        WHOLE.replace("[yes, no]", "[a, b]") + "  drift: &limits {alpha: 0.02}\n  canary: {<<: *limits, minutes: 5}\n"
    )
    spec = load_spec(write(tmp_path, text))
    assert (spec.canary.alpha, spec.canary.minutes) == (0.02, 5)


OWN = ModelSpec(name="tickets", gate={"min_f1": 0.8, "min_test_rows": 100})


def test_a_policy_replaces_what_it_names_and_keeps_the_models_own_rest(tmp_path: Path) -> None:
    policy = load_policy(write(tmp_path, "gate: {min_f1: 0.9}\nretrain:\n  cooldown_days: 5\n"), OWN)
    assert (policy.gate.min_f1, policy.gate.min_test_rows) == (0.9, 100)
    assert (policy.retrain.cooldown_days, policy.drift) == (5.0, OWN.drift)


def test_a_whole_spec_is_a_policy_too(tmp_path: Path) -> None:
    own = load_spec(write(tmp_path, WHOLE.replace("[yes, no]", "[a, b]")))
    policy = load_policy(write(tmp_path, WHOLE.replace("[yes, no]", "[a, b]").replace("0.8", "0.7")), own)
    assert policy == own.model_copy(update={"gate": own.gate.model_copy(update={"min_f1": 0.7})})


NO_POLICY = {
    "an unknown field": ("drift:\n  alhpa: 1\n", ":2: drift.alhpa: unknown field; allowed here: alpha, "),
    "a value out of range": ("gate:\n\n  min_f1: 2\n", ":3: gate.min_f1: Input should be less than or equal to 1"),
    "a section that is no mapping": ("gate: 3\n", ":1: gate: Input should be a valid dictionary"),
    "rules that contradict the model's own": (
        "drift: {}\nretrain:\n  drifted: 9\n",
        ":2: retrain: Value error, drifted",
    ),
    "a section that changes the models": ("training: {seed: 1}\n", ":1: training: cannot be replayed: other models"),
    "a section beside a whole spec's": (WHOLE + "canary: {minutes: 5}\n", ":8: canary: indent it under attributes"),
    "a whole spec that changes the rows": (WHOLE, ":4: data: cannot be replayed: other rows"),
    "an unknown section": ("gates: {}\n", ":1: gates: no section of a policy; allowed here: drift, monitors, "),
    "a section that is given twice": ("gate: {}\ngate: {}\n", ":2: not valid YAML: gate is given twice"),
    "nothing": ("", ":1: needs sections of a policy; allowed here: drift, monitors, retrain, canary, gate"),
    "a list": ("- gate\n", ":1: needs sections of a policy"),
    "no YAML": ("gate: [\n", ":2: not valid YAML: "),
}


@pytest.mark.parametrize("fault", NO_POLICY)
def test_a_fault_of_a_policy_is_named_in_the_same_way(tmp_path: Path, fault: str) -> None:
    text, said = NO_POLICY[fault]
    path = write(tmp_path, text.replace("[yes, no]", "['yes', 'no']"))
    with pytest.raises(SpecError) as error:
        load_policy(path, OWN)
    assert f"{path}{said}" in str(error.value)
