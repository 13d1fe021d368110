"""Messages reach the channels that work."""

import pytest

from tests.conftest import Webhook
from triage.edges.pager import Message, call, open_contact
from triage.errors import ConfigError

MESSAGE = Message(title="Stroke triage", body="Suspected")
DEAD = "json://127.0.0.1:9/dead"


def test_a_contact_is_reached_by_any_channel_that_works(webhook: Webhook) -> None:
    lee = open_contact("Dr Lee", [DEAD, webhook.url], key="alerts.ladder")
    kim = open_contact("Dr Kim", [webhook.url], key="alerts.ladder")
    assert dict(call([lee, kim], MESSAGE)) == {"Dr Lee": True, "Dr Kim": True}
    assert [message["message"] for message in webhook.messages] == ["Suspected", "Suspected"]


def test_a_channel_that_answers_with_an_error_has_not_taken_it(webhook: Webhook) -> None:
    webhook.status = 500
    lee = open_contact("Dr Lee", [webhook.url, DEAD], key="alerts.ladder")
    assert list(call([lee], MESSAGE)) == [("Dr Lee", False)]


def test_an_url_that_nobody_understands_stops_the_start_without_being_shown() -> None:
    with pytest.raises(ConfigError, match=r"alerts.ladder: .* URL 2 of 2 of Dr Lee") as caught:
        open_contact("Dr Lee", ["json://127.0.0.1/x", "carrierpigeon://hunter2@roof"], key="alerts.ladder")
    assert "hunter2" not in str(caught.value)
