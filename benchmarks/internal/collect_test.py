# SPDX-License-Identifier: Apache-2.0
"""A player that hangs, dies or gives up costs its own figure and says why."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

COLLECT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "collect.py")

# A program of rows whose players do as their names say.
PROGRAM = """#!/usr/bin/env python3
import os, signal, sys, time
skipped = [a[7:] for a in sys.argv if a.startswith("--skip=")]
times = int([a[14:] for a in sys.argv if a.startswith("--repetitions=")][0])
say = lambda text: print("{%s}" % text, flush=True)
print("chatter that is no JSON")
say('"row": "mutex/uncontended", "unit": "ns", "better": "lower",'
    '"limit_name": "xchg", "peers": ["even", "hangs", "dies", "refuses"],'
    '"goals": [{"at_most": 1.5, "against": "limit"},'
    ' {"at_least": 2, "against": "hangs"}]')
figures = {"ours": [9, 5, 7, 30, 1], "limit": [4] * 5, "even": [2, 4] * 3}
gone = set()
for i in range(times):
    for player in ["ours", "limit", "even", "hangs", "dies", "refuses"]:
        if player in skipped or player in gone:
            continue
        say('"measuring": "%s"' % player)
        if player == "hangs":
            time.sleep(1000)
        elif player == "dies":
            os.kill(os.getpid(), signal.SIGABRT)
        elif player == "refuses":
            gone.add(player)
            say('"missing": "refuses", "why": "it is Tuesday"')
        else:
            say('"sample": "%s", "figure": %d' % (player, figures[player][i]))
say('"done": true')
"""

# The same, but nobody hangs, so that nobody has to be waited for.
PROMPT = PROGRAM.replace("time.sleep(1000)", "sys.exit(7)")


class CollectTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        os.mkdir(os.path.join(self.folder.name, "rows"))
        self.program = os.path.join(self.folder.name, "rows", "mutex_rows")
        self.json = os.path.join(self.folder.name, "out.json")

    def collect(self, program, *arguments):
        with open(self.program, "w", encoding="utf-8") as file:
            file.write(program)
        os.chmod(self.program, 0o755)
        end = subprocess.run(
            [sys.executable, COLLECT, "--programs", self.folder.name,
             "--json", self.json, "--timeout", "10", *arguments],
            check=False, stdout=subprocess.PIPE, encoding="utf-8",
        )
        with open(self.json, encoding="utf-8") as file:
            return end, {row["name"]: row for row in json.load(file)["rows"]}

    def test_medians_bounds_and_verdicts(self):
        end, rows = self.collect(PROMPT, "mutex/unc")
        self.assertEqual(end.returncode, 0)
        row = rows["mutex/uncontended"]
        self.assertEqual((row["ours"], row["ours_min"], row["ours_max"]), (7, 1, 30))
        self.assertEqual((row["limit"], row["limit_name"]), (4, "xchg"))
        self.assertEqual(row["peers"], {"even": 2})
        self.assertEqual([g["met"] for g in row["goals"]], [False, None])
        self.assertIs(row["goal_met"], False)

    def test_names_who_is_missing_and_why(self):
        _, rows = self.collect(PROGRAM, "mutex/unc")
        missing = rows["mutex/uncontended"]["missing"]
        self.assertEqual(missing["hangs"], "it gave no figure within 10 s")
        self.assertEqual(missing["dies"], "it was killed by SIGABRT")
        self.assertEqual(missing["refuses"], "it is Tuesday")

    def test_quick_means_three_repetitions(self):
        _, rows = self.collect(PROMPT, "--quick", "mutex/unc")
        samples = rows["mutex/uncontended"]["samples"]
        self.assertEqual(samples["ours"], [9, 5, 7])

    def test_a_program_that_dies_at_once_costs_its_rows_only(self):
        end, rows = self.collect("#!/bin/sh\nexit 3\n", "mutex/unc", "pool/apply")
        self.assertEqual(end.returncode, 1)
        self.assertIn("exit status 3", rows["mutex/uncontended"]["missing"]["row"])
        self.assertIn("could not be built", rows["pool/apply"]["missing"]["row"])
        self.assertIsNone(rows["pool/apply"]["ours"])

    def test_lists_the_programs_of_rows(self):
        said = subprocess.run(
            [sys.executable, COLLECT, "--list", "mutex/", "event/set_clear"],
            check=True, stdout=subprocess.PIPE, encoding="utf-8",
        ).stdout
        self.assertEqual(said.split(), ["mutex_rows", "event_rows"])

    def test_a_prefix_that_fits_no_row_is_an_error(self):
        end = subprocess.run(
            [sys.executable, COLLECT, "--programs", self.folder.name, "nonsense/"],
            check=False, capture_output=True,
        )
        self.assertEqual(end.returncode, 2)
        self.assertIn(b"mutex/uncontended", end.stderr)


if __name__ == "__main__":
    unittest.main()
