"""What every step of the flow has at hand."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from triage.config import Config
from triage.edges.engine import Engine
from triage.edges.inbox import Inbox
from triage.edges.inference import Model
from triage.edges.store import Accounts, AuditTrail, Store, Watchbook
from triage.edges.volumes import Shelf
from triage.flow.on_call import OnCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The edges, the configuration and the clock. Built once, by `triage.service`.

    audit: what people and peers did is recorded there: `line.audit.record(Deed(...), line.now())`.
    now: the present moment, aware UTC.
    device_uid: this installation, as reports name it.
    """

    config: Config
    store: Store
    watchbook: Watchbook
    audit: AuditTrail
    accounts: Accounts
    inbox: Inbox
    shelf: Shelf
    model: Model
    on_call: OnCall
    engine: Engine
    now: Callable[[], datetime]
    device_uid: str

    @property
    def threshold(self) -> float:
        """The operating point in use: the configured one, or the bundle's own."""
        spec = self.model.spec
        return spec.thresholds[self.config.model.threshold or spec.default_threshold]
