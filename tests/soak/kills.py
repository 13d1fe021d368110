"""How the lives of a trial end, one after another."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.soak.killed_at import START_POINTS, STUDY_POINTS, TROUBLE_POINTS, Point


@dataclass(frozen=True, slots=True)
class Kill:
    """How one life ends: at a point of the code, or after some seconds from outside."""

    point: Point | None = None
    passage: int = 1
    after_s: float = 0.0

    @property
    def is_chosen(self) -> bool:
        """Whether it is a passage that every study comes by, not a random one."""
        return self.point is not None and self.passage == self.point.passage


def chosen_kills() -> list[Kill]:
    """Every point once. Points of the start come after kills that leave something unfinished."""
    kills = [Kill(point, point.passage) for point in STUDY_POINTS]
    for number, point in enumerate(START_POINTS):
        kills.insert(4 * number + 4, Kill(point, point.passage))
    return kills + [Kill(point, point.passage) for point in TROUBLE_POINTS]


def random_kills(number: int, rng: random.Random) -> Iterator[Kill]:
    """Half at points on a random passage, half at a random time."""
    points = (*STUDY_POINTS, *TROUBLE_POINTS)
    for _ in range(number):
        if rng.random() < 0.5:
            point = rng.choice(points)
            yield Kill(point, point.passage + rng.randrange(6))
        else:
            yield Kill(after_s=rng.uniform(0.0, 3.0))
