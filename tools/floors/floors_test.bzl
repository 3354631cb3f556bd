# SPDX-License-Identifier: Apache-2.0

"""The floor rule must itself turn red where it should, and only there."""

load(":floors.bzl", "breaches", "room_of", "verdict_test")

_FLOORS = {"cellar": 0, "hall": 1, "library": 1, "attic": 2}

def _differs(what, got, want):
    return [] if got == want else ["%s: got %r, want %r" % (what, got, want)]

def _hall(stands_on, target, testonly = False):
    return breaches("hall", stands_on, [("door", testonly, target)], _FLOORS)

def floors_test(name):
    """A test of floors.bzl.

    Args:
      name: of the test.
    """
    found = []
    for stands_on, target, testonly in [
        ([], [], False),
        ([], ["hall", "third_party", "tools"], False),
        (["cellar"], ["cellar", "hall"], False),
        ([], ["testing"], True),
    ]:
        found += _differs("good", _hall(stands_on, target, testonly), [])
    for stands_on, target, want in [
        ([], ["cellar"], "//hall:door depends on room \"cellar\", which stands_on does not name"),
        ([], ["testing"], "//hall:door depends on room \"testing\", which stands_on does not name"),
        ([], ["examples"], "//hall:door depends on room \"examples\", which stands_on does not name"),
        (["library"], ["library"], "stands_on: \"library\" (floor 1) is not below \"hall\" (floor 1)"),
        (["attic"], ["attic"], "stands_on: \"attic\" (floor 2) is not below \"hall\" (floor 1)"),
        (["hall"], ["hall"], "stands_on: \"hall\" (floor 1) is not below \"hall\" (floor 1)"),
        (["shed"], ["shed"], "stands_on: \"shed\" is no room with a floor"),
        (["cellar"], [], "stands_on: \"cellar\" is named, but no target depends on it"),
    ]:
        found += _differs("bad", _hall(stands_on, target), [want])
    for label, repository, want in [
        (":door", "@", None),
        ("door.cc", "@", None),
        ("//cellar:rack", "@", "cellar"),
        ("//cellar", "@", "cellar"),
        ("//cellar/wine:rack", "@", "cellar"),
        ("@@//cellar:rack", "@", "cellar"),
        ("@house//cellar:rack", "@house", "cellar"),
        ("@@house~//cellar:rack", "@house~", "cellar"),
        ("@elsewhere//cellar:rack", "@", None),
    ]:
        found += _differs(label, room_of(label, repository), want)
    verdict_test(name = name, size = "small", breaches = found)
