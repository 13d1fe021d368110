"""Names, numbers and times as people read them."""

from datetime import timedelta


def probability_words(probability: float, threshold: float) -> tuple[str, str]:
    """Both numbers with two decimals, or as many as tell them apart; never shown as certain.

    >>> probability_words(0.9312, 0.5), probability_words(0.4996, 0.5), probability_words(0.9999, 0.5)
    (('0.93', '0.50'), ('0.4996', '0.5000'), ('> 0.99', '0.50'))
    """
    decimals = 2
    while decimals < 9 and probability != threshold and _same(probability, threshold, decimals):
        decimals += 1
    words, threshold_words = f"{probability:.{decimals}f}", f"{threshold:.{decimals}f}"
    if words in ("0.00", "1.00"):
        words = "< 0.01" if probability < 0.5 else "> 0.99"
    return words, threshold_words


def patient_words(person_name: str) -> str:
    """A DICOM person name as people write it; other alphabets follow in brackets (PS3.5 6.2.1).

    >>> patient_words("Yamada^Tarou=山田^太郎"), patient_words("DOE^JANE^^DR")
    ('Yamada, Tarou (山田 太郎)', 'DOE, JANE, DR')
    """
    alphabetic, *others = person_name.split("=")
    family, *given = [part.strip() for part in alphabetic.split("^")]
    names = [part for part in (family, " ".join(filter(None, given[:2])), *given[2:]) if part]
    # The third group is how it sounds, which helps nobody to tell two patients apart.
    ideographic = " ".join(filter(None, others[0].split("^"))) if others else ""
    if not names:
        return ideographic or "no name given"
    return ", ".join(names) + (f" ({ideographic})" if ideographic else "")


def age_words(age: timedelta) -> str:
    """How long ago, in one or two plain units.

    >>> age_words(timedelta(seconds=200)), age_words(timedelta(hours=2, minutes=5))
    ('3 min ago', '2 h 5 min ago')
    """
    seconds = int(age.total_seconds())
    if seconds < 5:
        return "just now"
    if seconds < 60:
        return f"{seconds} s ago"
    if seconds < 3600:
        return f"{seconds // 60} min ago"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min ago"
    days = seconds // 86400
    return f"{days} day ago" if days == 1 else f"{days} days ago"


def duration_words(duration: timedelta) -> str:
    """How long something took.

    >>> duration_words(timedelta(seconds=2.34)), duration_words(timedelta(seconds=65))
    ('2.3 s', '1 min 5 s')
    """
    seconds = max(duration.total_seconds(), 0.0)
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _same(first: float, second: float, decimals: int) -> bool:
    return f"{first:.{decimals}f}" == f"{second:.{decimals}f}"
