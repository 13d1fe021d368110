"""Is the series whole? At once when its geometry says so, otherwise when the sender has fallen silent.

Every series that receives an instance has a durable workflow that waits for silence; that alone is enough
for it never to be forgotten. Beside it one thread asks, after each instance, whether the volume is closed,
and need not wait then. Both start the same assessment under the same ID, so it happens once.
"""

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Iterable
from datetime import timedelta

from triage.core.b_values import with_stated_b_value
from triage.core.completeness import judge_completeness
from triage.core.diffusion import InstanceHeader, header_from_json
from triage.edges.engine import sleep, step
from triage.flow.line import Line

_log = logging.getLogger(__name__)

_SERIES_IN_MEMORY = 256


def assessment_id(series_id: int, after_instance_id: int) -> str:
    """The workflow ID of the assessment of all instances after a given one."""
    return f"analyse-{series_id}-{after_instance_id}"


def wait_id(series_id: int, after_instance_id: int) -> str:
    """The workflow ID of the wait for silence after a given instance."""
    return f"wait-{series_id}-{after_instance_id}"


def as_the_operator_states(
    line: Line, series_id: int, headers: Iterable[InstanceHeader]
) -> list[InstanceHeader]:
    """The headers, with the b-value of `dicom.b_value_rules` where they have none."""
    dicom = line.config.dicom
    if not dicom.b_value_rules:
        return list(headers)
    series = line.store.series(series_id)
    return with_stated_b_value(headers, dicom.b_value_for(series.calling_ae, series.description))


async def wait_for_silence(line: Line, series_id: int, after_instance_id: int) -> None:
    """Workflow: assess the series once no instance has come for `dicom.quiet_s`."""
    while (remaining_s := await step(_remaining_s, line, series_id)) > 0:
        await sleep(remaining_s)
    await line.engine.start_child(
        "analyse",
        assessment_id(series_id, after_instance_id),
        series_id,
        after_instance_id,
        f"no instance for {line.config.dicom.quiet_s:g} s",
    )


def _remaining_s(line: Line, series_id: int) -> float:
    silent_since = line.store.series(series_id).last_instance_at
    quiet = timedelta(seconds=line.config.dicom.quiet_s)
    # Never longer than the quiet time itself: the clock may have been set back.
    return min(silent_since + quiet - line.now(), quiet).total_seconds()


class Gatherer:
    """Follows the series that are being received: `start` and `stop` its thread, `notice` each instance."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._waiting: OrderedDict[tuple[int, int], None] = OrderedDict()
        self._lock = threading.Lock()
        self._to_judge: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
        self._headers: OrderedDict[int, tuple[int, list[InstanceHeader]]] = OrderedDict()
        self._thread = threading.Thread(target=self._judge_all, name="gatherer", daemon=True)

    def start(self) -> None:
        """Ask about every noticed series from now on."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is asking."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop asking; the durable workflows carry on."""
        self._to_judge.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def notice(self, series_id: int, after_instance_id: int) -> None:
        """An instance came. When this returns, a durable workflow waits for the rest of the series."""
        episode = (series_id, after_instance_id)
        with self._lock:
            known = episode in self._waiting
        if not known:
            self._line.engine.start(
                "wait_for_silence", wait_id(series_id, after_instance_id), series_id, after_instance_id
            )
            with self._lock:
                self._waiting[episode] = None
                if len(self._waiting) > _SERIES_IN_MEMORY:
                    self._waiting.popitem(last=False)
        self._to_judge.put(episode)

    def _judge_all(self) -> None:
        while (episode := self._to_judge.get()) is not None:
            # Whatever came for the same series in the meantime is judged in one go.
            pending = {episode: None}
            while not self._to_judge.empty():
                following = self._to_judge.get()
                if following is None:
                    return
                pending[following] = None
            for series_id, after_instance_id in pending:
                try:
                    self._judge(series_id, after_instance_id)
                except Exception as error:  # noqa: BLE001 - the timer is the fallback; the next series is not to blame
                    _log.error("completeness_not_judged series=%d reason=%s", series_id, type(error).__name__)

    def _judge(self, series_id: int, after_instance_id: int) -> None:
        headers = as_the_operator_states(self._line, series_id, self._headers_of(series_id))
        completeness = judge_completeness(headers, b_window=self._line.config.dicom.b_window)
        if completeness.is_whole:
            self._line.engine.start(
                "analyse",
                assessment_id(series_id, after_instance_id),
                series_id,
                after_instance_id,
                completeness.detail,
            )

    def _headers_of(self, series_id: int) -> list[InstanceHeader]:
        newest, headers = self._headers.pop(series_id, (0, []))
        for instance_id, header in self._line.store.headers_after(series_id, newest):
            headers.append(header_from_json(header))
            newest = instance_id
        self._headers[series_id] = newest, headers
        if len(self._headers) > _SERIES_IN_MEMORY:
            self._headers.popitem(last=False)
        return headers
