"""What people and programs may do."""

from enum import StrEnum


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
