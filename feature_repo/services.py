"""One feature service per model version, declared in ``services.json`` so that every re-apply keeps it.

The file is written by `mlops_assets.resources.feast.FeatureStoreDoor.register_service`, never by hand:
Per name, such as ``intent_classifier_v3``, it holds the model, its version, the view and the features.
"""

import json
from typing import Any

import views
from feast import FeatureService
from state import SERVICES


def _service(name: str, declared: dict[str, Any]) -> FeatureService:
    view = getattr(views, declared["view"])
    return FeatureService(
        name=name,
        features=[view[declared["features"]]] if declared["features"] else [],
        description=f"Features of {declared['model']} version {declared['version']}.",
        tags={"model": declared["model"], "version": str(declared["version"])},
    )


_declared = json.loads(SERVICES.read_bytes()) if SERVICES.exists() else {}
globals().update({name: _service(name, entry) for name, entry in _declared.items()})  # Feast collects module names
