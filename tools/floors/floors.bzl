# SPDX-License-Identifier: Apache-2.0

"""The floor rule: a room stands on rooms of lower floors only.

The last line of each room's BUILD file says which:

    floor(stands_on = ["os", "sync"])

It makes the test `floor_test`, which fails, target by target, where

  * a target depends on a room that `stands_on` does not name,
  * `stands_on` names a room of the same or of a higher floor,
  * `stands_on` names a room on which no target depends.

Bazel itself refuses cycles between targets; this refuses them between rooms.
Only direct dependencies are looked at: each room answers for its own. Open to
every room are //third_party, //tools and, for testonly targets, //testing.
"""

# A room is a folder at the root. Rooms without a floor stand beside the house:
# they may use all rooms, and no room may use them (//testing apart).
FLOORS = {
    "os": 0,
    "sync": 1,
    "serialize": 1,
    "shm": 2,
    "ipc": 3,
    "process": 4,
    "pool": 5,
    "supervisor": 5,
    "manager": 6,
    "distributed": 6,
}

_OPEN_TO_ALL = ["third_party", "tools"]

# The attributes of a rule through which it may depend on another.
_EDGES = ["actual", "data", "deps", "hdrs", "implementation_deps", "src", "srcs", "tests"]

def room_of(label, repository = "@"):
    """The room of a label as Bazel prints it; None if it is not of this tree.

    Args:
      label: "//os:check", "@cohort//os:check", ":check".
      repository: what this tree is called, "@" where it is the main one.
    """
    if label.startswith(":"):
        return None
    if label.startswith("@"):
        prefix, _, label = label.partition("//")
        if prefix.strip("@") != repository.strip("@"):
            return None
    elif label.startswith("//"):
        label = label[2:]
    else:
        return None  # A file of the package itself.
    return label.partition(":")[0].partition("/")[0]

def breaches(room, stands_on, targets, floors = FLOORS):
    """Returns the breaches of the floor rule as a list of sentences.

    Args:
      room: the folder.
      stands_on: the rooms it declares.
      targets: (name, testonly, rooms it depends on directly) for each target.
      floors: room to floor.
    """
    found = []
    own = floors.get(room)
    for lower in stands_on:
        if lower not in floors:
            found.append("stands_on: %r is no room with a floor" % lower)
        elif own != None and floors[lower] >= own:
            found.append("stands_on: %r (floor %d) is not below %r (floor %d)" %
                         (lower, floors[lower], room, own))
    used = {}
    for name, testonly, rooms in targets:
        for other in rooms:
            used[other] = True
            if other == room or other in _OPEN_TO_ALL or other in stands_on:
                continue
            if other == "testing" and testonly:
                continue
            found.append("//%s:%s depends on room %r, which stands_on does not name" %
                         (room, name, other))
    for lower in stands_on:
        if lower not in used:
            found.append("stands_on: %r is named, but no target depends on it" % lower)
    return found

def _verdict_impl(ctx):
    script = ctx.actions.declare_file(ctx.label.name)
    lines = ["#!/bin/sh"] + ["echo '%s'" % b.replace("'", "\"") for b in ctx.attr.breaches]
    lines.append("exit %d" % (1 if ctx.attr.breaches else 0))
    ctx.actions.write(script, "\n".join(lines) + "\n", is_executable = True)
    return [DefaultInfo(executable = script)]

verdict_test = rule(
    implementation = _verdict_impl,
    doc = "Prints the given breaches and fails if there are any.",
    attrs = {"breaches": attr.string_list()},
    test = True,
)

def _labels(value):
    # A select() prints its labels, and Bazel offers no other way to see them.
    if type(value) == "list":
        return value
    if type(value) == "string":
        return [value]
    return [
        part
        for part in str(value).split("\"")
        if "//" in part and part != "//conditions:default"
    ]

def floor(stands_on):
    """Ends a room's BUILD file; see the head of this file.

    Args:
      stands_on: the rooms below that this one uses, by folder.
    """
    targets = []
    for name, attributes in native.existing_rules().items():
        rooms = {}
        for edge in _EDGES:
            for label in _labels(attributes.get(edge) or []):
                room = room_of(label, native.repository_name())
                if room != None:
                    rooms[room] = True
        targets.append((name, attributes.get("testonly") or attributes["kind"].endswith("_test"), rooms.keys()))
    verdict_test(
        name = "floor_test",
        size = "small",
        breaches = breaches(native.package_name().partition("/")[0], stands_on, targets),
    )
