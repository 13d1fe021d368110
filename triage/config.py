"""One TOML file, environment variables over it, one frozen Config: every key, its unit, its default.

`load` reads both once, before any port opens. A variable is named after its key: `dicom.port` is
`TRIAGE_DICOM__PORT`. Whatever is wrong is told at once, one problem a line. The file is long because
each key stands here, and only here, with its check and its reason.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from triage.errors import ConfigError

ENVIRONMENT_PREFIX = "TRIAGE_"


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a DICOM peer listens. Written `AET@host:port`; an IPv6 host stands in brackets.

    >>> str(parse_peer_address("PACS@[2001:db8::5]:104"))
    'PACS@[2001:db8::5]:104'
    """

    ae_title: str
    host: str
    port: int

    def __post_init__(self) -> None:
        check_ae_title(self.ae_title)
        if not self.host or re.search(r"[\s\[\]@]", self.host):
            raise ValueError(f"expected a host name or an IP address, got {self.host!r}")
        if not 1 <= self.port <= 65535:
            raise ValueError(f"expected a port from 1 to 65535, got {self.port}")

    def __str__(self) -> str:
        return f"{self.ae_title}@{_bracketed(self.host)}:{self.port}"


def parse_peer_address(text: str) -> PeerAddress:
    """The peer that `AET@host:port` names. Raises ValueError saying what was expected.

    >>> parse_peer_address("PACS@10.0.0.5:104")
    PeerAddress(ae_title='PACS', host='10.0.0.5', port=104)
    """
    ae_title, _, endpoint = text.rpartition("@")
    parts = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]+)):([0-9]{1,5})", endpoint)
    if parts is None or not ae_title:
        raise ValueError("expected AET@host:port, an IPv6 host in brackets: PACS@[2001:db8::5]:104")
    return PeerAddress(ae_title, parts[1] or parts[2], int(parts[3]))


def check_ae_title(text: str) -> str:
    """The AE title, unchanged. Raises ValueError outside PS3.5 section 6.2, VR AE.

    >>> check_ae_title("TRIAGE")
    'TRIAGE'
    """
    if not re.fullmatch(r"[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?", text):
        raise ValueError(
            "expected an AE title: 1 to 16 ASCII characters, no backslash, no space at either end"
        )
    return text


def _refuse_truth_value(value: object) -> object:
    # Python counts `true` as 1; a configuration does not.
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


def _refuse_empty_folder(value: object) -> object:
    # Path("") is the working directory, which nobody means.
    if value == "":
        raise ValueError("expected a folder")
    return value


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


def _peer_or_none(value: object) -> object:
    if value == "" or value is None or isinstance(value, PeerAddress):
        return value or None
    if not isinstance(value, str):
        raise ValueError("expected AET@host:port")
    return parse_peer_address(value)


def _split_urls(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return _json_list(value)
    # A URL may hold commas itself (several mail recipients): only one before a scheme separates.
    return [url for url in re.split(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://)", value.strip(", \t\n")) if url]


def _json_list(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        # No cause: the exception carries the text, and the text carries the secrets.
        raise ValueError("expected a JSON list of URLs, or URLs separated by commas") from None


def _check_alert_url(url: SecretStr) -> SecretStr:
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://\S", url.get_secret_value()):
        raise ValueError("expected apprise URLs, such as mailto://... or ntfy://...")
    return url


Number = BeforeValidator(_refuse_truth_value)
Port = Annotated[int, Number, Field(ge=0, le=65535)]
Count = Annotated[int, Number, Field(ge=1)]
Seconds = Annotated[float, Number, Field(gt=0)]
AeTitle = Annotated[str, AfterValidator(check_ae_title)]
Host = Annotated[str, Field(min_length=1)]
AlertUrl = Annotated[SecretStr, AfterValidator(_check_alert_url)]

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class StoreSettings(BaseModel):
    """[store]: where received objects and what became of them are kept."""

    model_config = _FROZEN

    dir: Annotated[Path, BeforeValidator(_refuse_empty_folder)] = Field(
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
        "0.0.0.0",  # noqa: S104 - the scanner is another machine
        description="Address to listen on. All interfaces, because the scanner must reach it: limit it"
        " to the imaging network where there is one.",
    )
    port: Port = Field(11112, description="TCP port, the one IANA registered for DICOM. 0: any free port.")
    max_associations: Count = Field(
        100, description="Associations open at a time. More are refused and the sender tries again."
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
        " More are not judged.",
    )

    @field_validator("b_window_high")
    @classmethod
    def _not_below_low(cls, value: float, info: ValidationInfo) -> float:
        low = info.data.get("b_window_low", value)
        if value < low:
            raise ValueError(f"expected at least b_window_low, which is {low:g}")
        return value

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
            return f"http://{_bracketed(info.data.get('host', ''))}:{info.data.get('port')}"
        if not re.fullmatch(r"https?://[^\s/]\S*", value):
            raise ValueError("expected a URL that starts with http:// or https://")
        return value.rstrip("/")


class PacsSettings(BaseModel):
    """[pacs]: where the reports go."""

    model_config = _FROZEN

    address: Annotated[PeerAddress | None, BeforeValidator(_peer_or_none)] = Field(
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


class AlertsSettings(BaseModel):
    """[alerts]: who is told."""

    model_config = _FROZEN

    urls: Annotated[tuple[AlertUrl, ...], BeforeValidator(_split_urls)] = Field(
        (),
        description="Where to page, as apprise URLs: a list; in the environment also separated by"
        " commas. URLs that carry a token belong in the environment. Empty: nobody is paged.",
    )
    repeat_s: Seconds = Field(
        300.0, description="Seconds between two pages of one study, until someone acknowledges it."
    )


class ModelSettings(BaseModel):
    """[model]: which network judges, and on what."""

    model_config = _FROZEN

    path: Annotated[Path | None, BeforeValidator(_empty_is_none)] = Field(
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
    model: ModelSettings = Field(default_factory=ModelSettings)


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The configuration of the TOML file, with the environment over it.

    path: the TOML file, or None for none.
    environ: only names that start with TRIAGE_ are looked at.

    Raises ConfigError, one problem a line: each names the key, the value unless it is a secret, what
    was expected, and the next step.

    >>> load(None, {"TRIAGE_DICOM__PORT": "104"}).dicom.port
    104
    """
    tables = _read_toml(path)
    problems = [*_misplaced_secrets(tables), *_unknown_variables(environ)]
    for variable, section, key in _variables():
        table = tables.setdefault(section, {})
        if variable in environ and isinstance(table, dict):
            table[key] = environ[variable]
    try:
        config = Config.model_validate(tables)
    except ValidationError as error:
        problems += [_problem(detail, path, environ) for detail in error.errors()]
        raise ConfigError("\n".join(problems)) from error
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def explain(config: Config) -> str:
    """Every key with its value in force, its default and its meaning. Secrets are masked.

    >>> print(explain(Config()).splitlines()[1])
    store.dir = triage-data
    """
    lines = ["In force, each with its default and meaning. Environment variables go over the TOML file."]
    for section, key, field in keys():
        value = getattr(getattr(config, section), key)
        lines.append(f"{section}.{key} = {_shown(value)}")
        origin = f"{variable_name(section, key)}, default {_shown(field.default)}"
        lines.append(f"    {origin}. {field.description}")
    return "\n".join(lines)


def keys() -> Iterator[tuple[str, str, FieldInfo]]:
    """Every section and key, in the order of the file, with its default and description."""
    for section, table in Config.model_fields.items():
        settings = cast(type[BaseModel], table.annotation)
        for key, field in settings.model_fields.items():
            yield section, key, field


def variable_name(section: str, key: str) -> str:
    """The environment variable of a key.

    >>> variable_name("dicom", "port")
    'TRIAGE_DICOM__PORT'
    """
    return f"{ENVIRONMENT_PREFIX}{section}__{key}".upper()


def masked_url(url: str) -> str:
    """A database URL that can be shown: password and query are stars.

    >>> masked_url("postgresql://triage:s3cret@db:5432/triage?sslpassword=x")
    'postgresql://triage:***@db:5432/triage?***'
    """
    # Greedy up to the last @: a password may hold one, or a question mark, itself.
    return re.sub(r"\?.*", "?***", re.sub(r"://([^:/@]*):.*@", r"://\1:***@", url))


def _read_toml(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}). Check the path and its permissions."
        ) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}: line {line} is not UTF-8. Save the file as UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}. Correct that line.") from error


def _variables() -> Iterator[tuple[str, str, str]]:
    for section, key, _ in keys():
        yield variable_name(section, key), section, key


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    known = [variable for variable, _, _ in _variables()]
    return [
        f"{variable}: unknown variable. Did you mean {_nearest(variable, known)}?"
        for variable in sorted(environ)
        if variable.startswith(ENVIRONMENT_PREFIX) and variable not in known
    ]


def _misplaced_secrets(tables: Mapping[str, Any]) -> list[str]:
    # A webhook on the hospital's own network is no secret; a URL with a password in it is.
    return [
        f"{section}.{key}: holds a password, which has no place in a TOML file."
        f" Set {variable_name(section, key)} instead."
        for section, key in (("alerts", "urls"), ("store", "database_url"))
        if re.search(r"://[^:/@\s]*:[^@\s]*@|\?.*password", str(_nested(tables, section, key)))
    ]


def _nested(tables: Mapping[str, Any], section: str, key: str) -> object:
    table = tables.get(section)
    return table.get(key) if isinstance(table, dict) else None


def _problem(detail: ErrorDetails, path: Path | None, environ: Mapping[str, str]) -> str:
    section, key = (*map(str, detail["loc"][:2]), "")[:2]
    name = f"{section}.{key}" if key else section
    if detail["type"] == "extra_forbidden":
        return _unknown(name, path, is_section=isinstance(detail["input"], dict) and not key)
    if not key:
        return f"{name}: expected a section in {path}. Write [{name}] and its keys below it."
    variable = variable_name(section, key)
    place = variable if variable in environ or path is None else path
    return f"{name}{_value_part(name, detail['input'])}: {_expectation(detail)}. Change it in {place}."


def _unknown(name: str, path: Path | None, *, is_section: bool) -> str:
    if is_section:
        section = _nearest(name, list(Config.model_fields))
        return f"{name}: unknown section in {path}. Did you mean [{section}]?"
    nearest = _nearest(name, [f"{section}.{key}" for section, key, _ in keys()])
    return f"{name}: unknown key in {path}. Did you mean {nearest}?"


def _nearest(name: str, known: list[str]) -> str:
    return difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]


def _value_part(name: str, value: object) -> str:
    return "" if name in ("alerts.urls", "store.database_url") else f" = {value!r}"


def _expectation(detail: ErrorDetails) -> str:
    return detail["msg"].removeprefix("Value error, ").replace("Input should", "expected to", 1)


def _shown(value: object) -> str:
    match value:
        case None | "" | ():
            return "empty"
        case SecretStr():
            return masked_url(value.get_secret_value()) or "empty"
        case tuple():
            return _shown_tuple(value)
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _shown_tuple(values: tuple[object, ...]) -> str:
    if all(isinstance(value, BValueRule) for value in values):
        return "; ".join(map(str, values))
    return f"{len(values)} set, hidden"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
