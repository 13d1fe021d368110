"""What people and programs may do, and how they are called."""

from enum import StrEnum

LONGEST_NAME = 80


class Role(StrEnum):
    """Who somebody is to us; each may do everything that the one before it may. The values are stored.

    VIEWER sees. READER also acknowledges, comments and sends reports again. ADMIN also manages accounts.

    >>> Role.ADMIN.includes(Role.READER), Role.VIEWER.includes(Role.READER)
    (True, False)
    """

    VIEWER = "viewer"
    READER = "reader"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        """Whether this role may do what the other one may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


def clean_name(name: str) -> str:
    """A name as it is kept: one line, single spaces, printable. Raises ValueError where nothing is left.

    >>> clean_name("  Dr\\n Ada  Lovelace ")
    'Dr Ada Lovelace'
    """
    cleaned = "".join(letter for letter in " ".join(name.split()) if letter.isprintable()).strip()
    if not cleaned:
        raise ValueError("a name is needed")
    return cleaned
