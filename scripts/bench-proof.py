"""Verdicts of all reports of a folder of bench-proof.sh, figure by figure."""

import collections
import json
import pathlib
import sys

groups = collections.defaultdict(list)
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.json")):
    groups[path.stem.rsplit("-", 1)[0]].append(json.loads(path.read_text()))

for group, reports in groups.items():
    seconds = [report["manifest"]["wall_ns"] / 1e9 for report in reports]
    print(f"{group}: {len(reports)} runs of {min(seconds):.0f} to {max(seconds):.0f} s")
    verdicts, ratios = collections.defaultdict(collections.Counter), collections.defaultdict(list)
    for report in reports:
        for found in report["comparisons"]:
            verdict = found["verdict"]
            name = verdict["outcome"] + verdict.get("side", "") + " ".join(verdict.get("codes", []))
            verdicts[found["metric"]][f"{name} (grade {(found['grade'] or {}).get('grade')})"] += 1
            interval = (found["ratio"] or {}).get("interval")
            if interval:
                ratio = found["ratio"]["time_ratio"]
                ratios[found["metric"]].append(f"{1 / ratio:.3f} [{1 / interval['high']:.3f}, {1 / interval['low']:.3f}]")
    for metric, counts in verdicts.items():
        print(f"  {metric}: {', '.join(f'{n} {name}' for name, n in counts.most_common())}")
        print(f"    speed A / B: {'; '.join(ratios[metric])}")
