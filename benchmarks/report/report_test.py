# SPDX-License-Identifier: Apache-2.0
"""The page must be whole, open offline and hide nobody who is missing."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree

REPORT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "report")

RESULT = {
    "machine": {"cpus": 2, "kernel": "6.1", "compiler": "g++ <12>", "date": "d"},
    "rows": [
        {
            "name": "lock/free",
            "unit": "ns",
            "better": "lower",
            "ours": 6.0,
            "ours_min": 5.0,
            "ours_max": 7.0,
            "limit": 4.0,
            "limit_name": "exchange",
            "peers": {"slow & safe": 400.0},
            "missing": {"absent": "its package is not installed"},
            "goals": [{"goal": "<= 1.35 x limit", "met": False}],
            "samples": {"ours": [5.0, 6.0, 7.0]},
        },
        {
            "name": "pool/gone",
            "unit": None,
            "better": None,
            "ours": None,
            "ours_min": None,
            "ours_max": None,
            "limit": None,
            "limit_name": None,
            "peers": {},
            "missing": {"row": "it could not be built"},
        },
    ],
}


def page(*arguments):
    return subprocess.run(
        [sys.executable, REPORT, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ).stdout


class ReportTest(unittest.TestCase):
    def setUp(self):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(RESULT, file)
            file.flush()
            self.page = page(file.name)
        start = self.page.index("<svg")
        end = self.page.index("</svg>") + len("</svg>")
        self.plot = ElementTree.fromstring(self.page[start:end])

    def test_best_stands_on_top(self):
        names = [t.text for t in self.plot.iter("text") if t.get("text-anchor") == "end"]
        self.assertEqual(names, ["limit: exchange", "ours", "slow & safe"])

    def test_bars_are_in_scale(self):
        limit, ours, peer = (float(r.get("width")) for r in self.plot.iter("rect"))
        # Logarithmic: 4 to 400 is two decades, whatever the scale begins with.
        decade = (peer - limit) / 2
        self.assertAlmostEqual((ours - limit) / decade, 0.176, places=2)

    def test_names_who_is_missing_and_why(self):
        self.assertIn("absent not measured: its package is not installed", self.page)
        self.assertIn("row not measured: it could not be built", self.page)

    def test_says_that_a_goal_is_not_met(self):
        self.assertIn("not met", self.page)

    def test_fetches_nothing_and_escapes_what_it_quotes(self):
        self.assertNotIn("http", self.page)
        self.assertNotIn("<script", self.page)
        self.assertIn("g++ &lt;12&gt;", self.page)

    def test_without_a_file_it_explains_itself(self):
        end = subprocess.run(
            [sys.executable, REPORT], check=False, capture_output=True
        )
        self.assertEqual(end.returncode, 2)
        self.assertIn(b"Usage", end.stderr)


if __name__ == "__main__":
    unittest.main()
