"""The command says what it did, or why it could not."""

import json
from pathlib import Path

import pytest

from tests import builders
from tests.conftest import Webhook
from tests.edges.test_store import T0, arrival, conclude
from triage.cli import main
from triage.edges.dimse import ReceivedObject, Status, start_scp
from triage.edges.store import Store


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("TRIAGE_")]:
        monkeypatch.delenv(name)


def test_check_config_explains_what_is_in_force(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text("[dicom]\nport = 104\n")
    assert main(["check-config", "--config", str(tmp_path / "t.toml")]) == 0
    assert "dicom.port = 104" in capsys.readouterr().out


def test_check_config_names_the_nearest_real_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text("[dicom]\nprot = 104\n")
    assert main(["check-config", "--config", str(tmp_path / "t.toml")]) == 1
    assert "Did you mean dicom.port?" in capsys.readouterr().err


def test_serve_with_a_missing_file_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["serve", "--config", str(tmp_path / "none.toml")]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_phantom_then_send(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    received: list[str] = []

    def store(instance: ReceivedObject) -> Status:
        received.append(instance.sop_instance_uid)
        return Status.SUCCESS

    assert main(["phantom", str(tmp_path / "study"), "--aspects", "9"]) == 0
    (tmp_path / "study" / "notes.txt").write_text("not DICOM")
    scp = start_scp(ae_title="TRIAGE", host="127.0.0.1", port=0, store=store)
    try:
        assert main(["send", str(tmp_path / "study"), f"TRIAGE@127.0.0.1:{scp.port}"]) == 0
    finally:
        scp.stop()
    assert f"{len(received)} sent, 0 refused, 1 not DICOM" in capsys.readouterr().out
    assert len(received) > 20


def test_send_tells_what_was_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    builders.write(builders.dwi_series(slices=2, b_values=(0,)), tmp_path / "study")
    scp = start_scp(
        ae_title="TRIAGE",
        host="127.0.0.1",
        port=0,
        store=lambda _: Status.OUT_OF_RESOURCES,
    )
    try:
        assert main(["send", str(tmp_path / "study"), f"TRIAGE@127.0.0.1:{scp.port}"]) == 1
    finally:
        scp.stop()
    output = capsys.readouterr()
    assert "0 sent, 2 refused" in output.out
    assert "0xA700" in output.err


def test_send_to_nobody_says_who_did_not_answer(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    builders.write(builders.dwi_series(slices=1, b_values=(0,)), tmp_path / "study")
    assert main(["send", str(tmp_path / "study"), "TRIAGE@127.0.0.1:9"]) == 1
    assert "TRIAGE@127.0.0.1:9 could not be reached" in capsys.readouterr().err


def test_an_address_that_is_none_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["send", ".", "localhost:104"])
    assert "expected AET@host:port" in capsys.readouterr().err


def test_the_example_that_is_printed_is_a_configuration(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["check-config", "--example"]) == 0
    (tmp_path / "t.toml").write_text(capsys.readouterr().out)
    assert main(["check-config", "--config", str(tmp_path / "t.toml")]) == 0
    assert main(["check-config", "--table"]) == 0
    assert "| `dicom.port` | `TRIAGE_DICOM__PORT` | `11112` |" in capsys.readouterr().out


def test_the_alert_test_reaches_every_rung_and_says_who_was_missed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, webhook: Webhook
) -> None:
    dead = "json://127.0.0.1:9/dead"
    rungs = [{"contacts": [{"name": n, "urls": [url]}]} for n, url in (("Dr A", webhook.url), ("Dr B", dead))]
    monkeypatch.setenv("TRIAGE_ALERTS__LADDER", json.dumps(rungs))
    monkeypatch.setenv("TRIAGE_ALERTS__OPERATOR_URLS", webhook.url)
    assert main(["alert-test"]) == 1
    said = capsys.readouterr().out
    assert "rung 1: Dr A: taken" in said
    assert "rung 2: Dr B: NOT TAKEN" in said
    assert "alerts.operator_urls: operator: taken" in said
    assert [message["title"][:4] for message in webhook.messages] == ["TEST", "TEST"]


def test_what_the_command_line_does_is_in_the_audit_trail(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, webhook: Webhook, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRIAGE_STORE__DIR", str(tmp_path))
    monkeypatch.setenv("TRIAGE_ALERTS__URLS", webhook.url)
    assert main(["account", "add", "Dr Ada", "--role", "reader"]) == 1
    assert "Start the service once" in capsys.readouterr().err
    Store.open(f"sqlite:///{tmp_path}/triage.db").close()
    assert main(["account", "add", "Dr Ada", "--role", "reader"]) == 0
    assert main(["token", "add", "bridge", "--role", "viewer"]) == 0
    assert main(["alert-test"]) == 0
    capsys.readouterr()
    assert main(["audit"]) == 0
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(entry["action"], entry["detail"]) for entry in entries[:3]] == [
        ("account_added", "Dr Ada as reader"),
        ("token_added", "bridge as viewer"),
        ("alert_tested", "0 not reached"),
    ]


def test_the_alert_test_without_anybody_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["alert-test"]) == 1
    assert "nobody is on call" in capsys.readouterr().err


def test_reports_that_were_given_up_are_listed_and_queued(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRIAGE_STORE__DIR", str(tmp_path))
    assert main(["resend"]) == 1
    assert "there is no database" in capsys.readouterr().err

    report_id = a_report_given_up(f"sqlite:///{tmp_path}/triage.db")
    assert main(["resend"]) == 0
    assert f"report {report_id} of series 1: refused" in capsys.readouterr().out
    assert main(["resend", "--all"]) == 1
    assert "no PACS is set up" in capsys.readouterr().err
    monkeypatch.setenv("TRIAGE_PACS__ADDRESS", "PACS@127.0.0.1:104")
    assert main(["resend", "--all"]) == 0
    assert f"report {report_id}: queued" in capsys.readouterr().out
    assert main(["resend", str(report_id)]) == 1
    assert "were not given up" in capsys.readouterr().err


def a_report_given_up(url: str) -> int:
    store = Store.open(url)
    series_id = store.register(arrival(1), T0).series_id
    report_id = conclude(store, store.begin_assessment(series_id, 0, T0, "whole"), 1).report_id
    assert report_id is not None
    store.report_not_stored(report_id, T0, "refused", final=True)
    store.close()
    return report_id
