"""The benchmarks, each a ratio of two things measured side by side in this run.

python -m tests.benchmarks.run

Prints a table and writes build/bench.json: {name: {value, bar, better, holds}}.
"""

import dataclasses
import json
import pathlib

from beam_pipelines.report import aligned
from tests.benchmarks import dataset_job

OUTPUT = pathlib.Path("build/bench.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bar:
    """What a value is held against; `better` is `lower` or `higher`."""

    bar: float
    better: str

    def holds(self, value: float) -> bool:
        return value <= self.bar if self.better == "lower" else value >= self.bar


BARS = {
    "job / own pool": Bar(bar=1.10, better="lower"),
    "job / librosa pool": Bar(bar=0.75, better="lower"),
    "job start-up seconds": Bar(bar=12.0, better="lower"),
}


def main() -> None:
    measured = dataset_job.measure()
    results = {
        name: {
            "value": round(measured[name], 3),
            **dataclasses.asdict(bar),
            "holds": bar.holds(measured[name]),
        }
        for name, bar in BARS.items()
    }
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(results, indent=2) + "\n")
    rows = [("benchmark", "value", "bar", "holds")]
    for name, result in results.items():
        sign = "≤" if result["better"] == "lower" else "≥"
        holds = "yes" if result["holds"] else "NO"
        rows.append((name, f"{result['value']:.2f}", f"{sign} {result['bar']:g}", holds))
    print("\n".join(aligned(rows)))
    print(f"written: {OUTPUT}")


if __name__ == "__main__":
    main()
