"""The routes as a page to read and try: Swagger UI with its files from this endpoint, where FastAPI names a CDN.

So it also shows where there is no internet, and no script of others runs in a page that people enter tokens in.
"""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

_INLINE = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def add_docs(app: FastAPI) -> None:
    """Add the page and its files; every address in it is relative, so that a proxy may move it."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=app.title,
        swagger_js_url="docs/files/swagger-ui-bundle.js",
        swagger_css_url="docs/files/swagger-ui.css",
        swagger_favicon_url="docs/files/favicon.png",
        swagger_ui_parameters={"validatorUrl": None},  # else it would show the document to swagger.io
    )
    starts = " ".join(f"'sha256-{b64encode(sha256(found).digest()).decode()}'" for found in _INLINE.findall(page.body))
    page.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'self' {starts}; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    app.mount("/docs/files", StaticFiles(directory=str(files("fastapi_offline") / "static")))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return page
