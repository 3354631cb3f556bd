#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# system_library.sh REPOSITORY FOLDER [MODULE]
#
# Writes into FOLDER a Bazel repository whose targets are libraries installed
# on this system. The lines of system_libraries.txt that begin with REPOSITORY
# say which. With MODULE, FOLDER becomes a Bazel module of that name.
# Headers need no flags (they are in /usr/include); what to link is asked from
# pkg-config, static archives being preferred: a program that loads no shared
# library of Abseil starts several times faster.

set -euo pipefail

repository=$1
folder=$2
module=${3:-}
table=$(dirname "$(readlink -f "$0")")/system_libraries.txt

die() {
  echo "$*" >&2
  exit 1
}

# Prints the link options of $1, modules and flags, as Starlark strings.
linkopts() {
  local item flags flag libdir
  [[ $1 != - ]] || return 0
  for item in ${1//,/ }; do
    flags=$item
    libdir=
    if [[ $item != -* ]]; then
      flags=$(pkg-config --static --libs "$item") || return 1
      libdir=$(pkg-config --variable=libdir "$item")
    fi
    for flag in $flags; do
      if [[ $flag == -labsl_* && -e $libdir/lib${flag#-l}.a ]]; then
        flag=-l:lib${flag#-l}.a
      fi
      printf '"%s", ' "$flag"
    done
  done
}

command -v pkg-config > /dev/null ||
  die "pkg-config is missing: apt-get install pkg-config"

mkdir -p "$folder"
: > "$folder/WORKSPACE"
if [[ -n $module ]]; then
  printf '%s\n' "module(name = \"$module\", version = \"0\")" \
    'bazel_dep(name = "rules_cc", version = "0.0.1")' > "$folder/MODULE.bazel"
fi

while read -r of package target pc debian; do
  [[ $of == "$repository" ]] || continue
  options=$(linkopts "$pc") ||
    die "pkg-config finds no $pc: apt-get install $debian"
  build=$folder/$package/BUILD.bazel
  if [[ ! -e $build ]]; then
    mkdir -p "$folder/$package"
    printf '%s\n' 'load("@rules_cc//cc:defs.bzl", "cc_library")' \
      'package(default_visibility = ["//visibility:public"])' > "$build"
  fi
  printf 'cc_library(name = "%s", linkopts = [%s])\n' "$target" "$options" \
    >> "$build"
done < "$table"
