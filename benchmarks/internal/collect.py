#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the programs of rows and makes one table and one JSON of what they say.

Usage: collect.py [--quick] [--json FILE] [--compiler NAME] [--timeout SECONDS]
                  --programs FOLDER [NAME-PREFIX ...]
       collect.py --list [NAME-PREFIX ...]

The second prints which programs have the rows. `tools/bench` builds the programs and calls this. FOLDER holds them, in
`FOLDER/rows` and `FOLDER/peers`. A program is called once per row. It says whom
it measures before it does, so that one who hangs or dies is left out with the
reason, and the row is played again without them. Google Benchmark programs in
`FOLDER/alone` are run afterwards.
"""

import argparse
import datetime
import json
import os
import platform
import re
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time

# Which rows a program has, so that one that was not built is missed by name.
PROGRAMS = {
    "mutex_rows": ["mutex/uncontended", "mutex/contended_2p"],
    "recursive_mutex_rows": ["recursive_mutex/uncontended"],
    "shared_mutex_rows": [
        "shared_mutex/read_uncontended",
        "shared_mutex/write_uncontended",
    ],
    "semaphore_rows": [
        "semaphore/uncontended",
        "counting_semaphore/uncontended",
        "counting_semaphore/pingpong",
    ],
    "condition_variable_rows": [
        "condition_variable/handoff",
        "condition_variable/handoff_hot",
    ],
    "event_rows": ["event/set_clear", "event/is_set"],
    "barrier_rows": ["barrier/round_2p"],
    "latch_rows": ["latch/wait_open"],
    "once_rows": ["once/done"],
    "arena_rows": ["arena/block"],
    "region_rows": ["region/create_4k", "region/named_4k"],
    "shared_value_rows": ["shared_value/increment", "shared_value/atomic"],
    "queue_rows": ["queue/stream_64_1p1c", "queue/pingpong_64"],
    "process_rows": ["process/fork", "process/spawn"],
    "serialize_rows": ["serialize/map_1k", "serialize/pod_64"],
    "pool_rows": [
        "pool/apply",
        "pool/submit",
        "pool/map_auto",
        "pool/map_chunk1",
    ],
}
ATTEMPTS = 4  # A row is played again for so many players that hang or die.


class Lines:
    """Lines of a program's output, until it ends or says nothing for long."""

    def __init__(self, process, patience):
        self.descriptor = process.stdout.fileno()
        self.patience = patience
        self.rest = b""
        self.timed_out = False

    def __iter__(self):
        while True:
            ready, _, _ = select.select([self.descriptor], [], [], self.patience)
            if not ready:
                self.timed_out = True
                return
            more = os.read(self.descriptor, 65536)
            if not more:
                return
            *lines, self.rest = (self.rest + more).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace")


def kill_group(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def how_it_ended(code):
    if code < 0:
        return "it was killed by " + signal.Signals(-code).name
    return f"it ended with exit status {code}"


def play(path, name, repetitions, patience, environment):
    """Plays one row. Returns its description, its samples and who is missing."""
    description, samples, missing = None, {}, {}
    for _ in range(ATTEMPTS):
        samples = {}
        current, done = None, False
        command = [path, f"--row={name}", f"--repetitions={repetitions}"]
        command += [f"--skip={player}" for player in missing]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        lines = Lines(process, patience)
        for line in lines:
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if not isinstance(said, dict):
                continue
            if "row" in said:
                description = said
            elif "measuring" in said:
                current = said["measuring"]
            elif "missing" in said:
                missing[said["missing"]] = said["why"]
            elif "sample" in said:
                samples.setdefault(said["sample"], []).append(said["figure"])
            elif "done" in said:
                done = True
        if lines.timed_out:
            ended = f"it gave no figure within {patience:g} s"
        else:
            try:
                ended = how_it_ended(process.wait(timeout=5))
            except subprocess.TimeoutExpired:
                ended = "it did not end"
        kill_group(process)  # Whatever it left behind.
        if done:
            break
        if current is None or current in missing:
            return description, {}, {"row": f"{os.path.basename(path)}: {ended}"}
        missing[current] = ended
        samples.pop(current, None)
    for player in missing:
        samples.pop(player, None)
    return description, samples, missing


def evaluate(goals, figures):
    """Whether each goal is met: (sentence, True, False or None)."""
    verdicts = []
    for goal in goals:
        at_most = "at_most" in goal
        factor = goal["at_most"] if at_most else goal["at_least"]
        against = goal["against"]
        sentence = ("<= " if at_most else ">= ") + (
            f"{factor:g} x {against}" if against else f"{factor:g}"
        )
        ours = figures.get("ours")
        reference = figures.get(against) if against else 1
        if ours is None or reference is None:
            verdicts.append((sentence, None))
        else:
            bound = factor * reference
            verdicts.append((sentence, ours <= bound if at_most else ours >= bound))
    return verdicts


def row_of(name, description, samples, missing):
    """A row as the JSON has it; what was not measured says why."""
    row = {"name": name}
    if description is None:
        empty = "unit better ours ours_min ours_max limit limit_name"
        row.update(dict.fromkeys(empty.split()), peers={}, missing=missing)
        return row
    figures = {who: statistics.median(seen) for who, seen in samples.items()}
    ours = samples.get("ours", [])
    verdicts = evaluate(description["goals"], figures)
    goal_met = True if verdicts else None
    if any(met is None for _, met in verdicts):
        goal_met = None
    if any(met is False for _, met in verdicts):
        goal_met = False
    row.update(
        unit=description["unit"],
        better=description["better"],
        ours=figures.get("ours"),
        ours_min=min(ours, default=None),
        ours_max=max(ours, default=None),
        limit=figures.get("limit"),
        limit_name=description["limit_name"],
        peers={p: figures[p] for p in description["peers"] if p in figures},
        missing=missing,
        goals=[{"goal": text, "met": met} for text, met in verdicts],
        goal_met=goal_met,
        samples=samples,
    )
    return row


def figure_text(value, unit):
    """Three significant digits and a scale."""
    if value is None:
        return "-"
    if unit == "ns":
        scales = [(1e9, "s"), (1e6, "ms"), (1e3, "us"), (1, "ns")]
    else:
        tail = "/s" if unit == "1/s" else unit
        scales = [(1e9, "G" + tail), (1e6, "M" + tail), (1e3, "k" + tail), (1, tail)]
    for scale, suffix in scales:
        if abs(value) >= scale or scale == 1:
            return f"{value / scale:.3g} {suffix.strip()}"
    return f"{value:.3g}"


def ratio_text(value, reference):
    if value is None or not reference:
        return "-"
    return f"{value / reference:.3g}x"


def print_row(row):
    unit = row["unit"]
    if unit is None:
        print(f"{row['name']}\n    not measured: {row['missing']['row']}")
        return
    lower = row["better"] == "lower"
    ours, limit = row["ours"], row["limit"]
    print(
        f"{row['name'] + ', ' + row['better'] + ' is better':<48} "
        f"{'median':>12} {'of limit':>9} {'ours wins by':>13}"
    )
    lines = [("ours", ours), (f"limit: {row['limit_name']}", limit)]
    for who, figure in lines + list(row["peers"].items()):
        if figure is None:
            continue
        text = f"    {who:<44} {figure_text(figure, unit):>12}"
        text += f" {ratio_text(figure, limit):>9}"
        if who == "ours":
            low = figure_text(row["ours_min"], unit)
            high = figure_text(row["ours_max"], unit)
            text += f"{'':15}({low} .. {high})"
        elif lower:
            text += f" {ratio_text(figure, ours):>13}"
        else:
            text += f" {ratio_text(ours, figure):>13}"
        print(text)
    for who, why in row["missing"].items():
        print(f"    {who:<44} not measured: {why}")
    for goal in row["goals"]:
        verdict = {True: "met", False: "NOT met", None: "unknown"}[goal["met"]]
        print(f"    goal: ours {goal['goal']}: {verdict}")


def run_alone(folder, quick):
    """Runs the Google Benchmark programs of a folder; returns what they say."""
    found = []
    for program in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        print(f"\n{program}", flush=True)
        with tempfile.NamedTemporaryFile(suffix=".json") as out:
            try:
                end = subprocess.run(
                    [
                        os.path.join(folder, program),
                        f"--benchmark_min_time={0.1 if quick else 0.5}",
                        f"--benchmark_out={out.name}",
                        "--benchmark_out_format=json",
                    ],
                    check=False,
                    stdin=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=120,
                )
                figures = json.load(out).get("benchmarks", [])
                why = None if end.returncode == 0 else how_it_ended(end.returncode)
            except (subprocess.TimeoutExpired, ValueError) as error:
                figures, why = [], str(error)
        if why is not None:
            print(f"    not measured: {why}")
        found.append({"program": program, "benchmarks": figures, "missing": why})
    return found


def processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
            found = re.search(r"^model name\s*:\s*(.*)$", cpuinfo.read(), re.M)
            return found.group(1) if found else platform.machine()
    except OSError:
        return platform.machine()


def machine(compiler):
    cpus = len(os.sched_getaffinity(0))
    return {
        "cpus": cpus,
        "cpu": processor(),
        "kernel": platform.release(),
        "compiler": compiler,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(
            timespec="seconds"
        ),
        "load_before": round(os.getloadavg()[0], 2),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--compiler", default="unknown")
    parser.add_argument("--timeout", type=float, default=30)
    parser.add_argument("--programs", default=".")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("prefixes", nargs="*")
    options = parser.parse_args()
    repetitions = 3 if options.quick else 5
    environment = dict(
        os.environ, COHORT_BENCHMARK_PEERS=os.path.join(options.programs, "peers")
    )

    wanted = [
        (program, name)
        for program, names in PROGRAMS.items()
        for name in names
        if not options.prefixes or name.startswith(tuple(options.prefixes))
    ]
    if not wanted:
        names = " ".join(name for rows in PROGRAMS.values() for name in rows)
        print(f"bench: no row begins so; the rows are {names}", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(dict.fromkeys(program for program, _ in wanted)))
        return 0

    report = {"machine": machine(options.compiler), "rows": []}
    about = report["machine"]
    print(
        f"{about['cpus']} x {about['cpu']}, Linux {about['kernel']}, "
        f"{about['compiler']}, {about['date']}"
    )
    if about["load_before"] > 0.5 * about["cpus"]:
        print(
            f"The load of this machine is {about['load_before']}: others work "
            "here, and the figures suffer."
        )
    begin = time.monotonic()
    for program, name in wanted:
        path = os.path.join(options.programs, "rows", program)
        if not os.path.exists(path):
            row = row_of(name, None, {}, {"row": f"{program} could not be built"})
        else:
            row = row_of(
                name,
                *play(path, name, repetitions, options.timeout, environment),
            )
        report["rows"].append(row)
        print()
        print_row(row)
        sys.stdout.flush()
    alone = run_alone(os.path.join(options.programs, "alone"), options.quick)
    if alone:
        report["alone"] = alone
    measured = sum(row["ours"] is not None for row in report["rows"])
    print(
        f"\n{measured} of {len(report['rows'])} rows measured in "
        f"{time.monotonic() - begin:.0f} s"
    )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as out:
            json.dump(report, out, indent=1)
            out.write("\n")
    return 0 if measured else 1


if __name__ == "__main__":
    sys.exit(main())
