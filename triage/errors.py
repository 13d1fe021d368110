"""Every exception triage raises.

    TriageError
    +-- Transient             worth another try: the world may be better in a moment
    |   +-- PeerUnavailable   a DICOM peer did not answer, or answered "later"
    |   +-- RepositoryUnavailable   the audit record repository took no message
    +-- Permanent             another try gives the same answer: show it to a person
        +-- ConfigError       the configuration says something we cannot do
        +-- BundleError       a model bundle does not keep what its spec promises
        +-- HeaderError       a dataset lacks what is needed to file it
        +-- ReportRefused     the PACS understood the report and will not have it
        +-- AccountError      an account or a token cannot be what was asked for

A series that cannot be judged is not an exception: it is a `triage.core.volume.Rejection`.
"""

import traceback
from pathlib import Path

_PACKAGE = str(Path(__file__).parent)


def origin(error: BaseException) -> str:
    """Type and place of an exception, for the log: its text may hold what a peer sent.

    >>> try:
    ...     {}["1.2.840.10008"]
    ... except KeyError as error:
    ...     origin(error)
    'KeyError'
    """
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(_PACKAGE)]
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + place


class TriageError(Exception):
    """Root of the tree."""


class Transient(TriageError):
    """Worth another try."""


class Permanent(TriageError):
    """Another try gives the same answer."""


class PeerUnavailable(Transient):
    """A DICOM peer did not answer, or asked us to come back."""


class RepositoryUnavailable(Transient):
    """The audit record repository could not be reached, or ended the connection."""


class ConfigError(Permanent):
    """The configuration cannot be used; the message names key, value and expectation."""


class BundleError(Permanent):
    """A model bundle does not keep what its spec.json promises."""


class HeaderError(Permanent):
    """A dataset lacks an attribute without which it cannot be filed."""


class ReportRefused(Permanent):
    """The PACS understood the report and refuses it."""


class AccountError(Permanent):
    """An account, a password or a token cannot be what was asked for; the message says what would do."""
