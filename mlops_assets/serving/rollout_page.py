"""The rollout as a page: one file of plain HTML that asks the JSON route of the same endpoint and shows what it says.

The page loads nothing from elsewhere, and its policy forbids it to. Whoever has the admin token may enter it
there; it stays in the memory of that page.
"""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path
from urllib.parse import quote

_FILE = Path(__file__).with_name("rollout_page.html")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}


def rollout_page(model: str) -> str:
    """The page of one model.

    >>> "/models/intent_classifier/rollout" in rollout_page("intent_classifier")
    True
    """
    return _template().replace("{{model}}", escape(model)).replace("{{route}}", f"/models/{quote(model)}/rollout")


@cache
def _template() -> str:
    return _FILE.read_text(encoding="utf-8")
