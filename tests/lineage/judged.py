"""A model with history, and candidates that answer by keyword: small, honest, and judged by the real job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import onnx
import polars as pl
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from mlops_assets.data.snapshots import Snapshot, latest_snapshot, write_snapshot
from mlops_assets.data.split import SplitRule, first_rule, split
from mlops_assets.data.tables import write_table
from mlops_assets.lineage.loop import Loop
from mlops_assets.lineage.measures import features_path
from mlops_assets.spec import DEFAULT_LABELS, DataSpec, FeatureSpec
from mlops_assets.storage import digest_file, write_json
from mlops_assets.training.artefact import MANIFEST, NETWORK, TOKENIZER, Manifest
from tests.lineage.world import definitions

START = datetime(2026, 3, 1, tzinfo=UTC)
FEATURES = FeatureSpec().defaults


def messages(rows: int, seed: int = 0) -> pl.DataFrame:
    """Labelled messages, one every twenty minutes, each of which says its label and a number of its own."""
    rng = np.random.default_rng(seed)
    label = rng.choice(DEFAULT_LABELS, rows)
    events = [START + timedelta(minutes=20 * row) for row in range(rows)]
    return pl.DataFrame(
        {
            "message_id": [f"m{row}" for row in range(rows)],
            "customer_id": [f"c{number}" for number in rng.integers(0, rows // 4, rows)],
            "text": [f"{name} n{row} k{7 * row}" for row, name in enumerate(label)],
            "label": label,
            "event_timestamp": events,
            "label_timestamp": [event + timedelta(hours=1) for event in events],
        }
    )


def snapshot(loop: Loop, rows: int) -> Snapshot:
    """The snapshot of the first `rows` messages, split by the rule of the first one, its features joined."""
    frame = messages(4_000).head(rows)
    earlier = latest_snapshot(loop.home.snapshots)
    rule = SplitRule.from_dict(earlier.manifest["split"]) if earlier else first_rule(frame, DataSpec())
    until = frame["event_timestamp"][-1]
    about = {"as_of": until + timedelta(days=1), "until": until, "split": rule.to_dict()}
    made = write_snapshot(loop.home.snapshots, split(frame, rule), about)
    rng = np.random.default_rng(1)
    features = frame.select("message_id", features_known_at="event_timestamp").with_columns(
        pl.Series(name, rng.gamma(2.0, 5.0, rows)) for name in FEATURES
    )
    write_table(features_path(loop.home, made.digest), features)
    return made


def write_model(folder: Path, mistakes: Mapping[str, str] | None = None) -> Path:
    """Export a model that answers the label that a message names; `mistakes` are labels it takes for others."""
    folder.mkdir(parents=True)
    vocabulary = {"[UNK]": 0, **{label: number + 1 for number, label in enumerate(DEFAULT_LABELS)}}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / TOKENIZER))
    onnx.save(_network(mistakes or {}), folder / NETWORK)
    digests = {name: digest_file(folder / name) for name in (NETWORK, TOKENIZER)}
    manifest = Manifest(labels=DEFAULT_LABELS, feature_defaults=FEATURES, max_tokens=16, digests=digests)
    write_json(folder / MANIFEST, manifest.to_document())
    return folder


def judge(
    loop: Loop,
    instance: dg.DagsterInstance,
    folder: Path,
    waiver: str = "",
    *,
    since: datetime | None = None,
    trained: bool = False,
) -> dg.ExecuteInProcessResult:
    """Send an exported model through the gate and, if it passes or is waived, into the registry.

    `since` is when the traffic became what it is; `trained`: it comes from the loop's own trials.
    """
    made = latest_snapshot(loop.home.snapshots)
    assert made is not None
    told = {
        "snapshot_digest": made.digest,
        "until": made.manifest["until"],
        "traffic_since": since.isoformat() if since else "",
    }
    instance.report_runless_asset_event(dg.AssetMaterialization(loop.key("training_set"), metadata=told))
    trials = {"artefact": str(folder)}
    instance.report_runless_asset_event(dg.AssetMaterialization(loop.key("trials"), metadata=trials))
    config = submission("" if trained else str(folder), waiver)
    job = definitions(loop).resolve_job_def(loop.name("submit"))
    return job.execute_in_process(instance=instance, run_config=config, raise_on_error=False)


def submission(artefact: str, waiver: str) -> dict[str, Any]:
    """The configuration of a run of the job that judges; with no `artefact` it takes what the trials made."""
    waived = {"waiver_reason": waiver, "waived_by": "ops" if waiver else ""}
    return {"ops": {"m__candidate": {"config": {"artefact": artefact}}, "m__evaluation": {"config": waived}}}


def in_attempts(
    loop: Loop, instance: dg.DagsterInstance, config: dict[str, Any], *attempts: Sequence[str]
) -> Iterator[dg.ExecuteJobResult]:
    """One run of that job, of which each attempt makes some of the assets before it is cut short."""
    here = dg.Definitions.merge(definitions(loop), dg.Definitions(executor=dg.in_process_executor))
    root = None
    for assets in attempts:
        part = {loop.key(asset) for asset in assets}
        job = here.resolve_job_def(loop.name("submit")).get_subset(asset_selection=part)
        run = instance.create_run_for_job(
            job,
            run_config={"ops": {name: said for name, said in config["ops"].items() if name.split("__")[1] in assets}},
            asset_selection=part,
            parent_run_id=root,
            root_run_id=root,
        )
        root = root or run.run_id
        yield execute_run(InMemoryJob(job), run, instance)


def _network(mistakes: Mapping[str, str]) -> onnx.ModelProto:
    """The sum over a message's tokens of a row of logits each; the features enter with weight zero."""
    table = np.zeros((len(DEFAULT_LABELS) + 1, len(DEFAULT_LABELS)), np.float32)
    for number, label in enumerate(DEFAULT_LABELS):
        table[number + 1, DEFAULT_LABELS.index(mistakes.get(label, label))] = 6.0
    constants = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(np.array([0.0], np.float32), "zero"),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["words", "axis"], ["said"], keepdims=0),
        helper.make_node("ReduceSum", ["features", "axis"], ["customer"], keepdims=1),
        helper.make_node("ReduceSum", ["mask", "axis"], ["length"], keepdims=1),
        helper.make_node("Add", ["customer", "length"], ["both"]),
        helper.make_node("Mul", ["both", "zero"], ["nothing"]),
        helper.make_node("Add", ["said", "nothing"], ["logits"]),
        helper.make_node("Identity", ["said"], ["embedding"]),
    ]
    width = len(DEFAULT_LABELS)
    graph = helper.make_graph(
        nodes,
        "keywords",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "t"]),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["n", "t"]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", len(FEATURES)]),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", width]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", width]),
        ],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
