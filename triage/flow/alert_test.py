"""Would everybody be reached? One marked message to each."""

from collections.abc import Iterator

from triage.config import Config
from triage.edges.pager import Message, call
from triage.errors import ConfigError
from triage.flow.on_call import open_on_call

_TEST = Message(
    title="TEST - Stroke triage: this is a test, no patient is concerned",
    body="TEST. Nobody has to do anything. An urgent study would be announced on this channel.",
)


def call_everybody(config: Config) -> Iterator[tuple[str, str, bool]]:
    """(where in the configuration, name, whether a channel took the message) of everybody there is.

    Raises ConfigError where nobody is configured, or a URL is not understood.
    """
    on_call = open_on_call(config)
    groups = [(f"rung {number}", contacts) for number, contacts in enumerate(on_call.rungs, 1)]
    groups += [
        ("alerts.operator_urls", on_call.operators),
        ("alerts.technologist_urls", on_call.technologists),
    ]
    if not any(contacts for _, contacts in groups):
        raise ConfigError("alerts.ladder: nobody is on call. Set it, or alerts.urls.")
    for where, contacts in groups:
        for name, taken in call(contacts, _TEST):
            yield where, name, taken
