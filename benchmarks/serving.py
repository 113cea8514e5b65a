"""The endpoint beside the servers that one would take instead: requests/s, latency, CPU, memory, time to ready.

    python benchmarks/serving.py [--only ours-1,tuned] [--seconds 6] [--rounds 3]

The same classifier, messages and two cores for all, one server at a time, in alternating rounds. Needs wrk. Without
``--only`` it writes ``docs/serving_speed.md`` and its plot; BentoML and LitServe get an environment of their own.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from serving_peers import ours
from serving_peers.contestants import FOLDER, Contestant, NotInstallable, contestants
from serving_peers.load import WrkMissing, find_wrk, load
from serving_peers.models import Message, Models, build, messages
from serving_peers.pace import CORES, Pace
from serving_peers.processes import DidNotStart, Running, start, wait_ready
from serving_peers.report import CONNECTIONS, Round, Row, at_one_pace, table, write

from mlops_assets.declarations import find_specs
from mlops_assets.ports import free_port
from mlops_assets.settings import PROJECT_ROOT, Settings

PAIRS = 5
WARM_UP_SECONDS = 2.0
MODEL = "intent_classifier"

_http = httpx.Client(timeout=10)  # one: to make another for each question would take the time that is measured


def measure(contestant: Contestant, sent: Sequence[Message], seconds: float, pace: Pace, log: Path) -> Round:
    """Start one server, load it, stop it.

    Raises:
        DidNotStart: it never answered.
    """
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    bodies = contestant.bodies(sent)
    server = start(contestant.command(port), contestant.env(port), FOLDER, log)
    try:
        ready = wait_ready(server, lambda: _is_ready(contestant, address, bodies[0]))
        load(address + contestant.route, bodies, 8, WARM_UP_SECONDS)
        loads, cpu, paces = {}, {}, [pace.now()]
        for connections in CONNECTIONS:
            before = server.cpu_seconds()
            loads[connections] = load(address + contestant.route, bodies, connections, seconds)
            cpu[connections] = 1000 * _spent(before, server) / max(loads[connections].requests, 1)
            paces.append(pace.now())
        meanwhile = {n: (paces[i] + paces[i + 1]) / 2 for i, n in enumerate(CONNECTIONS)}
        return Round(ready, loads, cpu, server.pss_mb(), meanwhile)
    finally:
        server.stop()


def compare(
    chosen: Sequence[Contestant], sent: Sequence[Message], rounds: int, seconds: float, pace: Pace, logs: Path
) -> list[Row]:
    """Every contestant's rounds; one that cannot be installed or started says so in its row."""
    done: dict[str, list[Round]] = {contestant.name: [] for contestant in chosen}
    absent = dict(_installed(chosen))
    for number in range(rounds):
        for contestant in chosen if number % 2 == 0 else reversed(chosen):
            if contestant.name in absent:
                continue
            try:
                one = measure(contestant, sent, seconds, pace, logs / f"{contestant.name}-{number}.log")
            except DidNotStart as error:
                absent[contestant.name] = "does not start here"
                print(f"{contestant.name} does not start:\n{error}", file=sys.stderr)
                continue
            done[contestant.name].append(one)
            _tell(number, contestant, one)
    return [Row(c.name, c.title, done[c.name], absent.get(c.name)) for c in chosen]


def _installed(chosen: Sequence[Contestant]) -> list[tuple[str, str]]:
    missing = []
    for contestant in chosen:
        try:
            contestant.install()
        except NotInstallable as error:
            missing.append((contestant.name, f"cannot be installed here: {error}"))
    return missing


def _is_ready(contestant: Contestant, address: str, body: str) -> bool:
    try:
        reply = _http.post(address + contestant.route, content=body, headers={"Content-Type": "application/json"})
    except httpx.HTTPError:
        return False
    return reply.status_code == httpx.codes.OK and contestant.is_ready(address, reply.json())


def _spent(before: dict[int, float], server: Running) -> float:
    return sum(seconds - before.get(process, 0.0) for process, seconds in server.cpu_seconds().items())


def _tell(number: int, contestant: Contestant, one: Round) -> None:
    speeds = " · ".join(f"{one.loads[n].per_second:.0f}/s p99 {one.loads[n].p99:.0f}" for n in CONNECTIONS)
    costs = " · ".join(f"{one.cpu_ms[n]:.2f}" for n in CONNECTIONS)
    paces = " · ".join(f"{one.pace_ms[n]:.2f}" for n in CONNECTIONS)
    start = f"ready {one.ready_seconds:.1f} s"
    print(f"round {number + 1} {contestant.name}: {speeds}; CPU ms {costs}; pace ms {paces}; {start}", flush=True)


def remarks(home: Settings, models: Models, rows: Sequence[Row], packed_over_padded: float) -> list[str]:
    """What has to be said beside the table."""
    paces = [pace for row in rows for one in row.rounds for pace in one.pace_ms.values()]
    bare = CORES * 1000 / statistics.median(paces)
    told = [
        f"The machine's pace: the bare network took {min(paces):.1f} to {max(paces):.1f} ms of processor time a "
        f"sentence, at the median {statistics.median(paces):.1f} ms, to which the figures are brought.",
        f"The bare network ({models.precision}, one thread a core, batches of 8) answers {bare:,.0f} sentences/s "
        f"packed and {bare * packed_over_padded:,.0f} padded on the two cores: what no server can exceed.",
    ]
    if answered := ours.answers(home):
        canary, online = answered.share("arm", "canary"), answered.share("features_source", "online")
        told.append(
            f"Of {answered.total:,} logged answers of ours {canary:.1%} came from the canary and "
            f"{online:.1%} had their features from the store."
        )
    return told


def run(only: Sequence[str], rounds: int, seconds: float) -> None:
    """Build, measure, print, and write the page when everybody took part."""
    (spec,) = [one for one in find_specs(Settings(_env_file=None).models_dir) if one.name == MODEL]
    with tempfile.TemporaryDirectory(prefix="bench-serving-") as folder:
        work = Path(folder)
        sent = messages(spec)
        models = build(spec, work / "models")
        home = ours.make_home(work / "home", spec, models, sent)
        everybody = contestants(models, home)
        chosen = [one for one in everybody if not only or one.name in only]
        if unknown := set(only) - {one.name for one in everybody}:
            raise SystemExit(f"no such server: {', '.join(unknown)}; there are {', '.join(o.name for o in everybody)}")
        texts = [message.text for message in sent]
        packed, padded = Pace(models.stable.folder, texts), Pace(models.padded.folder, texts)
        ratio = statistics.median(packed.now() / padded.now() for _ in range(PAIRS))
        rows = compare(chosen, sent, rounds, seconds, packed, work / "logs")
        told = remarks(home, models, rows, ratio)
        rows = at_one_pace(rows)
    print(table(rows), *told, sep="\n")
    if not only:
        write(PROJECT_ROOT / "docs", rows, told, seconds)


def _leave(*_: object) -> None:
    """By way of every `finally`, so that no server stays behind; a second signal does not cut that short."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit("stopped")


def main() -> None:
    """Read the options and run on two cores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names, separated by commas; the page is then not written")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each of a server's three measurements")
    parser.add_argument("--rounds", type=int, default=3)
    given: Any = parser.parse_args()
    try:
        find_wrk()
    except WrkMissing as error:
        raise SystemExit(str(error)) from error
    signal.signal(signal.SIGTERM, _leave)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    run([name for name in given.only.split(",") if name], given.rounds, given.seconds)


if __name__ == "__main__":
    main()
