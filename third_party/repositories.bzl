# SPDX-License-Identifier: Apache-2.0

"""The repositories that Cohort needs in WORKSPACE mode.

A workspace that depends on Cohort calls it after it has named its own:

    local_repository(name = "cohort", path = "...")
    load("@cohort//third_party:repositories.bzl", "cohort_repositories")
    cohort_repositories()

A repository that already has one of these names is left as it is.
"""

def _system_library_impl(ctx):
    script = ctx.path(Label("//third_party:system_library.sh"))
    ctx.path(Label("//third_party:system_libraries.txt"))  # Its input.
    made = ctx.execute([script, ctx.attr.library, "."])
    if made.return_code != 0:
        fail(made.stderr)

_system_library = repository_rule(
    implementation = _system_library_impl,
    doc = "A library of the system as cc_library targets.",
    attrs = {"library": attr.string(mandatory = True)},
    configure = True,
    local = True,
)

def _stub_impl(ctx):
    ctx.file("WORKSPACE", "")
    for path, content in ctx.attr.files.items():
        ctx.file(path, content)

_stub = repository_rule(
    implementation = _stub_impl,
    doc = "Stands in for a repository that Bazel would download.",
    attrs = {"files": attr.string_dict(mandatory = True)},
)

_RULES_CC = """
cc_binary = native.cc_binary
cc_import = native.cc_import
cc_library = native.cc_library
cc_test = native.cc_test
cc_toolchain = native.cc_toolchain
cc_toolchain_suite = native.cc_toolchain_suite
cc_proto_library = native.cc_proto_library
fdo_prefetch_hints = native.fdo_prefetch_hints
fdo_profile = native.fdo_profile
objc_import = native.objc_import
objc_library = native.objc_library
"""

_COVERAGE = """
filegroup(
    name = "coverage_report_generator",
    visibility = ["//visibility:public"],
)
"""

def _once(rule, name, **kwargs):
    if not native.existing_rule(name):
        rule(name = name, **kwargs)

def cohort_repositories():
    """Declares each repository that is not declared yet."""

    # Bazel itself asks for these three.
    _once(_stub, "rules_cc", files = {"BUILD": "", "cc/BUILD": "", "cc/defs.bzl": _RULES_CC})
    _once(_stub, "remote_coverage_tools", files = {"BUILD": _COVERAGE})
    _once(native.local_repository, "rules_java", path = "/usr/share/bazel/rules/java")

    # Boost.Interprocess and TBB are peers of //benchmarks/peers, Boost.Container
    # is for tests and examples; nothing else needs them.
    for library in [
        "boost.container",
        "boost.interprocess",
        "cereal",
        "com_github_google_benchmark",
        "com_google_absl",
        "com_google_googletest",
        "onetbb",
    ]:
        _once(_system_library, library, library = library)
