"""ClosedLoopModel: the Dagster Component that turns one model's YAML into its graph.

It only joins the stages; each stage's file says what its assets are.
"""

from __future__ import annotations

import dagster as dg
from pydantic import BaseModel

from mlops_assets.lineage import automation, datasets, drift, features, gate, monitoring, release, training
from mlops_assets.lineage.loop import Loop
from mlops_assets.settings import Settings
from mlops_assets.spec import ModelSpec

STAGES = (datasets, features, training, gate, release, monitoring, drift, automation)


class ClosedLoopModel(dg.Component):
    """A model in production as a closed loop: data, features, training, gate, canary, monitoring, retraining."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return ModelSpec

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> ClosedLoopModel:  # noqa: ARG003
        if not isinstance(attributes, ModelSpec):
            raise TypeError(f"ClosedLoopModel needs `attributes`, got {attributes!r}")
        return cls(attributes)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002
        return build_defs(self.spec, Settings())


def build_defs(spec: ModelSpec, settings: Settings) -> dg.Definitions:
    """The whole graph of one model: assets, checks, jobs, sensors and schedules."""
    loop = Loop(spec, settings)
    return dg.Definitions.merge(*(stage.build(loop) for stage in STAGES))
