"""Kill the service again and again while data flow, and check that it kept its promises.

`python -m tests.soak.harness --kills 200 --seed 1` prints a line and ends with 1 where one was broken:

- what was answered 0x0000 is registered, and its bytes are in the inbox;
- every series ends; its report is stored at the PACS under one SOP Instance UID a revision;
- whoever is on call is paged for every urgent study, rung by rung, until somebody answers, and not
  after;
- the same images again make nothing; nothing half-written and no workflow is left over.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import SIGTERM

from sqlalchemy.exc import SQLAlchemyError

from tests.peers import OUT_OF_RESOURCES, SUCCESS, Pacs, Pagers, free_port
from tests.soak.books import Books
from tests.soak.checks import (
    Summary,
    check_alerts,
    check_ends,
    check_identifiers,
    check_instances,
    check_reports,
)
from tests.soak.killed_at import FREE_POINTS, START_POINTS, TROUBLE_POINTS, Point
from tests.soak.kills import Kill, chosen_kills, random_kills
from tests.soak.lives import TOKEN, Launcher, Life, error_page, request
from tests.soak.senders import Habit, Modalities, make_series
from triage.edges.disk import UNFINISHED

RUNG_S = 0.5
RUNGS = ("first", "second", "third")
_A_LIFE_S = 20.0


class Trial:
    """One installation with its modalities, its PACS, and a person on call who is slow to answer."""

    def __init__(
        self, folder: Path, bundle: Path, launcher: Launcher, *, seed: int, database_url: str = ""
    ) -> None:
        self.summary = Summary()
        self._folder, self._launcher, self._rng = folder, launcher, random.Random(seed)
        self._pacs = Pacs(free_port()).open()
        self._pagers = Pagers().open()
        self._modalities = Modalities(self._rng)
        self._data = folder / "data"
        self._books = Books(database_url or f"sqlite:///{self._data}/triage.db")
        self._log = folder / "service.log"
        self._dicom_port, self._http_port = free_port(), free_port()
        ladder = [
            {"contacts": [{"name": name, "urls": [self._pagers.url(name)]}], "wait_s": RUNG_S}
            for name in RUNGS
        ]
        self._environment = {
            "PATH": "/usr/bin:/bin",
            "TRIAGE_STORE__DIR": str(self._data),
            "TRIAGE_STORE__DATABASE_URL": database_url,
            "TRIAGE_STORE__RETENTION_DAYS": "0",
            "TRIAGE_DICOM__PORT": str(self._dicom_port),
            "TRIAGE_DICOM__QUIET_S": "0.7",
            "TRIAGE_DICOM__MAX_ASSOCIATIONS_PER_PEER": "100",
            "TRIAGE_HTTP__PORT": str(self._http_port),
            "TRIAGE_HTTP__API_TOKEN": TOKEN,
            "TRIAGE_PACS__ADDRESS": self._pacs.address,
            "TRIAGE_PACS__RETRY_FIRST_S": "0.2",
            "TRIAGE_PACS__RETRY_LONGEST_S": "1",
            "TRIAGE_ALERTS__LADDER": json.dumps(ladder),
            "TRIAGE_ALERTS__TECHNOLOGIST_URLS": self._pagers.url("technologist"),
            "TRIAGE_WATCH__LOOK_EVERY_S": "1",
            "TRIAGE_MODEL__PATH": str(bundle),
            "TRIAGE_MODEL__INTRA_OP_THREADS": "1",
        }
        self._started_at: list[float] = []
        self._patience: dict[int, int] = {}
        self._answered_at: dict[int, float] = {}
        self._asked: set[int] = set()
        self._error_pages: list[str] = []

    def close(self) -> None:
        """Close what this side opened."""
        self._pacs.close()
        self._pagers.close()

    def run(self, kills: Sequence[Kill]) -> Summary:
        """Live through the kills, let everything come to its end, and check."""
        for kill in kills:
            self._live_until(kill)
        self._settle()
        self._check()
        self._free()
        return self.summary

    def die_and_answer_before_it_goes_on(self, point: Point) -> None:
        """A call is interrupted by a crash; it is acknowledged before the next life takes it up again."""
        self._new_study(Habit.RETRIES, series=1)
        life = self._start(Kill(point))
        self._until(lambda: self._is_up(life, time.monotonic() + 30), "the service to be ready")
        self._modalities.start(self._dicom_port)
        self._until(lambda: life.is_over, "the kill")
        self._modalities.stop()
        self._patience = {row.id: 1 for row in self._books.rows("SELECT id FROM alert")}
        life = self._start()
        self._until(lambda: self._is_up(life, time.monotonic() + 30), "the service to be ready")
        self._until(lambda: bool(self._answered_at), "the answer", look=True)
        paged = len(self._pagers.pages)
        time.sleep(4.0)
        self.summary.promise(len(self._pagers.pages) == paged, "paged after somebody had answered")
        life.end(SIGTERM)

    # One life

    def _live_until(self, kill: Kill) -> None:
        is_troubled = kill.point in TROUBLE_POINTS
        self._pacs.status = self._moody if is_troubled or self._rng.random() < 0.2 else lambda: SUCCESS
        habit = Habit.LOST_ONE if is_troubled else self._habit(kill)
        is_new = False
        if kill.point not in START_POINTS and self._rng.random() < 0.5:
            self._new_study(habit)
            is_new = True
        life = self._start(kill)
        deadline = time.monotonic() + (kill.after_s if kill.point is None else _A_LIFE_S)
        if self._is_up(life, deadline):
            self._modalities.start(self._dicom_port)
            while not life.is_over and time.monotonic() < deadline:
                self._look_after_it()
                if kill.point is not None and self._is_settled():
                    if is_new:
                        break
                    # What earlier lives left over did not come by the point; a study of its own does.
                    self._new_study(habit)
                    is_new = True
                time.sleep(0.02)
        if kill.is_chosen and not life.is_over:
            self.summary.never_reached.append(f"{kill.point} (passage {kill.passage})")
        life.end()
        self._modalities.stop()
        self.summary.kills += 1
        if life.status != -9:
            self.summary.broken.append(f"a life ended by itself with {life.status}; see {self._log}")

    def _habit(self, kill: Kill) -> Habit:
        return Habit.RETRIES if kill.is_chosen else self._rng.choice(list(Habit))

    def _moody(self) -> int:
        return OUT_OF_RESOURCES if self._rng.random() < 0.6 else SUCCESS

    def _new_study(self, habit: Habit, *, series: int = 0) -> None:
        study_uid = None
        for number in range(series or self._rng.choice((1, 1, 1, 1, 1, 2))):
            folder = self._folder / "sent" / f"{len(self._modalities.all):04d}"
            made = make_series(
                folder, habit if not number else Habit.RETRIES, study_uid=study_uid,
                promise=self._rng.random() < 0.7,
            )  # fmt: skip
            study_uid = made.study_uid
            self._modalities.all.append(made)

    def _start(self, kill: Kill | None = None, **settings: str) -> Life:
        self._started_at.append(time.time())
        environment = self._environment | settings
        point, passage = (kill.point, kill.passage) if kill is not None else (None, 1)
        return self._launcher.start(environment, self._log, point, passage)

    def _is_up(self, life: Life, deadline: float) -> bool:
        while not life.is_over and time.monotonic() < deadline:
            if self._request("/readyz") == 200:
                return True
            time.sleep(0.02)
        return False

    def _request(self, path: str, body: dict[str, str] | None = None) -> int:
        return request(f"http://127.0.0.1:{self._http_port}{path}", body)

    def _look_after_it(self, *, answers: bool = True) -> None:
        try:
            ended = {
                row[0]
                for row in self._books.rows(
                    "SELECT series_instance_uid FROM series WHERE state IN ('assessed', 'not_assessed')"
                )
            }
            if answers:
                self._answer_alerts()
        except SQLAlchemyError:
            return
        self._modalities.release_late(ended.__contains__)

    def _answer_alerts(self) -> None:
        """The person on call acknowledges after some pages, and tries again where nobody took it."""
        open_alerts = self._books.rows(
            "SELECT alert.id, alert.pages, max(series_instance_uid) AS uid FROM alert"
            " JOIN result ON result.alert_id = alert.id JOIN series ON series.id = result.series_id"
            " WHERE alert.state = 'sent' GROUP BY alert.id, alert.pages"
        )
        open_ids = {row.id for row in open_alerts}
        for row in open_alerts:
            patience = self._patience.setdefault(row.id, self._rng.choice((1, 1, 2, 4)))
            if row.pages >= patience:
                self._asked.add(row.id)
                if self._request(f"/api/series/{row.uid}/acknowledge", {"by": "Dr Soak"}) == 200:
                    self._answered_at[row.id] = time.time()
        for alert_id in self._asked - open_ids - self._answered_at.keys():
            # The answer got lost with the service; the page says that somebody has acknowledged.
            self._answered_at[alert_id] = time.time()

    def _is_settled(self) -> bool:
        try:
            return (
                self._modalities.is_done
                and self._books.unfinished() == 0
                and self._books.count("SELECT count(*) FROM alert WHERE state <> 'acknowledged'") == 0
                and not self._books.pending_workflows()
            )
        except SQLAlchemyError:
            return False

    # The end

    def _settle(self) -> None:
        """One life in peace: everything ends; the same again makes nothing; an unanswered call goes on."""
        self._pacs.status = lambda: SUCCESS
        life = self._start()
        self._until(lambda: self._is_up(life, time.monotonic() + 30), "the service to be ready")
        left = [path.name for path in self._data.rglob(f"{UNFINISHED}*")]
        self.summary.promise(not left, f"{len(left)} unfinished files are left after a start")
        self._modalities.start(self._dicom_port)
        self._until(self._is_settled, "everything to end", look=True)
        self._send_everything_again()
        self._modalities.stop()
        self._call_until_answered()
        address = f"http://127.0.0.1:{self._http_port}"
        known = self._modalities.all[0].series_uid
        self._error_pages = [
            error_page(f"{address}{path}")
            for path in ("/series/99999", f"/api/series/{known}.9", f"/series/{known}")
        ]
        status = life.end(SIGTERM)
        self.summary.promise(status == 0, f"stopped politely, the service ended with {status}")

    def _until(self, condition: Callable[[], bool], what: str, *, look: bool = False) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            if time.monotonic() > deadline:
                self.summary.broken.append(f"waited in vain for {what}: {self._what_is_open()}")
                return
            if look:
                self._look_after_it()
            time.sleep(0.05)

    def _what_is_open(self) -> str:
        states = self._books.rows("SELECT state, count(*) FROM series GROUP BY state")
        return (
            f"series {[tuple(row) for row in states]}, unfinished {self._books.unfinished()},"
            f" workflows {self._books.pending_workflows()[:9]}, senders done {self._modalities.is_done}"
        )

    def _send_everything_again(self) -> None:
        counts = "SELECT (SELECT count(*) FROM instance), (SELECT count(*) FROM result), count(*) FROM page"
        before = tuple(self._books.rows(counts)[0])
        again = [series for series in self._modalities.all if not series.is_given_up][:20]
        known = [(series, dict(series.acknowledged)) for series in again]
        for series in again:
            series.acknowledged.clear()
        self._until(lambda: self._modalities.is_done, "the same images to be taken again")
        time.sleep(2.0)
        for series, acknowledged in known:
            series.acknowledged = acknowledged | series.acknowledged
        after = tuple(self._books.rows(counts)[0])
        self.summary.promise(before == after, f"the same images again made something: {before} -> {after}")

    def _call_until_answered(self) -> None:
        """A page that nobody answers climbs to the last rung and stays there; an answer ends it."""
        self._modalities.start(self._dicom_port)
        self._new_study(Habit.RETRIES, series=1)
        self._until(lambda: self._open_pages() >= 5, "a fifth page")
        self._until(self._is_settled, "the last call to be answered", look=True)
        paged = len(self._pagers.pages)
        time.sleep(4 * RUNG_S)
        self.summary.promise(len(self._pagers.pages) <= paged + 1, "paged after everybody had acknowledged")
        self._modalities.stop()

    def _open_pages(self) -> int:
        return self._books.count("SELECT coalesce(max(pages), 0) FROM alert WHERE state = 'sent'")

    def _check(self) -> None:
        check_instances(self.summary, self._books, self._data / "inbox", self._modalities.all)
        check_ends(self.summary, self._books, self._modalities.all)
        check_reports(self.summary, self._books, self._pacs.stored)
        check_alerts(
            self.summary, self._books, self._pagers.pages, RUNGS,
            started_at=self._started_at, answered_at=self._answered_at,
        )  # fmt: skip
        told = self._log.read_text() + "".join(self._error_pages)
        check_identifiers(self.summary, told, self._pagers.pages, self._modalities.all)
        self.summary.broken += self._books.damage()

    # Freeing

    def _free(self) -> None:
        """Killed while it deletes the images of finished series, it deletes them all, and nothing else."""
        results = "SELECT count(*) FROM result"
        before = self._books.count(results), self._books.count("SELECT count(*) FROM report")
        settings = {"TRIAGE_STORE__RETENTION_DAYS": "0.00001"}
        held = "SELECT count(*) FROM series WHERE freed_at IS NULL"
        for _ in FREE_POINTS:
            self._new_study(Habit.RETRIES)
        life = self._start()
        self._modalities.start(self._dicom_port)
        self._until(self._is_settled, "the studies to be freed", look=True)
        self._modalities.stop()
        life.end()
        for point in FREE_POINTS:
            life = self._start(Kill(point, point.passage), **settings)
            deadline = time.monotonic() + _A_LIFE_S
            while not life.is_over and time.monotonic() < deadline:
                time.sleep(0.02)
            if not life.is_over:
                self.summary.never_reached.append(str(point))
            life.end()
            self.summary.kills += 1
        life = self._start(None, **settings)
        self._until(lambda: self._books.count(held) == 0, "every series to be freed")
        life.end(SIGTERM)
        rows = self._books.rows("SELECT sha256 FROM instance")
        left = [row for row in rows if (self._data / "inbox" / row[0][:2] / f"{row[0]}.dcm").exists()]
        self.summary.promise(not left, f"{len(left)} images of freed series are still here")
        after = self._books.count(results), self._books.count("SELECT count(*) FROM report")
        self.summary.promise(after >= before, f"freeing took results away: {before} -> {after}")
        self.summary.broken += self._books.damage()


def main() -> int:
    """The soak: as many kills as are asked for, every chosen point among them."""
    from tests.conftest import make_tiny_bundle

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--database-url", default="")
    parsed = parser.parse_args()
    rng = random.Random(parsed.seed)
    kills = chosen_kills()
    kills += random_kills(max(0, parsed.kills - len(kills) - len(FREE_POINTS)), rng)
    print(f"seed={parsed.seed} kills={len(kills) + len(FREE_POINTS)}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    launcher = Launcher()
    trial = Trial(
        folder, make_tiny_bundle(folder / "tiny-0.0.1"), launcher,
        seed=parsed.seed, database_url=parsed.database_url,
    )  # fmt: skip
    started = time.monotonic()
    try:
        summary = trial.run(kills)
    finally:
        trial.close()
        launcher.close()
    print(f"{summary} seed={parsed.seed} minutes={(time.monotonic() - started) / 60:.1f}")
    for line in (*summary.broken, *(f"never reached: {name}" for name in summary.never_reached)):
        print(f"  {line}", file=sys.stderr)
    if summary.broken:
        print(f"  everything is kept in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
