"""`make demo ONCE=1` is the whole line, and its exit status says whether all of it happened."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_demo_shows_the_whole_line() -> None:
    command = [sys.executable, "-m", "triage", "demo", "--once"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for step in (
        "received",
        "whole",
        "ASPECTS_1_6",
        "ASPECTS_7_10",
        "report stored",
        "alert sent",
        "Page: http://",
        "Log in as demo with the password ",
    ):
        assert step in done.stdout
