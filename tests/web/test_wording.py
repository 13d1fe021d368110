"""The sentences themselves: complete, used, and never soothing."""

import re
from pathlib import Path

import pytest

from triage.core.finding import Category
from triage.core.volume import Reason
from triage.web import wording

WEB = Path(wording.__file__).parent
NAMES = [name for name in vars(wording) if name.isupper()]


def sentences() -> list[str]:
    found: list[str] = []
    for name in NAMES:
        value = getattr(wording, name)
        for text in value.values() if isinstance(value, dict) else [value]:
            found.extend(text if isinstance(text, tuple) else [text])
    return found


def test_the_words_are_the_ones_agreed_on() -> None:
    assert wording.SUSPECTED == "DWI-ASPECTS 1-6 suspected"
    assert wording.NOT_SUSPECTED == "DWI-ASPECTS 7-10, large infarct not suspected"
    assert wording.NOT_ANALYSED == "Not analysed"
    assert wording.NOT_ANALYSED_ADVICE == "An infarct is neither suspected nor ruled out. Read the study now."


@pytest.mark.parametrize("name", NAMES)
def test_every_wording_is_used(name: str) -> None:
    sources = [path.read_text() for path in [*WEB.glob("*.py"), *WEB.glob("templates/*.html")]]
    is_used_elsewhere = any(re.search(rf"wording\.{name}\b", source) for source in sources)
    is_part_of_another = len(re.findall(rf"\b{name}\b", Path(wording.__file__).read_text())) > 1
    assert is_used_elsewhere or is_part_of_another


def test_every_category_and_every_reason_has_its_words() -> None:
    assert set(wording.CATEGORIES) == set(Category)
    assert set(wording.REASONS) == set(Reason)
    assert len(set(wording.REASONS.values())) == len(Reason)


@pytest.mark.parametrize("word", ["normal", "negative", "clear", "healthy", "safe", "no infarct", "fine"])
def test_nothing_is_called_normal(word: str) -> None:
    templates = "".join(path.read_text() for path in WEB.glob("templates/*.html"))
    assert not [said for said in [*sentences(), templates] if re.search(rf"\b{word}\b", said, re.IGNORECASE)]


def test_events_that_the_flow_writes_have_words() -> None:
    store = (WEB.parent / "edges" / "store" / "store.py").read_text()
    written = set(re.findall(r'"([a-z]+_?[a-z]+)",\s+(?:detail|error|f"|note|because|"")', store))
    assert written <= set(wording.EVENTS)
    assert written
