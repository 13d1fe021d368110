"""Contrast, by WCAG 2.2 (1.4.3 and 1.4.11), in both colour schemes."""

import re
from pathlib import Path

import pytest

from triage.web import app

CSS = (Path(app.__file__).parent / "static" / "triage.css").read_text()


def colours_of(scheme: str) -> dict[str, str]:
    dark, light = (block for block in re.findall(r":root \{(.*?)\}", CSS, re.DOTALL))
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", dark if scheme == "dark" else light))


def luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("ground", ["ground", "raised"])
@pytest.mark.parametrize(
    "ink", ["text", "quiet", "link", "suspected", "not-analysed", "not-suspected", "trouble"]
)
def test_text_stands_out_from_its_ground(scheme: str, ground: str, ink: str) -> None:
    colours = colours_of(scheme)
    assert contrast(colours[ink], colours[ground]) >= 4.5


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("kind", ["suspected", "not-analysed", "not-suspected"])
def test_a_verdict_stands_out_from_its_ground(scheme: str, kind: str) -> None:
    colours = colours_of(scheme)
    assert contrast(colours["text"], colours[f"{kind}-ground"]) >= 7
    assert contrast(colours["quiet"], colours[f"{kind}-ground"]) >= 4.5
    assert contrast(colours[kind], colours[f"{kind}-ground"]) >= 3
    if f"on-{kind}" in colours:
        assert contrast(colours[f"on-{kind}"], colours[kind]) >= 4.5


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_the_words_on_a_button_stand_out(scheme: str) -> None:
    colours = colours_of(scheme)
    assert contrast(colours["ground"], colours["link"]) >= 4.5
