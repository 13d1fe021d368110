"""Messages reach the channels that work."""

import pytest

from tests.conftest import Webhook
from triage.edges.pager import Page, open_pager
from triage.errors import ChannelFailed, ConfigError

PAGE = Page(title="Stroke triage", body="Suspected")


def test_every_working_channel_gets_the_message(webhook: Webhook) -> None:
    assert open_pager([webhook.url, "json://127.0.0.1:9/dead", webhook.url]).page(PAGE) == 2
    assert [message["message"] for message in webhook.messages] == ["Suspected", "Suspected"]


def test_a_channel_that_answers_with_an_error_has_not_taken_it(webhook: Webhook) -> None:
    webhook.status = 500
    with pytest.raises(ChannelFailed, match="none of 1 alert channels"):
        open_pager([webhook.url]).page(PAGE)


def test_an_url_that_nobody_understands_stops_the_start_without_being_shown() -> None:
    with pytest.raises(ConfigError, match="URL 2 of 2") as caught:
        open_pager(["json://127.0.0.1/x", "carrierpigeon://hunter2@roof"])
    assert "hunter2" not in str(caught.value)
