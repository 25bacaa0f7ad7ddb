"""How much training a paper's results took, said beside what a run plans."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Guidance:
    """At least ``steps`` optimizer steps of ``batch`` records, according to ``source``."""

    steps: int
    batch: int
    source: str

    def beside(self, n_steps: int, n_examples: int) -> str:
        """The plan of a run and this, in one line."""
        wanted = self.steps * self.batch
        plan = f"planned {n_steps:,} steps of about {round(n_examples / n_steps):,} = {n_examples:,} records"
        line = f"{plan}; {self.source}: at least {self.steps:,} steps of {self.batch} = {wanted:,}"
        return line if n_examples >= wanted else f"{line} ({wanted / n_examples:.3g} times as many)"
