"""Every key as a document and as an example file, written from the settings themselves."""

import json
import textwrap
from collections.abc import Iterator
from typing import cast

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from triage.config.loading import keys, variable_name
from triage.config.settings import Config

_WIDTH = 105

_EXAMPLE_HEAD = """\
# triage: every key with its default. Copy it, keep what you change, delete the rest.
#
# An environment variable goes over each key: dicom.port is TRIAGE_DICOM__PORT.
# Secrets have no place in this file: tokens, passwords and URLs that carry one come from the environment.
# `triage check-config` shows what is in force. Written by `triage check-config --example`.
"""


def markdown() -> str:
    """One table a section: key, variable, default, meaning."""
    lines: list[str] = []
    current = ""
    for section, key, field in keys():
        if section != current:
            current = section
            lines += [
                "",
                f"## {_title(section)}",
                "",
                "| key | variable | default | meaning |",
                "|---|---|---|---|",
            ]
        default = "empty" if _is_empty(field) else f"`{_words(field.default)}`"
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{section}.{key}` | `{variable_name(section, key)}` | {default} | {meaning} |")
    return "\n".join(lines).strip() + "\n"


def example() -> str:
    """A TOML file with every key, its default and its meaning."""
    lines = [_EXAMPLE_HEAD.rstrip()]
    current = ""
    for section, key, field in keys():
        if section != current:
            current = section
            lines += ["", f"# {_title(section)}", f"[{section}]"]
        lines += [*_comment(field), f"{key} = {_toml(field)}"]
    return "\n".join(lines) + "\n"


def _title(section: str) -> str:
    settings = cast(type[BaseModel], Config.model_fields[section].annotation)
    return (settings.__doc__ or "").strip().rstrip(".")


def _comment(field: FieldInfo) -> Iterator[str]:
    for line in textwrap.wrap(field.description or "", _WIDTH):
        yield f"# {line}"


def _is_empty(field: FieldInfo) -> bool:
    return field.default in (None, "", (), SecretStr(""))


def _words(default: object) -> str:
    return ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _toml(field: FieldInfo) -> str:
    default = field.default
    match default:
        case ():
            return "[]"
        case tuple():
            return json.dumps(default)
        case None | SecretStr():
            return '""'
        case bool() | int() | float():
            return json.dumps(default)
        case _:
            return json.dumps(str(default))
