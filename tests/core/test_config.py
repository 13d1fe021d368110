import tomllib
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from triage.config import (
    Config,
    DicomSettings,
    PeerAddress,
    check_ae_title,
    explain,
    keys,
    load,
    masked_url,
    parse_peer_address,
    variable_name,
)
from triage.config.reference import example, markdown
from triage.config.settings import AlertsSettings, PacsSettings, StoreSettings
from triage.errors import ConfigError

ROOT = Path(__file__).parents[2]
PRINTABLE = st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\")
EVERY_KEY = [f"{section}.{key}" for section, key, _ in keys()]


@pytest.fixture
def toml(tmp_path):
    def write(text):
        path = tmp_path / "triage.toml"
        path.write_text(text, "utf-8")
        return path

    return write


def complaints(path, environ):
    with pytest.raises(ConfigError) as caught:
        load(path, environ)
    return str(caught.value).splitlines()


def test_nothing_configured_gives_the_defaults():
    config = load(None, {"PATH": "/bin", "HOME": "/root"})
    assert config == Config()
    assert config.dicom == DicomSettings(
        ae_title="TRIAGE", host="127.0.0.1", port=11112, max_associations=100, quiet_s=5.0
    )
    assert config.store.database_url.get_secret_value() == "sqlite:///triage-data/triage.db"
    assert config.http.public_url == "http://127.0.0.1:8080"
    assert (config.pacs.address, config.alerts.urls, config.model.path) == (None, (), None)


def test_config_is_frozen():
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.dicom = DicomSettings()
    with pytest.raises(ValidationError, match="frozen"):
        config.dicom.port = 1


def test_environment_goes_over_the_file_key_by_key(toml):
    path = toml('[dicom]\nport = 104\nae_title = "FILE"\n')
    config = load(path, {"TRIAGE_DICOM__PORT": "0"})
    assert (config.dicom.port, config.dicom.ae_title) == (0, "FILE")


def test_file_saved_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "triage.toml"
    path.write_text("[http]\nport = 1\n", "utf-8-sig")
    assert load(path, {}).http.port == 1


def test_database_follows_the_folder_and_links_follow_the_address():
    environ = {"TRIAGE_STORE__DIR": "/data", "TRIAGE_HTTP__HOST": "::1", "TRIAGE_HTTP__PORT": "81"}
    config = load(None, environ)
    assert config.store.database_url.get_secret_value() == "sqlite:////data/triage.db"
    assert config.http.public_url == "http://[::1]:81"


def test_stated_database_and_public_address_are_taken_as_they_are():
    environ = {
        "TRIAGE_STORE__DATABASE_URL": "postgresql+psycopg://u:p@db/triage",
        "TRIAGE_HTTP__PUBLIC_URL": "https://stroke.example/triage/",
    }
    config = load(None, environ)
    assert config.store.database_url.get_secret_value() == "postgresql+psycopg://u:p@db/triage"
    assert config.http.public_url == "https://stroke.example/triage"


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("PACS@10.0.0.5:104", PeerAddress("PACS", "10.0.0.5", 104)),
        ("PACS@pacs.example:11112", PeerAddress("PACS", "pacs.example", 11112)),
        ("MY PACS@[::1]:104", PeerAddress("MY PACS", "::1", 104)),
        ("A@B@host:104", PeerAddress("A@B", "host", 104)),
    ],
)
def test_peer_address_is_read_and_written_back(text, peer):
    assert parse_peer_address(text) == peer
    assert str(peer) == text
    assert load(None, {"TRIAGE_PACS__ADDRESS": text}).pacs.address == peer
    assert PacsSettings(address=peer).address is peer


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("PACS", "expected AET@host:port"),
        ("PACS@host", "expected AET@host:port"),
        ("PACS@::1:104", "expected AET@host:port"),
        ("PACS@host:port", "expected AET@host:port"),
        ("PACS@host:0", "expected a port from 1 to 65535, got 0"),
        ("PACS@host:65536", "expected a port from 1 to 65535, got 65536"),
        ("PACS@ho st:104", "expected a host name or an IP address, got 'ho st'"),
        ("@host:104", "expected AET@host:port"),
    ],
)
def test_peer_address_that_cannot_be_reached_is_refused(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_peer_address(text)


@given(st.text(PRINTABLE, min_size=1, max_size=16))
@hypothesis.example("!")
@hypothesis.example("A B")
def test_ae_title_of_the_default_repertoire_is_taken_unless_padded(text):
    if text == text.strip():
        assert check_ae_title(text) == text
    else:
        with pytest.raises(ValueError, match="no space at either end"):
            check_ae_title(text)


@pytest.mark.parametrize("text", ["", " ", "A\\B", "A" * 17, "ÄRZTE", "A\n", "A\tB"])
def test_ae_title_outside_the_standard_is_refused(text):
    with pytest.raises(ValueError, match="1 to 16 ASCII characters"):
        check_ae_title(text)


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("", []),
        ("ntfy://a", ["ntfy://a"]),
        ("ntfy://a,json://b/c", ["ntfy://a", "json://b/c"]),
        (" ntfy://a,\n json://b , ", ["ntfy://a", "json://b"]),
        ("mailto://u:p@x.example?to=a@x.example,b@x.example, ntfy://c",
         ["mailto://u:p@x.example?to=a@x.example,b@x.example", "ntfy://c"]),
        ('["ntfy://a", "json://b"]', ["ntfy://a", "json://b"]),
    ],
)  # fmt: skip
def test_alert_urls_are_a_json_list_or_separated_by_commas(text, urls):
    config = load(None, {"TRIAGE_ALERTS__URLS": text})
    assert [url.get_secret_value() for url in config.alerts.urls] == urls


@pytest.mark.parametrize("text", ["nosecretscheme", '["ntfy://a"', '["hunter2"]', '[{"a": "hunter2"}]'])
def test_wrong_alert_url_is_reported_without_its_secret(text):
    (line,) = complaints(None, {"TRIAGE_ALERTS__URLS": text})
    assert line.startswith("alerts.urls: expected ")
    assert line.endswith("Change it in TRIAGE_ALERTS__URLS.")
    assert "secret" not in line
    assert "hunter2" not in line


def test_secrets_are_shown_nowhere():
    environ = {
        "TRIAGE_ALERTS__URLS": "ntfy://hunter2@host",
        "TRIAGE_STORE__DATABASE_URL": "postgresql://triage:hunter2@db/triage?sslpassword=hunter2",
    }
    config = load(None, environ)
    assert "hunter2" not in f"{config!r} {config} {explain(config)} {config.model_dump()}"
    assert "hunter2" not in config.model_dump_json()
    assert "alerts.urls = 1 set, hidden" in explain(config)
    assert "store.database_url = postgresql://triage:***@db/triage?***" in explain(config)


def test_failure_that_carries_a_secret_does_not_print_it_even_in_its_cause():
    with pytest.raises(ConfigError) as caught:
        load(None, {"TRIAGE_STORE__DATABASE_URL": "mysql://u:hunter2@db", "TRIAGE_ALERTS__URLS": "hunter2"})
    cause: BaseException | None = caught.value
    while cause is not None:
        assert "hunter2" not in str(cause)
        cause = cause.__cause__


@pytest.mark.parametrize(
    "text",
    [
        '[alerts]\nurls = ["mailto://me:hunter2@example.org"]',
        '[store]\ndatabase_url = "postgresql://u:hunter2@db/t"',
        '[store]\ndatabase_url = "postgresql://db/t?user=u&password=hunter2"',
    ],
)
def test_secret_in_the_file_is_refused_and_sent_to_the_environment(toml, text):
    (line,) = complaints(toml(text), {})
    assert "Set TRIAGE_" in line
    assert "hunter2" not in line


def test_alert_url_without_a_password_may_stand_in_the_file(toml):
    config = load(toml('[alerts]\nurls = ["json://10.0.0.5/stroke"]'), {})
    assert [url.get_secret_value() for url in config.alerts.urls] == ["json://10.0.0.5/stroke"]


def test_database_url_without_a_password_may_stand_in_the_file(toml):
    config = load(toml('[store]\ndatabase_url = "postgresql://triage@db/t"'), {})
    assert config.store.database_url.get_secret_value() == "postgresql://triage@db/t"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///a/triage.db", "sqlite:///a/triage.db"),
        ("postgresql://u@db/t", "postgresql://u@db/t"),
        ("postgresql://u:p@ss?w@rd@db/t", "postgresql://u:***@db/t"),
    ],
)
def test_masked_url_hides_the_password_whatever_is_in_it(url, shown):
    assert masked_url(url) == shown


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[dicom]\nprot = 1", "dicom.prot: unknown key in {path}. Did you mean dicom.port?"),
        ("[store]\ndirectory = 'x'", "store.directory: unknown key in {path}. Did you mean store.dir?"),
        ("[dicm]\nport = 1", "dicm: unknown section in {path}. Did you mean [dicom]?"),
        ("pacs_address = 'x'", "pacs_address: unknown key in {path}. Did you mean pacs.address?"),
        ("http = 8080", "http: expected a section in {path}. Write [http] and its keys below it."),
        (
            "[dicom]\nport = 70000",
            "dicom.port = 70000: expected to be less than or equal to 65535. Change it in {path}.",
        ),
        ("[dicom]\nport = true", "dicom.port = True: expected a number. Change it in {path}."),
        (
            "[dicom]\nquiet_s = nan",
            "dicom.quiet_s = nan: expected to be a finite number. Change it in {path}.",
        ),
        ("[dicom]\nquiet_s = 0", "dicom.quiet_s = 0: expected to be greater than 0. Change it in {path}."),
        (
            "[model]\ndevice = 'gpu'",
            "model.device = 'gpu': expected to be 'auto', 'cpu' or 'cuda'. Change it in {path}.",
        ),
        ("[store]\ndir = ''", "store.dir = '': expected a folder. Change it in {path}."),
        ("[pacs]\naddress = 104", "pacs.address = 104: expected AET@host:port. Change it in {path}."),
        (
            "[http]\npublic_url = 'stroke.example'",
            "http.public_url = 'stroke.example': expected a URL that starts with http:// or https://."
            " Change it in {path}.",
        ),
        (
            "[store]\ndatabase_url = 'mysql://db/t'",
            "store.database_url: expected a URL that starts with sqlite:// or postgresql://."
            " Change it in {path}.",
        ),
    ],
)
def test_wrong_file_is_told_by_key_value_expectation_and_next_step(toml, text, complaint):
    path = toml(text)
    assert complaints(path, {}) == [complaint.format(path=path)]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("TRIAGE_DICOM_PORT", "TRIAGE_DICOM__PORT"),
        ("TRIAGE_PACS__ADRESS", "TRIAGE_PACS__ADDRESS"),
        ("TRIAGE_DICOM__port", "TRIAGE_DICOM__PORT"),
    ],
)
def test_unknown_variable_names_the_nearest_real_one(name, nearest):
    assert complaints(None, {name: "1"}) == [f"{name}: unknown variable. Did you mean {nearest}?"]


def test_retry_pause_that_starts_above_its_limit_is_refused():
    (line,) = complaints(None, {"TRIAGE_PACS__RETRY_FIRST_S": "100"})
    assert line == (
        "pacs.retry_longest_s = 60.0: expected at least retry_first_s, which is 100."
        " Change it in TRIAGE_PACS__RETRY_LONGEST_S."
    )


def test_every_problem_is_told_at_once_one_a_line(toml):
    path = toml(
        "http = 1\n[dicom]\nprot = 1\nport = -1\n[alerts]\nurls = ['mailto://a:b@c']\n[store]\ndir = ''\n"
    )
    environ = {"TRIAGE_HTTP__PORT": "80", "TRIAGE_PACS__RETRY_FIRST_S": "soon", "TRIAGE_NOISE": "1"}
    names = [line.split(" = ")[0].split(":")[0] for line in complaints(path, environ)]
    assert sorted(names) == [
        "TRIAGE_NOISE", "alerts.urls", "dicom.port", "dicom.prot", "http", "pacs.retry_first_s", "store.dir",
    ]  # fmt: skip


def test_wrong_value_from_the_environment_names_the_variable():
    assert complaints(None, {"TRIAGE_HTTP__PORT": "http"}) == [
        "http.port = 'http': expected to be a valid integer, unable to parse string as an integer."
        " Change it in TRIAGE_HTTP__PORT."
    ]


def test_public_address_is_not_derived_from_a_wrong_port():
    assert [line.split(" ")[0] for line in complaints(None, {"TRIAGE_HTTP__PORT": "-1"})] == ["http.port"]


def test_syntax_error_gives_its_line(toml):
    (line,) = complaints(toml("[dicom]\nport = \n"), {})
    assert "not TOML" in line
    assert "line 2" in line


def test_file_that_is_not_utf8_gives_its_line(tmp_path):
    path = tmp_path / "triage.toml"
    path.write_bytes(b"[dicom]\n# f\xfcr\n")
    assert complaints(path, {}) == [f"{path}: line 2 is not UTF-8. Save the file as UTF-8."]


def test_missing_file_is_named(tmp_path):
    path = tmp_path / "absent.toml"
    (line,) = complaints(path, {})
    assert line.startswith(f"{path}: cannot be read (No such file")


def test_values_built_in_code_are_checked_like_those_of_a_file():
    with pytest.raises(ValidationError, match="apprise URLs"):
        AlertsSettings(urls=(SecretStr("nowhere"),))
    with pytest.raises(ValidationError, match="sqlite://"):
        StoreSettings(database_url=SecretStr("mysql://x"))


def test_a_ladder_is_read_from_the_file_and_from_the_environment(toml):
    path = toml(
        '[[alerts.ladder]]\ncontacts = [{name = "A", urls = ["json://a/"]}, {name = "B", urls = ["json://b/"]}]\n'
        '[[alerts.ladder]]\nwait_s = 60\ncontacts = [{name = "C", urls = ["json://c/"]}]\n'
    )
    rungs = load(path, {}).alerts.rungs
    assert [([contact.name for contact in contacts], wait_s) for contacts, wait_s in rungs] == [
        (["A", "B"], 180.0),
        (["C"], 60.0),
    ]
    text = '[{"contacts": [{"name": "D", "urls": ["json://d/"]}]}, {"contacts": [{"name": "D", "urls": ["json://d/"]}]}]'
    rungs = load(path, {"TRIAGE_ALERTS__LADDER": text}).alerts.rungs
    assert [wait_s for _, wait_s in rungs] == [180.0, 300.0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Dr Lee", "alerts.ladder: expected JSON: "),
        ('[{"contacts": []}]', "alerts.ladder: "),
        ('[{"contacts": [{"name": "A", "urls": ["hunter2"]}]}]', "alerts.ladder: expected apprise URLs"),
        (
            '[{"contacts": [{"name": "A", "urls": ["json://a"]}, {"name": "A", "urls": ["json://b"]}]}]',
            "alerts.ladder: expected contacts of one rung to have different names",
        ),
    ],
)
def test_a_wrong_ladder_is_told_without_its_secrets(text, complaint):
    lines = complaints(None, {"TRIAGE_ALERTS__LADDER": text})
    assert lines[0].startswith(complaint)
    assert "hunter2" not in "".join(lines)


def test_a_ladder_and_its_short_form_exclude_each_other():
    environ = {
        "TRIAGE_ALERTS__URLS": "json://a/",
        "TRIAGE_ALERTS__LADDER": '[{"contacts": [{"name": "A", "urls": ["json://a/"]}]}]',
    }
    assert complaints(None, environ) == ["alerts: expected urls or ladder, not both."]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.4.20", "triage.hospital.example"])
def test_beyond_this_machine_it_must_be_said_who_may_send(host):
    (line,) = complaints(None, {"TRIAGE_DICOM__HOST": host})
    assert line.startswith("dicom: expected allowed_ae_titles to say who may send")
    environ = {
        "TRIAGE_DICOM__HOST": host,
        "TRIAGE_DICOM__ALLOWED_AE_TITLES": "MR1, MR2",
        "TRIAGE_DICOM__ALLOWED_ADDRESSES": "10.1.0.0/16,2001:db8::5",
    }
    dicom = load(None, environ).dicom
    assert (dicom.allowed_ae_titles, dicom.allowed_addresses) == (
        ("MR1", "MR2"),
        ("10.1.0.0/16", "2001:db8::5/128"),
    )


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("DICOM__ALLOWED_ADDRESSES", "10.1.0.1/16", "expected addresses such as 10.0.0.5"),
        ("DICOM__ALLOWED_AE_TITLES", "A" * 17, "expected an AE title"),
        ("DICOM__TLS_KEY", "/key.pem", "expected tls_certificate and tls_key together"),
        ("DICOM__TLS_CLIENT_CA", "/ca.pem", "expected tls_certificate and tls_key beside tls_client_ca"),
        ("HTTP__TLS_CERTIFICATE", "/cert.pem", "expected tls_certificate and tls_key together"),
        ("HTTP__API_TOKEN", "too-short", "expected at least 16 characters"),
        ("AUDIT__SYSLOG_ADDRESS", "arr.example", "expected host:port"),
    ],
)
def test_a_wrong_word_on_who_is_let_in_stops_the_start(name, value, complaint):
    (line,) = complaints(None, {f"TRIAGE_{name}": value})
    assert complaint in line
    assert "too-short" not in line


def test_a_token_has_no_place_in_the_file(toml):
    (line,) = complaints(toml('[http]\napi_token = "0123456789abcdef-hunter2"'), {})
    assert line.startswith("http.api_token: holds a password")
    assert "hunter2" not in line


def test_explanation_names_every_key_its_variable_value_and_default():
    text = explain(load(None, {"TRIAGE_PACS__ADDRESS": "PACS@host:104", "TRIAGE_MODEL__PATH": "/models/x"}))
    for section, key, _ in keys():
        assert f"\n{section}.{key} = " in text
        assert f"    {variable_name(section, key)}, default " in text
    assert "pacs.address = PACS@host:104\n" in text
    assert "model.path = /models/x\n" in text
    assert "dicom.quiet_s = 5\n" in text


def test_every_key_has_a_description():
    assert all(field.description and field.description.endswith(".") for _, _, field in keys())


def test_example_file_names_every_key_and_loads_to_the_defaults():
    path = ROOT / "deploy" / "example.toml"
    assert load(path, {}) == Config()
    tables = tomllib.loads(path.read_text("utf-8"))
    assert [f"{section}.{key}" for section, table in tables.items() for key in table] == EVERY_KEY


def test_the_page_and_the_example_are_written_from_the_settings():
    """`triage check-config --table` and `--example` print them."""
    page = (ROOT / "docs" / "config.md").read_text("utf-8")
    assert page.endswith(markdown())
    assert (ROOT / "deploy" / "example.toml").read_text("utf-8") == example()


def test_b_value_rules_are_tables_in_the_file_and_json_in_the_environment(toml):
    path = toml(
        '[[dicom.b_value_rules]]\ncalling_ae = "MR1"\nseries_description = "DWI [b?000] *"\nb_value = 1000\n'
    )
    dicom = load(path, {}).dicom
    assert dicom.b_value_for("MR1", "dwi [b1000] trace ") == 1000
    assert dicom.b_value_for("MR1", "dwi b trace") is None
    assert dicom.b_value_for("MR2", "DWI [b1000] trace") is None
    text = '[{"calling_ae": "*", "series_description": "*", "b_value": 900}]'
    config = load(path, {"TRIAGE_DICOM__B_VALUE_RULES": text})
    assert config.dicom.b_value_for("ANY", "any") == 900
    assert "dicom.b_value_rules = * *: b=900\n" in explain(config)
    assert load(None, {"TRIAGE_DICOM__B_VALUE_RULES": ""}).dicom.b_value_rules == ()


def test_wrong_b_value_rules_and_windows_are_told(toml):
    assert complaints(None, {"TRIAGE_DICOM__B_VALUE_RULES": "MR1"})[0].startswith(
        "dicom.b_value_rules = 'MR1': expected JSON: "
    )
    path = toml('[[dicom.b_value_rules]]\ncalling_ae = "MR1"\nseries_description = "*"\nb_value = 0\n')
    assert complaints(path, {})[0].startswith("dicom.b_value_rules = 0: expected to be greater than 0.")
    assert complaints(toml("[dicom]\nb_window_high = 700"), {})[0].startswith(
        "dicom.b_window_high = 700: expected at least b_window_low, which is 800."
    )
    assert Config().dicom.b_window == (800, 1200)
