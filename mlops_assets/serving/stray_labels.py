"""Labels that reached another ingress replica than the one whose prediction they judge, on their way there.

Replicas hand them to the guard with their counts, and the guard passes them on to all replicas with the
routing table; the one that knows the prediction judges it. Bounded: where there are too many, the oldest go.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from itertools import takewhile

from mlops_assets.serving.routing import Label, Labels

REMEMBERED = 10_000


class StrayLabels:
    """What the guard passes on for one model; safe to call from several threads.

    Each label has a number, and a replica says up to which it has heard, so that an exchange that is lost or
    repeated neither loses nor doubles a label. Numbers begin at the time of day, so that they still rise after a
    restart of the guard.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = time.time_ns()
        self._kept: deque[tuple[int, Label]] = deque(maxlen=REMEMBERED)

    def exchange(self, brought: Iterable[Label], heard: int) -> Labels:
        """Take what a replica brought; return what came after number `heard`, from whichever replica."""
        with self._lock:
            for label in brought:
                self._number += 1
                self._kept.append((self._number, label))
            newest_first = takewhile(lambda kept: kept[0] > heard, reversed(self._kept))
            return Labels(self._number, tuple(label for _, label in newest_first)[::-1])
