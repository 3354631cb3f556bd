# SPDX-License-Identifier: Apache-2.0

"""Tests that the compiler refuses a program, and says why in one sentence.

    load("//tools/compile_fail:compile_fail.bzl", "compile_fail_test")

    compile_fail_test(
        name = "start_compile_test",
        src = "start_compile_test.cc",
        expect = {
            "CAPTURES": "A lambda that captures cannot be sent to a process",
            "POINTER": "A pointer means nothing in another process",
        },
        deps = [":start"],
    )

with the source

    #include "cohort/process/start.h"

    void Use(int local) {
      cohort::Start([] {});  // What is right stays in view.
    #ifdef CAPTURES
      cohort::Start([local] {});
    #endif
    #ifdef POINTER
      cohort::Start([](int*) {}, &local);
    #endif
    }

The source is compiled once as it is, and must pass: what fails below is then
not a missing header. It is compiled once more for each macro, which alone is
defined, and must fail there with an error line that contains the sentence.
`expect = "sentence"` is short for `expect = {"COMPILE_FAIL": "sentence"}`.

The compiler, its flags and include folders are those of the configuration, so
the test holds for GCC and, with --config=clang, for Clang. Nothing is linked.
"""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")

# Runs the compiler and keeps its exit status and output; succeeds always.
_COMPILE = """
out=$1
shift
status=0
"$@" > "$out.text" 2>&1 || status=$?
{ echo "$status"; cat "$out.text"; } > "$out"
rm -f "$out.text"
"""

_CHECK = """#!/bin/bash
# As it is, it must compile; with each macro, it must not, and say why.
failures=0
check() {  # MACRO LOG SENTENCE
  local macro=$1 log=$2 sentence=$3
  if [[ -z $macro ]]; then
    [[ $(head -n 1 "$log") != 0 ]] || return 0
    echo "FAILED: without any macro, the source should compile, but:"
  elif [[ $(head -n 1 "$log") == 0 ]]; then
    echo "FAILED: with $macro, the source should not compile, but does"
  elif ! grep -F 'error: ' "$log" | grep -q -F -e "$sentence"; then
    echo "FAILED: with $macro, no error says: $sentence"
  else
    echo "ok: with $macro, refused: $sentence"
    return 0
  fi
  tail -n +2 "$log" | head -n 60
  failures=$((failures + 1))
}
"""

def _quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"

def _compile(ctx, toolchain, features, compilation, macro):
    """Compiles the source with one macro defined; returns what came of it."""
    log = ctx.actions.declare_file("%s.%s.log" % (ctx.label.name, macro or "none"))
    variables = cc_common.create_compile_variables(
        feature_configuration = features,
        cc_toolchain = toolchain,
        source_file = ctx.file.src.path,
        user_compile_flags = ctx.fragments.cpp.copts + ctx.fragments.cpp.cxxopts,
        include_directories = compilation.includes,
        quote_include_directories = compilation.quote_includes,
        system_include_directories = compilation.system_includes,
        preprocessor_defines = depset(
            [macro] if macro else [],
            transitive = [compilation.defines],
        ),
    )
    action = "c++-compile"
    compiler = cc_common.get_tool_for_action(
        feature_configuration = features,
        action_name = action,
    )
    flags = cc_common.get_memory_inefficient_command_line(
        feature_configuration = features,
        action_name = action,
        variables = variables,
    )
    ctx.actions.run_shell(
        outputs = [log],
        inputs = depset(
            [ctx.file.src],
            transitive = [compilation.headers, toolchain.all_files],
        ),
        command = _COMPILE,
        arguments = [log.path, compiler] + flags + [
            # Later flags win: no optimiser, no colours, no object file.
            "-O0",
            "-U_FORTIFY_SOURCE",
            "-Wno-error",
            "-fdiagnostics-color=never",
            "-S",
            "-o",
            "/dev/null",
        ],
        env = cc_common.get_environment_variables(
            feature_configuration = features,
            action_name = action,
            variables = variables,
        ),
        mnemonic = "CompileFail",
        progress_message = "Compiling %s with %s" % (ctx.file.src.short_path, macro or "no macro"),
        use_default_shell_env = True,
    )
    return log

def _compile_fail_test_impl(ctx):
    toolchain = find_cpp_toolchain(ctx)
    features = cc_common.configure_features(
        ctx = ctx,
        cc_toolchain = toolchain,
        requested_features = ctx.features,
        # These belong to a cc_library's own compilation.
        unsupported_features = ctx.disabled_features + [
            "layering_check",
            "module_maps",
            "parse_headers",
        ],
    )
    compilation = cc_common.merge_cc_infos(
        cc_infos = [dep[CcInfo] for dep in ctx.attr.deps],
    ).compilation_context

    logs = []
    script = _CHECK
    for macro in [""] + sorted(ctx.attr.expect):
        log = _compile(ctx, toolchain, features, compilation, macro)
        logs.append(log)
        script += "check %s %s %s\n" % (
            _quoted(macro),
            _quoted(log.short_path),
            _quoted(ctx.attr.expect.get(macro, "")),
        )
    script += "exit $((failures > 0))\n"
    executable = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.write(executable, script, is_executable = True)
    return [DefaultInfo(executable = executable, runfiles = ctx.runfiles(logs))]

_compile_fail_test = rule(
    implementation = _compile_fail_test_impl,
    attrs = {
        "deps": attr.label_list(providers = [CcInfo]),
        "expect": attr.string_dict(mandatory = True, allow_empty = False),
        "src": attr.label(allow_single_file = [".cc"], mandatory = True),
        "_cc_toolchain": attr.label(
            default = Label("@bazel_tools//tools/cpp:current_cc_toolchain"),
        ),
    },
    fragments = ["cpp"],
    test = True,
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
)

def compile_fail_test(name, src, expect, deps = [], **kwargs):
    """Tests that `src` compiles, and is refused under each macro of `expect`.

    Args:
      name: ends in `_test`.
      src: the source file.
      expect: a sentence, or a dict of macro to sentence.
      deps: cc_library targets that the source includes.
      **kwargs: as for every test.
    """
    _compile_fail_test(
        name = name,
        src = src,
        size = kwargs.pop("size", "small"),
        expect = expect if type(expect) == "dict" else {"COMPILE_FAIL": expect},
        deps = deps,
        # The code does not run, so sanitizers have nothing to see.
        tags = kwargs.pop("tags", []) + ["no_asan", "no_tsan"],
        **kwargs
    )
