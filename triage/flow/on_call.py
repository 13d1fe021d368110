"""The people of the configuration: who is on call, who keeps the service running, who scans."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import SecretStr

from triage.config import Config
from triage.core.escalation import OnCallLadder
from triage.edges.pager import Contact, open_contact


@dataclass(frozen=True, slots=True, kw_only=True)
class OnCall:
    """Everybody who can be told something. Empty tuples: nobody is.

    rungs: the contacts of each rung of the ladder.
    """

    ladder: OnCallLadder
    rungs: tuple[tuple[Contact, ...], ...] = ()
    operators: tuple[Contact, ...] = ()
    technologists: tuple[Contact, ...] = ()

    @property
    def is_anybody(self) -> bool:
        """Whether an urgent result would reach a person."""
        return bool(self.rungs)


def open_on_call(config: Config) -> OnCall:
    """The people of the configuration, their channels loaded. Raises ConfigError naming the key."""
    alerts = config.alerts
    key = "alerts.urls" if alerts.urls else "alerts.ladder"
    return OnCall(
        ladder=OnCallLadder(tuple(wait_s for _, wait_s in alerts.rungs)),
        rungs=tuple(
            tuple(
                open_contact(contact.name, [url.get_secret_value() for url in contact.urls], key=key)
                for contact in contacts
            )
            for contacts, _ in alerts.rungs
        ),
        operators=_everybody("operator", alerts.operator_urls, "alerts.operator_urls"),
        technologists=_everybody("technologist", alerts.technologist_urls, "alerts.technologist_urls"),
    )


def _everybody(name: str, urls: Sequence[SecretStr], key: str) -> tuple[Contact, ...]:
    if not urls:
        return ()
    return (open_contact(name, [url.get_secret_value() for url in urls], key=key),)
