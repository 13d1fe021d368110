"""DICOM on the network: a Storage SCP that calls a handler, and an SCU that sends."""

from triage.edges.dimse.admission import Admission
from triage.edges.dimse.scp import ReceivedObject, Scp, start_scp
from triage.edges.dimse.scu import echo, send, send_files
from triage.edges.dimse.status import Status
from triage.edges.dimse.tls import Tls

__all__ = [
    "Admission",
    "ReceivedObject",
    "Scp",
    "Status",
    "Tls",
    "echo",
    "send",
    "send_files",
    "start_scp",
]
