"""What the documents state is what the code does."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from highdicom.sr import CodedConcept
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from triage.cli import _parser
from triage.config import keys, variable_name
from triage.core import report
from triage.core.audit import Action
from triage.core.audit_kinds import KINDS
from triage.core.trouble import MEANINGS, Trouble
from triage.core.volume import Reason
from triage.edges.dimse import Status
from triage.web import wording

ROOT = Path(__file__).parents[2]
CONFORMANCE = (ROOT / "docs" / "conformance.md").read_text()
README = (ROOT / "README.md").read_text()
VARIABLES = {variable_name(section, key) for section, key, _ in keys()}


def test_every_command_is_in_the_readme() -> None:
    (commands,) = (action.choices for action in _parser()._actions if isinstance(action.choices, dict))
    documents = README + (ROOT / "docs" / "science.md").read_text()
    for command in commands:
        assert f"`triage {command}" in documents, command


@pytest.mark.parametrize("status", Status)
def test_every_status_is_in_the_conformance_statement(status: Status) -> None:
    assert f"`0x{status:04X}` {status.name}" in CONFORMANCE


@pytest.mark.parametrize(
    "concept",
    [
        report.GROUP, report.CATEGORY, report.REASON, report.NOT_ASSESSED,
        *report.CATEGORIES.values(), *report.REASONS.values(),
    ],
    ids=lambda concept: str(concept.value),
)  # fmt: skip
def test_every_private_code_is_in_the_conformance_statement(concept: CodedConcept) -> None:
    assert f"| {concept.value} | {concept.meaning} |" in CONFORMANCE


def test_every_reason_has_a_code() -> None:
    assert set(report.REASONS) == set(Reason)


def test_every_event_is_explained() -> None:
    text = (ROOT / "docs" / "one-study.md").read_text()
    for event in wording.EVENTS:
        assert f"`{event}`" in text, event


@pytest.mark.parametrize("trouble", Trouble)
def test_every_trouble_is_in_the_runbook(trouble: Trouble) -> None:
    assert f"\n## {trouble.value}\n" in (ROOT / "docs" / "runbook.md").read_text()
    assert MEANINGS[trouble]


@pytest.mark.parametrize("action", Action)
def test_every_action_stands_in_the_audit_page_with_its_message(action: Action) -> None:
    kind = KINDS[action]
    table = kind.table or "our own"
    row = f"| `{action}` | {kind.event.meaning} ({kind.event.value}, {table}) | {kind.action_code} |"
    assert row in (ROOT / "docs" / "audit.md").read_text()


def test_every_variable_in_the_deployment_files_exists() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    used = set(compose["services"]["triage"]["environment"])
    used |= set(re.findall(r"\bTRIAGE_\w+__\w+", (ROOT / "deploy" / "Dockerfile").read_text()))
    used |= set(re.findall(r"\bTRIAGE_\w+__\w+", README + (ROOT / "docs" / "install.md").read_text()))
    assert used <= VARIABLES


def test_the_lock_holds_what_the_package_depends_on() -> None:
    """`make lock` after every change of the dependencies."""
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    for dependency in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        requirement = Requirement(dependency)
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), dependency


def test_the_image_names_a_bundle_that_exists() -> None:
    (bundle,) = re.findall(r"/app/(models/\S+)", (ROOT / "deploy" / "Dockerfile").read_text())
    assert (ROOT / bundle / "spec.json").exists()


@pytest.mark.parametrize("document", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=str)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), f"{document.name} -> {target}"
