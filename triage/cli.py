"""The `triage` command. Each subcommand imports what it needs when it runs: serving needs no torch."""

import argparse
import errno
import json
import os
import resource
import socket
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from triage import __version__
from triage.config import ENVIRONMENT_PREFIX, Config, PeerAddress, explain, load, parse_peer_address
from triage.core.access import Role
from triage.errors import ConfigError, TriageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand: 0 when it did what it says, 1 with the reason on standard error otherwise."""
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except TriageError as error:
        print(f"triage: {error}", file=sys.stderr)
    except OSError as error:
        print(f"triage: {error.strerror or error}", file=sys.stderr)
    return 1


def serve(parsed: argparse.Namespace) -> int:
    """Receive, analyse, report, alert and show, until SIGINT or SIGTERM."""
    from triage.edges.store.accounts import FIRST_ADMIN
    from triage.edges.telemetry import start_logging
    from triage.service import running

    config = _config(parsed)
    # Each association, browser and file is a descriptor; the usual soft limit of 1024 is soon reached.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    start_logging()
    with running(config) as service:
        if service.one_time_password:
            # Not through the log: it goes to whoever starts the service for the first time, and nowhere else.
            print(
                f"First start: log in at {config.http.public_url} as {FIRST_ADMIN} with the one-time password"
                f" {service.one_time_password}",
                file=sys.stderr,
                flush=True,
            )
        service.serve_web()
    return 0


def check_config(parsed: argparse.Namespace) -> int:
    """Say what the configuration means, or what is wrong with it."""
    from triage.config.reference import example, markdown

    if parsed.example or parsed.table:
        print(example() if parsed.example else markdown(), end="")
        return 0
    print(explain(_config(parsed)))
    return 0


def account(parsed: argparse.Namespace) -> int:
    """Say who may log in: list, add NAME --role, password NAME, disable NAME, enable NAME."""
    from triage.credentials import account

    return account(_config(parsed), parsed)


def token(parsed: argparse.Namespace) -> int:
    """Say which programs may ask: list, add NAME --role, revoke NAME."""
    from triage.credentials import token

    return token(_config(parsed), parsed)


def send(parsed: argparse.Namespace) -> int:
    """Send every DICOM file under a folder by C-STORE."""
    from triage.edges.dimse import send_files

    address: PeerAddress = parsed.address
    paths = sorted(path for path in parsed.folder.rglob("*") if path.is_file())
    sent = refused = 0
    to = (address.ae_title, address.host, address.port)
    for path, status in send_files(paths, to=to, calling_ae=parsed.calling_ae, timeout_s=30):
        if status == 0 or 0xB000 <= status <= 0xBFFF:
            sent += 1
        else:
            refused += 1
            print(f"{path.name}: refused with status 0x{status:04X}", file=sys.stderr)
    print(f"{sent} sent, {refused} refused, {len(paths) - sent - refused} not DICOM")
    return 0 if sent and not refused else 1


def resend(parsed: argparse.Namespace) -> int:
    """List the reports that were given up, or have some sent again; a running service takes them up."""
    from triage.credentials import user
    from triage.service import opened_store

    config = _config(parsed)
    with opened_store(config) as store:
        undelivered = store.undelivered()
        given_up = [report_id for report_id, _, _ in undelivered]
        wanted = given_up if parsed.all else parsed.reports
        unknown = sorted(set(wanted) - set(given_up))
        if unknown:
            raise ConfigError(f"reports {unknown} were not given up; `triage resend` lists those that were")
        if wanted and config.pacs.address is None:
            raise ConfigError("pacs.address: no PACS is set up, so nothing can be sent again")
        if not wanted:
            for report_id, series_id, error in undelivered:
                print(f"report {report_id} of series {series_id}: {error}")
            print(f"{len(undelivered)} reports were given up")
            return 0
        for report_id in wanted:
            queued = store.requeue_report(report_id, datetime.now(UTC), user(), socket.gethostname())
            print(f"report {report_id}: {'queued' if queued else 'on its way already'}")
    print("A running service takes them up within a minute, one that is started at once.")
    return 0


def alert_test(parsed: argparse.Namespace) -> int:
    """Send a message marked as a test to everybody on the ladder, the operator and the technologist."""
    from triage.core.audit import Action
    from triage.credentials import record
    from triage.flow.alert_test import call_everybody

    config, missed = _config(parsed), 0
    for where, name, taken in call_everybody(config):
        print(f"{where}: {name}: {'taken' if taken else 'NOT TAKEN by any channel'}")
        missed += not taken
    record(config, Action.ALERT_TESTED, f"{missed} not reached", succeeded=not missed)
    return 1 if missed else 0


def explain_folder(parsed: argparse.Namespace) -> int:
    """Say what each series of a folder is, where its b-values stand, what would be judged, and why not."""
    from triage.explain import explain_folder

    if not parsed.folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{parsed.folder} is no folder")
    for line in explain_folder(parsed.folder, _config(parsed).dicom, calling_ae=parsed.calling_ae):
        print(line)
    return 0


def phantom(parsed: argparse.Namespace) -> int:
    """Write one synthetic study with a known ASPECTS as DICOM files."""
    from triage.phantom.dicom import write_study

    paths = write_study(parsed.out, aspects=parsed.aspects, seed=parsed.seed, heads=parsed.heads)
    print(f"{len(paths)} files in {parsed.out}")
    return 0


def cohort(parsed: argparse.Namespace) -> int:
    """Build a cohort of synthetic studies for training; what is there already is kept."""
    from triage.phantom.cohort import main_build

    main_build(parsed.out, heads=parsed.heads, seed=parsed.seed, processes=parsed.processes)
    return 0


def train(parsed: argparse.Namespace) -> int:
    """Train the RRCNN on a cohort; goes on from the last checkpoint."""
    from triage.lab.train import TrainingRun
    from triage.lab.train import train as run

    print(run(TrainingRun(cohort=parsed.cohort, out_dir=parsed.out, seed=parsed.seed)))
    return 0


def evaluate(parsed: argparse.Namespace) -> int:
    """Calibrate a checkpoint on the validation heads and print its figures on the test heads."""
    from triage.lab.evaluate import evaluate as run

    print(json.dumps(run(parsed.checkpoint, parsed.cohort).report, indent=2))
    return 0


def export(parsed: argparse.Namespace) -> int:
    """Write a checkpoint as a model bundle that the service loads."""
    from triage.lab.export import ExportRequest, export_bundle

    request = ExportRequest(
        checkpoint=parsed.checkpoint, cohort=parsed.cohort, models=parsed.models, version=parsed.version
    )
    print(export_bundle(request))
    return 0


def audit(parsed: argparse.Namespace) -> int:
    """Export the audit trail as JSON lines: series by row id, no patient. The export is recorded too."""
    from triage.core.audit import Action, Deed, as_json_line
    from triage.credentials import user
    from triage.edges.disk import write_durably
    from triage.edges.store import AuditTrail

    trail = AuditTrail.open(_config(parsed).store.database_url.get_secret_value())
    try:
        # Before the first line is written: nobody reads the trail unseen.
        span = f"from {parsed.since or 'the beginning'} to {parsed.until or 'now'}"
        deed = Deed(actor=user(), action=Action.AUDIT_EXPORTED, address=socket.gethostname(), detail=span)
        trail.record(deed, datetime.now(UTC))
        lines = (as_json_line(entry) + "\n" for entry in trail.every_entry(parsed.since, parsed.until))
        if parsed.out is None:
            sys.stdout.writelines(lines)
        else:
            write_durably(parsed.out, lambda file: file.writelines(line.encode() for line in lines))
    finally:
        trail.close()
    return 0


def demo(parsed: argparse.Namespace) -> int:
    """The whole line on this machine, with a PACS and a webhook of its own."""
    from triage.demo import run

    return run(once=parsed.once)


def _config(parsed: argparse.Namespace) -> Config:
    return load(parsed.config, os.environ)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="triage",
        description="Acute-stroke triage of brain diffusion MR. Research software, not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"triage {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    for name, run in (
        ("serve", serve),
        ("check-config", check_config),
        ("alert-test", alert_test),
        ("resend", resend),
        ("account", account),
        ("token", token),
    ):
        command = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        command.add_argument(
            "--config",
            type=Path,
            help=f"TOML file; environment variables {ENVIRONMENT_PREFIX}SECTION__KEY go over it",
        )
        command.set_defaults(run=run)
    configured = commands.choices
    configured["check-config"].add_argument(
        "--example", action="store_true", help="print a file with every default"
    )
    configured["check-config"].add_argument(
        "--table", action="store_true", help="print every key as Markdown tables"
    )
    configured["resend"].add_argument("reports", type=int, nargs="*", metavar="REPORT", help="from the list")
    configured["resend"].add_argument("--all", action="store_true", help="every report that was given up")
    _add_deeds(configured["account"], "password", "disable", "enable")
    _add_deeds(configured["token"], "revoke")

    command = commands.add_parser("send", help=send.__doc__, description=send.__doc__)
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("address", type=_address, metavar="AET@host:port")
    command.add_argument("--calling-ae", default="TRIAGE_SEND", help="our AE title (default: %(default)s)")
    command.set_defaults(run=send)

    doc = explain_folder.__doc__
    command = commands.add_parser("explain", help=doc, description=doc)
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("--calling-ae", default="", help="whose rules of dicom.b_value_rules count")
    command.add_argument("--config", type=Path, help="TOML file with the b-value window and rules")
    command.set_defaults(run=explain_folder)

    command = commands.add_parser("phantom", help=phantom.__doc__, description=phantom.__doc__)
    command.add_argument("out", type=Path, metavar="DIR")
    command.add_argument("--aspects", type=int, required=True, choices=range(11), metavar="0..10")
    command.add_argument("--seed", type=int, default=1, help="the same seed gives the same study")
    command.add_argument("--heads", type=Path, help="folder of head label maps (default: the packaged head)")
    command.set_defaults(run=phantom)

    command = commands.add_parser("cohort", help=cohort.__doc__, description=cohort.__doc__)
    command.add_argument("out", type=Path, metavar="DIR")
    command.add_argument("--heads", type=Path, required=True, help="folder of head label maps")
    command.add_argument("--seed", type=int, default=1)
    command.add_argument("--processes", type=int, default=2)
    command.set_defaults(run=cohort)

    command = commands.add_parser("train", help=train.__doc__, description=train.__doc__)
    command.add_argument("cohort", type=Path, help="folder made by `triage cohort`")
    command.add_argument("out", type=Path, help="folder for checkpoints")
    command.add_argument("--seed", type=int, default=1)
    command.set_defaults(run=train)

    for name, run in (("evaluate", evaluate), ("export", export)):
        command = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        command.add_argument("checkpoint", type=Path)
        command.add_argument("cohort", type=Path, help="the cohort that it was trained on")
        command.set_defaults(run=run)
    command.add_argument("--models", type=Path, default=Path("models"), help="folder of bundles")
    command.add_argument("--version", required=True, help="of the new bundle, such as 1.0.0")

    command = commands.add_parser("audit", help=audit.__doc__, description=audit.__doc__)
    command.add_argument("--config", type=Path, help="TOML file that the service was started with")
    command.add_argument("--since", type=_moment, help="ISO 8601, such as 2026-03-01T08:00; the first moment")
    command.add_argument("--until", type=_moment, help="ISO 8601; the first moment that is left out")
    command.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")
    command.set_defaults(run=audit)

    command = commands.add_parser("demo", help=demo.__doc__, description=demo.__doc__)
    command.add_argument("--once", action="store_true", help="end by itself: 0 only if everything happened")
    command.set_defaults(run=demo)
    return parser


def _add_deeds(command: argparse.ArgumentParser, *with_a_name: str) -> None:
    deeds = command.add_subparsers(required=True, metavar="DEED", dest="deed")
    deeds.add_parser("list")
    add = deeds.add_parser("add")
    add.add_argument("--role", type=Role, choices=list(Role), required=True, metavar="viewer|reader|admin")
    for deed in (add, *map(deeds.add_parser, with_a_name)):
        deed.add_argument("name", metavar="NAME")


def _address(text: str) -> PeerAddress:
    try:
        return parse_peer_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _moment(text: str) -> datetime:
    try:
        # Without a zone it is what the clock on this wall shows.
        return datetime.fromisoformat(text).astimezone()
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected ISO 8601, such as 2026-03-01T08:00, got {text!r}"
        ) from error
