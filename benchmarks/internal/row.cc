// SPDX-License-Identifier: Apache-2.0

#include "cohort/benchmarks/internal/row.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "cohort/benchmarks/internal/stage.h"

namespace cohort_benchmarks {
namespace {

std::string Quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += ' ';
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string Number(double x) {
  char text[32];
  snprintf(text, sizeof(text), "%.6g", x);
  return text;
}

// One whole line per event, at once: a reader sees how far we came.
void Say(const std::string& json) {
  printf("{%s}\n", json.c_str());
  fflush(stdout);
}

std::optional<std::string> ValueOf(std::string_view flag,
                                   std::string_view argument) {
  if (argument.substr(0, flag.size()) != flag) return std::nullopt;
  return std::string(argument.substr(flag.size()));
}

struct Entry {
  std::string name;
  Player play;
};

void Describe(const std::string& name, const Row& row) {
  std::string goals;
  for (const Goal& goal : row.goals) {
    absl::StrAppend(
        &goals, goals.empty() ? "" : ", ", "{",
        goal.at_most ? "\"at_most\": " : "\"at_least\": ", Number(goal.factor),
        ", \"against\": ", Quoted(goal.against), "}");
  }
  std::string peers;
  for (const auto& [peer, play] : row.peers) {
    absl::StrAppend(&peers, peers.empty() ? "" : ", ", Quoted(peer));
  }
  Say(absl::StrCat("\"row\": ", Quoted(name), ", \"unit\": ", Quoted(row.unit),
                   ", \"better\": ",
                   row.better == Better::kLower ? "\"lower\"" : "\"higher\"",
                   ", \"limit_name\": ", Quoted(row.limit_name),
                   ", \"peers\": [", peers, "], \"goals\": [", goals, "]"));
}

void Measure(const std::string& name, const Row& row, int repetitions,
             const std::vector<std::string>& skipped) {
  Describe(name, row);
  std::vector<Entry> entries = {{"ours", row.ours}, {"limit", row.limit}};
  for (const auto& [peer, play] : row.peers) entries.push_back({peer, play});
  // Round 0 warms up caches, pages and pools and is thrown away.
  for (int round = 0; round <= repetitions; ++round) {
    for (Entry& entry : entries) {
      if (entry.play == nullptr) continue;
      if (std::count(skipped.begin(), skipped.end(), entry.name) > 0) continue;
      Say(absl::StrCat("\"measuring\": ", Quoted(entry.name)));
      const absl::StatusOr<double> figure = entry.play();
      Unpin();
      if (!figure.ok()) {
        Say(absl::StrCat("\"missing\": ", Quoted(entry.name),
                         ", \"why\": ", Quoted(figure.status().ToString())));
        entry.play = nullptr;
      } else if (round > 0) {
        Say(absl::StrCat("\"sample\": ", Quoted(entry.name),
                         ", \"figure\": ", Number(*figure)));
      }
    }
  }
  Say("\"done\": true");
}

}  // namespace

Goal AtMost(double factor, std::string against) {
  return {true, factor, std::move(against)};
}

Goal AtLeast(double factor, std::string against) {
  return {false, factor, std::move(against)};
}

int RunRows(int argc, char** argv, const std::vector<NamedRow>& rows) {
  int repetitions = 5;
  bool list = false;
  std::vector<std::string> wanted;
  std::vector<std::string> skipped;
  for (int i = 1; i < argc; ++i) {
    if (const auto name = ValueOf("--row=", argv[i])) {
      wanted.push_back(*name);
    } else if (const auto player = ValueOf("--skip=", argv[i])) {
      skipped.push_back(*player);
    } else if (const auto count = ValueOf("--repetitions=", argv[i])) {
      repetitions = std::max(1, atoi(count->c_str()));
    } else if (std::string_view(argv[i]) == "--list") {
      list = true;
    } else {
      fprintf(stderr,
              "usage: %s [--list] [--row=NAME] [--repetitions=N] "
              "[--skip=PLAYER]\n",
              argv[0]);
      return 2;
    }
  }
  for (const std::string& name : wanted) {
    const auto is = [&](const NamedRow& row) { return row.name == name; };
    if (std::none_of(rows.begin(), rows.end(), is)) {
      fprintf(stderr, "%s: no row %s here\n", argv[0], name.c_str());
      return 2;
    }
  }
  for (const NamedRow& row : rows) {
    if (list) {
      printf("%s\n", row.name.c_str());
    } else if (wanted.empty() ||
               std::count(wanted.begin(), wanted.end(), row.name) > 0) {
      Measure(row.name, row.make(), repetitions, skipped);
    }
  }
  return 0;
}

}  // namespace cohort_benchmarks
