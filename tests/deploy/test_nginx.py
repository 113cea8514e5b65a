"""The proxy that the documentation offers: nginx takes it, and lets in whom it says."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import httpx
import pytest

from mlops_assets.ports import free_port
from mlops_assets.settings import PROJECT_ROOT
from tests.http_server import QuietHandler, listening
from tests.serving.world import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is missing"),
]
CONFIGURATION = PROJECT_ROOT / "deploy" / "nginx" / "mlops-assets.conf"
NGINX = """\
daemon off; user {user} {group}; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/mlops-assets.conf;
}}
"""


class Upstream(QuietHandler):
    """Stands for each of the platform's pages: answers with its own port, the Host and the Authorization it got."""

    def do_GET(self) -> None:
        self.say(f"{self.headers['Host']} {self.headers.get('Authorization', 'none')}".encode())

    do_POST = do_GET


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """nginx with the documented configuration, but for ports and paths; a client that trusts its certificate."""
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    names = "subjectAltName=DNS:dagster.example.org,DNS:mlflow.example.org,DNS:predict.example.org"
    made = ["-keyout", str(folder / "privkey.pem"), "-out", str(folder / "fullchain.pem")]
    subject = ["-subj", "/CN=example.org", "-addext", names, "-days", "1"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made, *subject], check=True, capture_output=True
    )
    (folder / "users").write_text("ada:{PLAIN}open sesame\n")
    with listening(ThreadingHTTPServer(("127.0.0.1", 0), Upstream)) as upstream:
        text = CONFIGURATION.read_text().replace("443", str(port)).replace("/etc/nginx/mlops", str(folder))
        for own in ("3000", "5000", "8000"):
            text = text.replace(f"127.0.0.1:{own}", f"127.0.0.1:{upstream.server_port}")
        (folder / "mlops-assets.conf").write_text(text)
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, user=folder.owner(), group=folder.group()))
        nginx = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)])
        trusted = ssl.create_default_context(cafile=str(folder / "fullchain.pem"))
        try:
            with httpx.Client(verify=trusted, base_url=f"https://127.0.0.1:{port}", trust_env=False) as client:
                wait_until(lambda: is_up(client))
                yield client
        finally:
            nginx.terminate()
            nginx.wait(10)
            upstream.shutdown()


def is_up(client: httpx.Client) -> bool:
    try:
        return ask(client, "predict").is_success
    except httpx.ConnectError:
        return False


def ask(client: httpx.Client, name: str, path: str = "/", method: str = "GET", **options: object) -> httpx.Response:
    host = f"{name}.example.org"
    return client.request(method, path, headers={"Host": host}, extensions={"sni_hostname": host}, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("page", ["dagster", "mlflow"])
def test_pages_are_for_who_logs_in(proxy: httpx.Client, page: str) -> None:
    assert ask(proxy, page).status_code == 401
    assert ask(proxy, page, auth=("ada", "wrong")).status_code == 401
    let_in = ask(proxy, page, auth=("ada", "open sesame"))
    assert let_in.status_code == 200
    assert let_in.text.startswith("127.0.0.1:")  # under the name by which it knows itself
    assert let_in.text.endswith(" none")  # the password goes no further


def test_predictions_go_through_and_what_is_for_operators_does_not(proxy: httpx.Client) -> None:
    assert ask(proxy, "predict", "/models/m/predict", "POST").status_code == 200
    for path in ("/clock", "/metrics", "/models/m/rollout/seal", "/models/m/rollout/abort"):
        assert ask(proxy, "predict", path, "POST").status_code == 404, path


def test_a_caller_that_asks_too_much_is_refused(proxy: httpx.Client) -> None:
    assert 429 in {ask(proxy, "predict").status_code for _ in range(1000)}
