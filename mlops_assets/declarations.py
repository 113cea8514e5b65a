"""Reads what models declare: their ``defs.yaml``, or a policy to be replayed, with every fault at its line.

What a declaration may say is `mlops_assets.spec`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from mlops_assets.spec import ModelSpec

BESIDE_ATTRIBUTES = ("type", "template_vars_module", "requirements", "post_processing")  # as Dagster's components have
REPLAYED = ("drift", "monitors", "retrain", "canary", "gate")
_NOT_REPLAYED = {
    "data": "cannot be replayed: other rows would have been trained on and judged",
    "features": "cannot be replayed: the models would have seen other features",
    "encoder": "cannot be replayed: other models would have been trained",
    "training": "cannot be replayed: other models would have been trained",
}


class SpecError(ValueError):
    """A model's YAML cannot be used; the message names file, line, field and what is allowed."""


def load_spec(path: Path) -> ModelSpec:
    """Read a model's ``defs.yaml``.

    Raises:
        SpecError: with one line per fault, each naming file, line, field and what is allowed.
    """
    node, document = _read(path)
    if not isinstance(document, dict) or not isinstance(document.get("attributes"), dict):
        raise SpecError(f"{path}:1: needs a mapping with `type` and `attributes`")
    strangers = [
        f"{path}:{_line_of(node, (name,))}: {name}: indent it under attributes; "
        f"allowed beside them: {', '.join(BESIDE_ATTRIBUTES)}"
        for name in document
        if name not in ("attributes", *BESIDE_ATTRIBUTES)
    ]
    if strangers:
        raise SpecError("\n".join(strangers))
    return _validated(path, node, document["attributes"], ("attributes",))


def load_policy(path: Path, own: ModelSpec) -> ModelSpec:
    """Read a policy that is to be replayed: `own`, with the sections that the file has in place of its own.

    The file is a model's ``defs.yaml``, or a mapping of sections; in the latter, a field that a section leaves out
    keeps the model's own value.

    Raises:
        SpecError: as `load_spec`; also where the file changes what cannot be replayed.
    """
    node, document = _read(path)
    if isinstance(document, dict) and "attributes" in document:
        spec = load_spec(path)
        refused = [name for name in _NOT_REPLAYED if getattr(spec, name) != getattr(own, name)]
        _refuse(path, node, ("attributes",), refused)
        return own.model_copy(update={name: getattr(spec, name) for name in REPLAYED})
    if not isinstance(document, dict) or not document:
        raise SpecError(f"{path}:1: needs sections of a policy; allowed here: {', '.join(REPLAYED)}")
    _refuse(path, node, (), [name for name in document if name not in REPLAYED])
    whole = own.model_dump()
    for name, section in document.items():
        whole[name] = {**whole[name], **section} if isinstance(section, dict) else section
    return _validated(path, node, whole, ())


def find_specs(models_dir: Path) -> list[ModelSpec]:
    """All declared models, by folder name; the first is the endpoint's default.

    Raises:
        SpecError: a declaration is broken, two share a name, or there is none.
    """
    specs = [load_spec(path) for path in sorted(models_dir.glob("*/defs.yaml"))]
    if not specs:
        raise SpecError(f"{models_dir}: no model is declared; give each a folder with a defs.yaml")
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        raise SpecError(f"{models_dir}: two models share a name: {', '.join(sorted(names))}")
    return specs


def find_spec(models_dir: Path, model: str) -> ModelSpec:
    """The declaration of one model.

    Raises:
        SpecError: it is not declared, or a declaration is broken.
    """
    specs = {spec.name: spec for spec in find_specs(models_dir)}
    if model not in specs:
        raise SpecError(f"no model {model} is declared; there is: {', '.join(specs)}")
    return specs[model]


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would take the last in silence."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        known: list[Any] = []
        for key, _ in node.value:
            if key.value in known:
                problem = f"{key.value} is given twice; a key may be given once"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            known.append(key.value)
        return node


def _value_or_text(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """A scalar's value; its text where there is none (the 13th month), for the field to refuse."""
    try:
        return yaml.SafeLoader.yaml_constructors[node.tag](loader, node)
    except ValueError:
        return node.value


for _tag in ("int", "float", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _value_or_text)


def _read(path: Path) -> tuple[yaml.Node | None, Any]:
    """A YAML file as nodes, which know their lines, and as plain values."""
    try:
        text = path.read_text()
        return yaml.compose(text, _Loader), _Loader(text).get_single_data() or {}
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError(f"{path}:{line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: not valid YAML: {error}") from error


def _validated(path: Path, node: yaml.Node | None, attributes: Any, under: tuple[str, ...]) -> ModelSpec:
    """The spec of a mapping that stands `under` these keys in its file."""
    try:
        return ModelSpec.model_validate(attributes)
    except ValidationError as error:
        faults = [_describe(path, node, under, fault) for fault in error.errors()]
        raise SpecError("\n".join(faults)) from error


def _refuse(path: Path, node: yaml.Node | None, under: tuple[str, ...], names: list[Any]) -> None:
    """Refuse sections that cannot be replayed, each with the reason."""
    faults = [
        f"{path}:{_line_of(node, (*under, name))}: {name}: {_NOT_REPLAYED.get(name, 'no section of a policy')}; "
        f"allowed here: {', '.join(REPLAYED)}"
        for name in names
    ]
    if faults:
        raise SpecError("\n".join(faults))


def _describe(path: Path, root: yaml.Node | None, under: tuple[str, ...], fault: Any) -> str:
    loc = tuple(part for part in fault["loc"] if part != "[key]")  # which marks the key of a mapping, not its value
    field = ".".join(str(part) for part in loc) or "attributes"
    message = fault["msg"]
    if fault["type"] == "extra_forbidden":
        message = f"unknown field; allowed here: {', '.join(_allowed(loc[:-1]))}"
    given = fault.get("input")
    shown = f" (given: {given!r})" if not isinstance(given, dict) else ""
    return f"{path}:{_line_of(root, (*under, *loc))}: {field}: {message}{shown}"


def _allowed(location: tuple[Any, ...]) -> list[str]:
    part: type[BaseModel] = ModelSpec
    for name in location:
        annotation = part.model_fields[str(name)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        part = annotation
    return sorted(part.model_fields)


def _line_of(node: yaml.Node | None, location: tuple[Any, ...]) -> int:
    """Line of the deepest part of `location` that the YAML has."""
    line = 1
    for step in location:
        if isinstance(node, yaml.MappingNode):
            entry = next(((k, v) for k, v in node.value if k.value == str(step)), None)
            if entry is None:
                break
            line, node = entry[0].start_mark.line + 1, entry[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line
