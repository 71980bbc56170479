"""Who makes a request, and what they may do."""

from dataclasses import dataclass

ADMIN, PROMOTER = "admin", "promoter"
ACTS = (ADMIN, "contributor", "trainer", "reviewer", PROMOTER)
"""Roles that allow an act. Every other role is the name of a target, whose predictions it allows to see."""


@dataclass(frozen=True)
class Caller:
    """Who makes a request, and what they may do.

    Attributes:
        id: of the user.
        name: of the user.
        roles: those of the user, or of the key.
        via: `token`, `key` or `cookie`.
        login: the sign-in that a token or cookie belongs to.
        address: of the caller's machine.
    """

    id: int
    name: str
    roles: frozenset[str]
    via: str
    login: str = ""
    address: str = ""

    def may(self, role: str) -> bool:
        """True if the caller has a role; an administrator has all."""
        return role in self.roles or ADMIN in self.roles

    def may_see(self, target: str) -> bool:
        """True if the caller has the role of a target; one that is called like an act is for administrators only."""
        return ADMIN in self.roles or (target in self.roles and target not in ACTS)


COMMAND_LINE = Caller(0, "command line", frozenset({ADMIN}), "command line")
"""Who may open the database may do everything."""
