"""Hand one message to the configured channels (apprise: mail, SMS gateways, chat, webhooks, ...)."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import apprise

from triage.errors import ChannelFailed, ConfigError


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
        """How many channels took the message; one that fails or stalls does not hold up the others.

        Raises ChannelFailed if none did.
        """
        taken = sum(asyncio.run(self._page_all(page)))
        if not taken:
            raise ChannelFailed(f"none of {len(self.channels)} alert channels took the message")
        return taken

    async def _page_all(self, page: Page) -> list[bool]:
        answers = await asyncio.gather(
            *(
                channel.async_notify(title=page.title, body=page.body, notify_type=apprise.NotifyType.FAILURE)
                for channel in self.channels
            ),
            return_exceptions=True,
        )
        # A channel's own failure, whatever it is, must end in another try and not in the end of the alert.
        return [bool(answer) and not isinstance(answer, BaseException) for answer in answers]


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
