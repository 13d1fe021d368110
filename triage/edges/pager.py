"""Hand one message to the channels of some people (apprise: mail, SMS gateways, chat, webhooks, ...)."""

import logging
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apprise

from triage.errors import ConfigError, origin

_log = logging.getLogger(__name__)

_PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Message:
    """What a person on call is told. It carries no patient's name, no identifier, no UID."""

    title: str
    body: str


@dataclass(frozen=True, slots=True)
class Contact:
    """Somebody who can be reached. Open one with `open_contact`."""

    name: str
    channels: Sequence[apprise.Apprise]


def open_contact(name: str, urls: Sequence[str], *, key: str) -> Contact:
    """A contact with the channels behind apprise URLs, loaded now so that the first page need not wait.

    key: of the configuration, for the error.
    Raises ConfigError for a URL that apprise does not understand, without showing it: it holds secrets.
    """
    channels = []
    for number, url in enumerate(urls, 1):
        channel = apprise.Apprise()
        if not channel.add(url):
            raise ConfigError(
                f"{key}: apprise does not understand URL {number} of {len(urls)} of {name}."
                " Compare it with the service's page in apprise's documentation."
            )
        channels.append(channel)
    return Contact(name, tuple(channels))


def call(contacts: Sequence[Contact], message: Message) -> Iterator[tuple[str, bool]]:
    """Name of each contact and whether a channel of theirs took the message, as the answers come in.

    Each channel has a thread of its own, so that one that fails or stalls holds up no other. A contact is
    reached with the first channel that took the message, and not reached when all have failed or 20
    seconds have passed.
    """
    answers: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()
    waiting = {contact.name: len(contact.channels) for contact in contacts}
    for contact in contacts:
        for channel in contact.channels:
            arguments = (contact.name, channel, message, answers)
            threading.Thread(target=_hand_over, args=arguments, daemon=True).start()
    deadline = time.monotonic() + _PATIENCE_S
    while waiting:
        try:
            name, taken = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if name in waiting:
            waiting[name] -= 1
            if taken or not waiting[name]:
                del waiting[name]
                yield name, taken
    for name in waiting:
        yield name, False


def _hand_over(
    name: str, channel: apprise.Apprise, message: Message, answers: "queue.SimpleQueue[tuple[str, bool]]"
) -> None:
    taken = False
    try:
        taken = bool(
            channel.notify(title=message.title, body=message.body, notify_type=apprise.NotifyType.FAILURE)
        )
    except Exception as error:  # noqa: BLE001 - whatever a channel does, the message is tried again
        _log.error("channel_failed reason=%s", origin(error))
    if not taken:
        _log.warning("channel_refused_message service=%s", _kind(channel))
    answers.put((name, taken))


def _kind(channel: apprise.Apprise) -> str:
    return ",".join(type(service).__name__ for service in channel)
