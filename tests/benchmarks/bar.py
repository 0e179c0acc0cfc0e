"""What the value of a benchmark is held against."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bar:
    """`better` is `lower` or `higher`: than the bar, or as good."""

    bar: float
    better: str

    def holds(self, value: float) -> bool:
        return value <= self.bar if self.better == "lower" else value >= self.bar
