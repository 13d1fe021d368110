"""Every section and key: its type, unit, default and reason.

The file is long because each key stands here, and only here, with its check.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from triage.config.values import (
    AeTitle,
    AlertUrls,
    Count,
    FileOrNone,
    Host,
    Number,
    PeerAddress,
    Port,
    Seconds,
    bracketed,
    check_allowed_ae,
    check_network,
    check_tls_pair,
    empty_is_none,
    is_loopback,
    peer_or_none,
    refuse_empty_folder,
    split_rungs,
    split_words,
)

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class StoreSettings(BaseModel):
    """[store]: where received objects and what became of them are kept."""

    model_config = _FROZEN

    dir: Annotated[Path, BeforeValidator(refuse_empty_folder)] = Field(
        Path("triage-data"),
        description="Folder for received objects and the SQLite file. A relative path starts at the"
        " working directory.",
    )
    database_url: SecretStr = Field(
        SecretStr(""),
        validate_default=True,
        description="Database, as a SQLAlchemy URL: sqlite:// or postgresql://. Empty: the SQLite file"
        " triage.db in store.dir, which is enough for one machine.",
    )

    @field_validator("database_url")
    @classmethod
    def _database_in_dir(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        url = value.get_secret_value()
        if not url:
            return SecretStr(f"sqlite:///{info.data.get('dir', Path()).as_posix()}/triage.db")
        if not re.match(r"(sqlite|postgresql)(\+\w+)?://", url):
            raise ValueError("expected a URL that starts with sqlite:// or postgresql://")
        return value

    reserve_bytes: Annotated[int, Number, Field(ge=0)] = Field(
        5 * 10**9,
        description="Bytes that must stay free on the disk of store.dir: 5 GB. With less, instances are"
        " refused before anything is written, and the sender keeps them.",
    )
    retention_days: Annotated[float, Number, Field(ge=0)] = Field(
        7.0,
        description="Days after a series is finished until its images are deleted here. Results, reports"
        " and the audit trail stay. 0: never.",
    )


class BValueRule(BaseModel):
    """The b-value of a series whose scanner writes none that we can read.

    calling_ae, series_description: exact but for capitals; * stands for any text, ? for one character.
    """

    model_config = _FROZEN

    calling_ae: Annotated[str, Field(min_length=1)]
    series_description: Annotated[str, Field(min_length=1)]
    b_value: Annotated[float, Number, Field(gt=0, lt=1e5)]

    def __str__(self) -> str:
        return f"{self.calling_ae} {self.series_description}: b={self.b_value:g}"

    def applies_to(self, calling_ae: str, series_description: str) -> bool:
        """Whether the series is one that the operator meant."""
        pairs = ((self.calling_ae, calling_ae), (self.series_description, series_description))
        return all(_is_like(pattern, found) for pattern, found in pairs)


def _is_like(pattern: str, found: str) -> bool:
    # fnmatch would also read [..] as a choice, and series descriptions do hold brackets.
    expression = re.escape(pattern.strip()).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, found.strip(), re.IGNORECASE) is not None


def _split_rules(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value or "[]")
    except json.JSONDecodeError:
        raise ValueError(
            'expected JSON: [{"calling_ae": "MR1", "series_description": "DWI*", "b_value": 1000}]'
        ) from None


class DicomSettings(BaseModel):
    """[dicom]: how the scanner or the router reaches us."""

    model_config = _FROZEN

    ae_title: AeTitle = Field("TRIAGE", description="Our AE title, 1 to 16 characters.")
    host: Host = Field(
        "127.0.0.1",
        description="Address to listen on. This machine only, until somebody says who may send: any other"
        " address needs allowed_ae_titles and allowed_addresses.",
    )
    port: Port = Field(11112, description="TCP port, the one IANA registered for DICOM. 0: any free port.")
    max_associations: Count = Field(
        100, description="Associations open at a time. More are refused and the sender tries again."
    )
    max_associations_per_peer: Count = Field(
        25,
        description="Connections that one address may have open at a time, so that a silent or hostile one"
        " never takes the places of the others.",
    )
    max_pdu_bytes: Annotated[int, Number, Field(ge=4096, le=2**27)] = Field(
        2**20,
        description="Longest PDU that is announced and taken: 1 MiB. A longer one ends its association.",
    )
    idle_s: Seconds = Field(
        60.0, description="Seconds after which an association on which nothing happens is ended."
    )
    allowed_ae_titles: Annotated[
        tuple[Annotated[str, AfterValidator(check_allowed_ae)], ...], BeforeValidator(split_words)
    ] = Field(
        (),
        description="Calling AE titles that may send; * for every one. Empty: every one, which is possible"
        " on this machine only.",
    )
    allowed_addresses: Annotated[
        tuple[Annotated[str, AfterValidator(check_network)], ...], BeforeValidator(split_words)
    ] = Field(
        (),
        description="Addresses and networks that may connect, such as 10.1.0.0/16; 0.0.0.0/0 for every one,"
        " ::/0 for IPv6. Empty: every one, which is possible on this machine only.",
    )
    tls_certificate: FileOrNone = Field(
        None, description="PEM file of our certificate with its chain. Empty: no TLS."
    )
    tls_key: FileOrNone = Field(None, description="PEM file of the certificate's private key, not encrypted.")
    tls_client_ca: FileOrNone = Field(
        None,
        description="PEM file of the authorities whose client certificates are demanded. Empty: none is"
        " demanded.",
    )
    quiet_s: Seconds = Field(
        5.0,
        description="Seconds without a new instance after which a series that never closed is judged"
        " with what is there.",
    )
    b_window_low: Annotated[float, Number, Field(gt=0)] = Field(
        800.0, description="Lowest b-value that is judged as b=1000, s/mm2."
    )
    b_window_high: Annotated[float, Number, Field(gt=0)] = Field(
        1200.0, validate_default=True, description="Highest b-value that is judged as b=1000, s/mm2."
    )
    b_value_rules: Annotated[tuple[BValueRule, ...], BeforeValidator(_split_rules)] = Field(
        (),
        description="b-values of series whose images state none: calling_ae, series_description, b_value;"
        " the first rule that fits counts. In the environment a JSON list.",
    )
    series_limit_bytes: Count = Field(
        512 * 2**20,
        description="Bytes that the images of one volume may take, as files and as pixels: 512 MiB."
        " More are not judged, and an association that sends one longer data set is ended.",
    )

    @field_validator("b_window_high")
    @classmethod
    def _not_below_low(cls, value: float, info: ValidationInfo) -> float:
        low = info.data.get("b_window_low", value)
        if value < low:
            raise ValueError(f"expected at least b_window_low, which is {low:g}")
        return value

    @model_validator(mode="after")
    def _says_who_may_send(self) -> Self:
        if not is_loopback(self.host):
            for key in ("allowed_ae_titles", "allowed_addresses"):
                if not getattr(self, key):
                    raise ValueError(
                        f"expected {key} to say who may send, because dicom.host is not this machine alone"
                    )
        check_tls_pair(self.tls_certificate, self.tls_key)
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError("expected tls_certificate and tls_key beside tls_client_ca")
        return self

    @property
    def b_window(self) -> tuple[float, float]:
        """Lowest and highest b-value that is judged as b=1000, s/mm2."""
        return self.b_window_low, self.b_window_high

    def b_value_for(self, calling_ae: str, series_description: str) -> float | None:
        """The b-value that the operator states for such series, where their images state none."""
        rules = (rule for rule in self.b_value_rules if rule.applies_to(calling_ae, series_description))
        return next((rule.b_value for rule in rules), None)


class HttpSettings(BaseModel):
    """[http]: the work list and the acknowledgement page."""

    model_config = _FROZEN

    host: Host = Field(
        "127.0.0.1", description="Address to listen on. This machine only, until a proxy adds TLS."
    )
    port: Port = Field(8080, description="TCP port. 0: any free port.")
    tls_certificate: FileOrNone = Field(
        None,
        description="PEM file of the page's certificate with its chain. Empty: plain HTTP, for this machine"
        " or behind a proxy that adds TLS.",
    )
    tls_key: FileOrNone = Field(None, description="PEM file of the certificate's private key.")
    api_token: SecretStr = Field(
        SecretStr(""),
        description="A token that a program may send as `Authorization: Bearer`, with the rights of a"
        " reader; at least 16 characters. From the environment only. Empty: none but those made by"
        " `triage token add`.",
    )
    session_hours: Annotated[float, Number, Field(gt=0)] = Field(
        16.0, description="Hours that a login lasts: a night on call."
    )
    login_tries: Count = Field(
        5,
        description="Failed logins of one name or from one address within five minutes, after which further"
        " ones wait.",
    )
    trusted_proxies: Annotated[
        tuple[Annotated[str, AfterValidator(check_network)], ...], BeforeValidator(split_words)
    ] = Field(
        ("127.0.0.1/32", "::1/128"),
        description="Addresses of the reverse proxies whose X-Forwarded-For is believed. Whoever stands"
        " between browsers and us must be here, or all browsers count as one address.",
    )
    public_url: str = Field(
        "",
        validate_default=True,
        description="Base of the links in alerts, as the reader's browser reaches it. Empty:"
        " http://host:port.",
    )

    @field_validator("public_url")
    @classmethod
    def _own_address(cls, value: str, info: ValidationInfo) -> str:
        if not value:
            scheme = "https" if info.data.get("tls_certificate") else "http"
            return f"{scheme}://{bracketed(info.data.get('host', ''))}:{info.data.get('port')}"
        if not re.fullmatch(r"https?://[^\s/]\S*", value):
            raise ValueError("expected a URL that starts with http:// or https://")
        return value.rstrip("/")

    @field_validator("api_token")
    @classmethod
    def _not_guessable(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < 16:
            raise ValueError("expected at least 16 characters")
        return value

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        check_tls_pair(self.tls_certificate, self.tls_key)
        return self


class PacsSettings(BaseModel):
    """[pacs]: where the reports go."""

    model_config = _FROZEN

    address: Annotated[PeerAddress | None, BeforeValidator(peer_or_none)] = Field(
        None, description="Destination of the reports, AET@host:port. Empty: none are sent."
    )
    timeout_s: Seconds = Field(30.0, description="Seconds to wait for the PACS at each step.")
    retry_first_s: Seconds = Field(
        1.0, description="Seconds before the second try. Doubles with every further one."
    )
    retry_longest_s: Seconds = Field(
        60.0,
        validate_default=True,
        description="Longest pause between two tries, seconds: a PACS that is back is found soon.",
    )
    give_up_after_s: Seconds = Field(
        86400.0, description="Seconds after which a report counts as undelivered and is shown so. One day."
    )

    @field_validator("retry_longest_s")
    @classmethod
    def _not_below_first(cls, value: float, info: ValidationInfo) -> float:
        first = info.data.get("retry_first_s", value)
        if value < first:
            raise ValueError(f"expected at least retry_first_s, which is {first:g}")
        return value


class Contact(BaseModel):
    """Somebody on call: a name for the record, and the channels that reach them."""

    model_config = _FROZEN

    name: Annotated[str, Field(min_length=1, max_length=80)]
    urls: Annotated[AlertUrls, Field(min_length=1)]


class Rung(BaseModel):
    """Who is called together, and how long they have to answer before the next rung is called."""

    model_config = _FROZEN

    contacts: Annotated[tuple[Contact, ...], Field(min_length=1)]
    wait_s: Seconds | None = None

    @field_validator("contacts")
    @classmethod
    def _told_apart(cls, value: tuple[Contact, ...]) -> tuple[Contact, ...]:
        if len({contact.name for contact in value}) < len(value):
            raise ValueError("expected contacts of one rung to have different names")
        return value

    def __str__(self) -> str:
        return " and ".join(f"{contact.name} ({len(contact.urls)})" for contact in self.contacts)


class AlertsSettings(BaseModel):
    """[alerts]: who is told."""

    model_config = _FROZEN

    urls: AlertUrls = Field(
        (),
        description="Where to page, as apprise URLs: a list; in the environment also separated by"
        " commas. Short for a ladder of one rung. URLs that carry a token belong in the environment."
        " Empty, and no ladder either: nobody is paged.",
    )
    repeat_s: Seconds = Field(
        180.0,
        description="Seconds between two pages of one study to alerts.urls, until someone acknowledges it.",
    )
    ladder: Annotated[tuple[Rung, ...], BeforeValidator(split_rungs)] = Field(
        (),
        description="Who is called one after another until someone acknowledges: rungs of contacts (name,"
        " urls) with wait_s, 180 for the first and 300 for the others unless stated. The last rung is"
        " repeated. In the environment a JSON list.",
    )
    operator_urls: AlertUrls = Field(
        (),
        description="Who keeps the service running, as apprise URLs: told of everything in"
        " docs/runbook.md. Empty: it stands on the page and in the log only.",
    )
    technologist_urls: AlertUrls = Field(
        (),
        description="Who is told at once that a series was not analysed and why, as apprise URLs. Empty:"
        " it stands on the page and in the report only.",
    )

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        if self.urls and self.ladder:
            raise ValueError("expected urls or ladder, not both")
        return self

    @property
    def rungs(self) -> tuple[tuple[tuple[Contact, ...], float], ...]:
        """(contacts, seconds to answer) of every rung, the short form spelt out."""
        if self.urls:
            return (((Contact(name="on call", urls=self.urls),), self.repeat_s),)
        return tuple(
            (rung.contacts, rung.wait_s or (_LATER_WAIT_S if number else _FIRST_WAIT_S))
            for number, rung in enumerate(self.ladder)
        )


_FIRST_WAIT_S, _LATER_WAIT_S = 180.0, 300.0


class WatchSettings(BaseModel):
    """[watch]: when the operator is told that something is wrong (docs/runbook.md)."""

    model_config = _FROZEN

    look_every_s: Seconds = Field(10.0, description="Seconds between two looks at everything below.")
    stuck_after_s: Seconds = Field(
        600.0,
        description="Seconds after which a series that has no outcome, a report that is not stored or a"
        " page that no channel took counts as stuck. Ten minutes.",
    )
    traffic_stop_s: Annotated[float, Number, Field(ge=0)] = Field(
        86400.0,
        description="Seconds without an instance from a sender that used to send. One day; 0: never.",
    )
    queue_limit: Count = Field(50, description="Series waiting for their analysis at a time.")
    repeat_s: Seconds = Field(
        3600.0, description="Seconds between two messages about one trouble that lasts."
    )


class AuditSettings(BaseModel):
    """[audit]: who is told, beside our own database, what people did."""

    model_config = _FROZEN

    syslog_address: str = Field(
        "",
        description="host:port of an audit record repository that takes DICOM audit messages by syslog over"
        " TLS (PS3.15 A.6, RFC 5425; port 6514). Empty: none is sent.",
    )
    syslog_ca: FileOrNone = Field(
        None, description="PEM file of the authorities that vouch for it. Empty: those of the machine."
    )
    tls_certificate: FileOrNone = Field(
        None, description="PEM file of our client certificate, where the repository demands one."
    )
    tls_key: FileOrNone = Field(None, description="PEM file of the client certificate's private key.")

    @field_validator("syslog_address")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        if value and not re.fullmatch(r"(\[[^\]]+\]|[^\s:\[\]]+):[0-9]{1,5}", value):
            raise ValueError("expected host:port")
        return value

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        check_tls_pair(self.tls_certificate, self.tls_key)
        return self


class ModelSettings(BaseModel):
    """[model]: which network judges, and on what."""

    model_config = _FROZEN

    path: Annotated[Path | None, BeforeValidator(empty_is_none)] = Field(
        None,
        description="Folder of the model bundle. Empty: the newest bundle under the installed models/"
        " folder.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where the network runs: cpu, cuda, or auto: the GPU where there is one."
    )
    threshold: str = Field(
        "",
        description="Name of an operating point in the bundle's spec.json. Empty: the bundle's default.",
    )
    intra_op_threads: Count = Field(2, description="CPU threads for one inference.")


class Config(BaseModel):
    """Everything that can be configured. Frozen; read once."""

    model_config = _FROZEN

    store: StoreSettings = Field(default_factory=StoreSettings)
    dicom: DicomSettings = Field(default_factory=DicomSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    pacs: PacsSettings = Field(default_factory=PacsSettings)
    alerts: AlertsSettings = Field(default_factory=AlertsSettings)
    watch: WatchSettings = Field(default_factory=WatchSettings)
    audit: AuditSettings = Field(default_factory=AuditSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
