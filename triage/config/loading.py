"""One TOML file, environment variables over it, one frozen Config.

`load` reads both once, before any port opens. A variable is named after its key: `dicom.port` is
`TRIAGE_DICOM__PORT`. Whatever is wrong is told at once, one problem a line.
"""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from triage.config.settings import BValueRule, Config, Rung
from triage.errors import ConfigError

ENVIRONMENT_PREFIX = "TRIAGE_"


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
        f"{name}: holds a password, which has no place in a TOML file."
        f" Set {variable_name(*name.split('.'))} instead."
        for name in _SECRETS
        if re.search(_SECRETS[name], str(_nested(tables, *name.split("."))))
    ]


_URL_WITH_PASSWORD = r"://[^:/@\s]*:[^@\s]*@|\?.*password"  # noqa: S105 - what one looks like
_SECRETS = {
    "alerts.urls": _URL_WITH_PASSWORD,
    "alerts.ladder": _URL_WITH_PASSWORD,
    "alerts.operator_urls": _URL_WITH_PASSWORD,
    "alerts.technologist_urls": _URL_WITH_PASSWORD,
    "store.database_url": _URL_WITH_PASSWORD,
    "http.api_token": r"^(?!None$).",
}


def _nested(tables: Mapping[str, Any], section: str, key: str) -> object:
    table = tables.get(section)
    return table.get(key) or None if isinstance(table, dict) else None


def _problem(detail: ErrorDetails, path: Path | None, environ: Mapping[str, str]) -> str:
    section, key = (*map(str, detail["loc"][:2]), "")[:2]
    name = f"{section}.{key}" if key else section
    if detail["type"] == "extra_forbidden":
        return _unknown(name, path, is_section=isinstance(detail["input"], dict) and not key)
    if not key and detail["type"] != "value_error":
        return f"{name}: expected a section in {path}. Write [{name}] and its keys below it."
    if not key:
        return f"{name}: {_expectation(detail)}."
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
    return "" if name in _SECRETS else f" = {value!r}"


def _expectation(detail: ErrorDetails) -> str:
    return detail["msg"].removeprefix("Value error, ").replace("Input should", "expected to", 1)


def _shown(value: object) -> str:
    match value:
        case None | "" | ():
            return "empty"
        case SecretStr() if "://" in value.get_secret_value():
            return masked_url(value.get_secret_value())
        case SecretStr():
            return "set, hidden" if value.get_secret_value() else "empty"
        case tuple():
            return _shown_tuple(value)
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _shown_tuple(values: tuple[object, ...]) -> str:
    if all(isinstance(value, BValueRule | Rung | str) for value in values):
        return "; ".join(map(str, values))
    return f"{len(values)} set, hidden"
