"""A replay as a table for people, and as a document for machines: the same days, each side beside the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mlops_assets.console import plain
from mlops_assets.replay.events import Event, Kind, Replay, totals

_SHOWN_REASON = 160
_MARK = "≠ "


def as_document(replayed: Replay) -> dict[str, Any]:
    """Everything, in plain types that `storage.to_json` writes the same way each time."""
    happened, would = _sides(replayed)
    return {
        "model": replayed.model,
        "from": replayed.first,
        "to": replayed.last,
        "changes": {field: {"own": own, "policy": policy} for field, (own, policy) in replayed.changes.items()},
        "days": [
            {
                "day": day.day,
                "happened": [asdict(event) for event in day.happened],
                "replayed": [asdict(event) for event in day.replayed],
                "differences": len(day.differences),
            }
            for day in replayed.days
        ],
        "totals": {"happened": totals(happened), "replayed": totals(would)},
        "cannot_be_replayed": replayed.cannot,
        "assumptions": replayed.assumptions,
        "unread": replayed.unread,
    }


def as_table(replayed: Replay) -> RenderableType:
    """Day by day what happened and what the policy would have done, differences marked; then the totals."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("day", no_wrap=True)
    table.add_column("what happened", overflow="fold", ratio=1)
    table.add_column("what the policy would have done", overflow="fold", ratio=1)
    for day in replayed.days:
        if day.happened or day.replayed:
            differing = day.differences
            table.add_row(f"{day.day}", _told(day.happened, differing), _told(day.replayed, differing))
    return Group(*_changes(replayed), table, Text(), _totals(replayed), *_notes(replayed))


def _sides(replayed: Replay) -> tuple[list[Sequence[Event]], list[Sequence[Event]]]:
    return [day.happened for day in replayed.days], [day.replayed for day in replayed.days]


def _told(events: Sequence[Event], differing: Sequence[Event]) -> Text:
    """One line an event; the reason where it differs or cannot be replayed."""
    text = Text()
    for number, event in enumerate(events):
        differs = any(event is other for other in differing)
        line = f"{event.kind}: {event.what}"
        if event.why and (differs or event.kind in (Kind.RETRAIN, Kind.ROLLOUT)):
            line += f" ({_short(event.why)})"
        style = "yellow" if not event.is_known else "bold red" if differs else "dim"
        text.append(("\n" if number else "") + (_MARK if differs else "")).append_text(plain(line, style))
    return text


def _changes(replayed: Replay) -> Iterator[Text]:
    if not replayed.changes:
        yield Text("the policy is the model's own", "dim")
    for field, (own, policy) in replayed.changes.items():
        yield plain(f"{field}: {own} -> {policy}")


def _totals(replayed: Replay) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("totals")
    table.add_column("happened", justify="right")
    table.add_column("would have", justify="right")
    happened, would = (asdict(totals(side)) for side in _sides(replayed))
    for name, number in happened.items():
        shown = "days not replayed in whole" if name == "unknown" else name
        table.add_row(shown, str(number), str(would[name]), style="" if number == would[name] else "bold red")
    return table


def _notes(replayed: Replay) -> Iterator[Text]:
    for title, lines in (
        ("cannot be replayed", replayed.cannot),
        ("assumed", replayed.assumptions),
        ("not read", replayed.unread),
    ):
        for line in lines:
            yield plain(f"{title}: {line}", "dim")


def _short(reason: str) -> str:
    return reason if len(reason) <= _SHOWN_REASON else f"{reason[:_SHOWN_REASON]}…"
