# SPDX-License-Identifier: Apache-2.0

"""Fuzz targets: code that takes bytes from elsewhere is fed with made-up ones.

    load("//testing/fuzz:fuzz.bzl", "fuzz_test")

    fuzz_test(
        name = "codec_fuzz_test",
        src = "codec_fuzz.cc",
        deps = [":codec"],
    )

with the source

    extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
      (void)cohort::Decode<Job>({reinterpret_cast<const char*>(data), size});
      return 0;
    }

An ordinary build makes a test of it that runs once over the empty input, the
files of testdata/corpus/codec_fuzz beside the source, and each of them cut
short. `tools/fuzz` builds it with --config=fuzz and lets the compiler's fuzzer
look for more inputs, beginning with those files.
"""

load("@rules_cc//cc:defs.bzl", "cc_test")

def fuzz_test(name, src, deps):
    """Declares a fuzz target.

    Args:
      name: NAME_fuzz_test.
      src: its source, NAME_fuzz.cc, with a LLVMFuzzerTestOneInput().
      deps: what the source includes.
    """
    corpus = "testdata/corpus/" + name[:-len("_test")]
    cc_test(
        name = name,
        size = "small",
        srcs = [src],
        args = ["%s/%s" % (native.package_name(), corpus)],
        data = native.glob([corpus + "/*"]),
        tags = ["fuzz", "no_tsan"],
        deps = deps + ["//testing/fuzz:main"],
    )
