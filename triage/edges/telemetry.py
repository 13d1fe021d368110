"""Log lines: one event, one line, key=value, past tense. Row ids only: no names, IDs, UIDs or pixels."""

import logging
import sys


def start_logging(level: int = logging.INFO) -> None:
    """Log lines to standard error, ours from `level` on and everybody else's from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("triage").setLevel(level)
    # Both name peers' UIDs and patients' attributes in their lines.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
