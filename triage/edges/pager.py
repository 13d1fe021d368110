"""Hand one message to the configured channels (apprise: mail, SMS gateways, chat, webhooks, ...)."""

import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import apprise

from triage.errors import ChannelFailed, ConfigError, origin

_log = logging.getLogger(__name__)

_PATIENCE_S = 20.0
_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class Page:
    """A message for a person on call. It carries no name, no identifier, no UID."""

    title: str
    body: str


@dataclass(frozen=True, slots=True)
class Pager:
    """The channels. Open them with `open_pager`."""

    channels: Sequence[apprise.Apprise]

    def page(self, page: Page) -> int:
        """How many channels took the message, within two seconds of the first that did.

        Each has a thread of its own, so that one that fails or stalls holds up no other; it is not
        waited for. Raises ChannelFailed if none took it within 20 seconds.
        """
        answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
        for channel in self.channels:
            threading.Thread(target=_hand_over, args=(channel, page, answers), daemon=True).start()
        taken, deadline = 0, time.monotonic() + _PATIENCE_S
        for _ in self.channels:
            try:
                took = answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if took and not taken:
                deadline = min(deadline, time.monotonic() + _GRACE_S)
            taken += took
        if not taken:
            raise ChannelFailed(f"none of {len(self.channels)} alert channels took the message")
        return taken


def _hand_over(channel: apprise.Apprise, page: Page, answers: "queue.SimpleQueue[bool]") -> None:
    took = False
    try:
        took = bool(channel.notify(title=page.title, body=page.body, notify_type=apprise.NotifyType.FAILURE))
    except Exception as error:  # noqa: BLE001 - whatever a channel does, the message is tried again
        _log.error("channel_failed reason=%s", origin(error))
    answers.put(took)


def open_pager(urls: Sequence[str]) -> Pager:
    """The channels behind apprise URLs, loaded now so that the first alert need not wait for it.

    Raises ConfigError for a URL that apprise does not understand, without showing it: it holds secrets.
    """
    channels = []
    for number, url in enumerate(urls, 1):
        channel = apprise.Apprise()
        if not channel.add(url):
            raise ConfigError(
                f"alerts.urls: apprise does not understand URL {number} of {len(urls)}."
                " Compare it with the service's page in apprise's documentation."
            )
        channels.append(channel)
    return Pager(channels)
