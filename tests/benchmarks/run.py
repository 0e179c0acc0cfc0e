"""The benchmarks: ratios of two things measured side by side in one run, and limits.

python -m tests.benchmarks.run [NAME …], of job, long_songs, audio_features, scale, million_rows,
    training, growing, streaming, step_costs, processor_time, following, serving

Prints a table and writes build/bench.json: {name: {value, bar, better, holds}}. Of those that are
named, or of all; named ones replace their own entries in it and leave the others.
"""

import dataclasses
import importlib
import json
import pathlib
import sys

from common.tables import aligned

OUTPUT = pathlib.Path("build/bench.json")
# Each module has `BARS` and `measure()`, which gives their values. They are imported as they are
# needed, since the processes of a pool import this one again and should not wait for TensorFlow.
BENCHMARKS = {
    "job": "dataset_job",
    "long_songs": "long_songs",
    "audio_features": "audio_features",
    "scale": "scale",
    "million_rows": "million_rows",
    "training": "training",
    "growing": "growing",
    "streaming": "streaming",
    "step_costs": "step_costs",
    "processor_time": "processor_time",
    "following": "following",
    "serving": "serving",
}


def main(names: list[str]) -> None:
    if unknown := set(names) - BENCHMARKS.keys():
        sys.exit(f"{', '.join(sorted(unknown))}: none of {', '.join(BENCHMARKS)}")
    results = json.loads(OUTPUT.read_text()) if names and OUTPUT.exists() else {}
    for name in names or BENCHMARKS:
        benchmark = importlib.import_module(f"tests.benchmarks.{BENCHMARKS[name]}")
        measured = benchmark.measure()
        for value_name, bar in benchmark.BARS.items():
            if value_name not in measured:  # for want of something that this machine has not
                continue
            results[value_name] = {
                "value": round(measured[value_name], 3),
                **dataclasses.asdict(bar),
                "holds": bar.holds(measured[value_name]),
            }
        # After each, since all of them take half an hour.
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
    main(sys.argv[1:])
