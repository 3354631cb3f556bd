// SPDX-License-Identifier: Apache-2.0
//
// word_count: counts the words below some folders in a pool of processes; see
// --help. The parent lists the files and sends batches of them to the workers;
// it adds up what comes back in the order in which it comes.

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <iostream>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cohort/examples/chaos.h"
#include "cohort/examples/file_counter.h"
#include "cohort/examples/file_list.h"
#include "cohort/examples/include_tree.h"
#include "cohort/examples/progress.h"
#include "cohort/examples/word_counter.h"
#include "cohort/pool/future.h"
#include "cohort/pool/process_pool.h"
#include "cohort/process/init.h"

namespace cohort_examples {
namespace {

constexpr std::string_view kHelp =
    R"(word_count [FLAG...] [PATH...]: counts words in a pool of processes.

Counts the words of all text files that are, or are below, the PATHs; without
any, of the C++ compiler's own headers. A word is a run of ASCII letters,
digits, underscores and bytes above 127. A file with a NUL byte among its first
8 KiB is binary and does not count.

  --workers=N            worker processes; as many as processors by default
  --start_method=METHOD  how they start: spawn (the default) or fork
  --verify               count serially as well, in this process, and compare
  --chaos=MILLISECONDS   kill a random worker in this rhythm
  --help                 this text

Exits with 0; with 1 if something could not be read or --verify found a
difference; with 2 if the command line makes no sense.
)";

enum ExitCode { kAllWell = 0, kIncomplete = 1, kUsage = 2 };

struct Options {
  bool help = false;
  bool verify = false;
  int workers = 0;
  cohort::StartMethod start_method = cohort::StartMethod::kSpawn;
  std::optional<absl::Duration> chaos;
  std::vector<std::string> paths;
};

std::optional<int> ParseNumber(std::string_view text, int least, int most) {
  int number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stop != end || number < least || number > most) {
    return std::nullopt;
  }
  return number;
}

// What is wrong with the command line, if anything.
absl::Status ParseFlag(std::string_view flag, Options& options) {
  const size_t equals = flag.find('=');
  const std::string_view name = flag.substr(0, equals);
  const bool has_value = equals != std::string_view::npos;
  const std::string_view value = has_value ? flag.substr(equals + 1) : "";
  auto wrong = [&](std::string_view why) {
    return absl::InvalidArgumentError(std::string(flag) + ": " +
                                      std::string(why));
  };
  if (name == "--help" || name == "--verify") {
    if (has_value) return wrong("this flag takes no value");
    (name == "--help" ? options.help : options.verify) = true;
  } else if (name == "--workers") {
    const std::optional<int> workers = ParseNumber(value, 1, 1024);
    if (!workers) return wrong("--workers=N takes a number from 1 to 1024");
    options.workers = *workers;
  } else if (name == "--chaos") {
    const std::optional<int> rhythm = ParseNumber(value, 1, 86'400'000);
    if (!rhythm) return wrong("--chaos=MILLISECONDS takes a number from 1 on");
    options.chaos = absl::Milliseconds(*rhythm);
  } else if (name == "--start_method" && value == "spawn") {
    options.start_method = cohort::StartMethod::kSpawn;
  } else if (name == "--start_method" && value == "fork") {
    options.start_method = cohort::StartMethod::kFork;
  } else if (name == "--start_method" && value == "forkserver") {
    return wrong("a fork server does not exist yet; take spawn or fork");
  } else if (name == "--start_method") {
    return wrong("--start_method=METHOD takes spawn or fork");
  } else {
    return wrong("no such flag; --help lists them");
  }
  return absl::OkStatus();
}

absl::StatusOr<Options> ParseOptions(int argc, char** argv) {
  Options options;
  bool flags = true;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (flags && argument == "--") {
      flags = false;
    } else if (flags && argument.starts_with("-") && argument != "-") {
      if (absl::Status ok = ParseFlag(argument, options); !ok.ok()) return ok;
    } else {
      options.paths.emplace_back(argument);
    }
  }
  return options;
}

// Messages on stderr, each once: of a file in parts each part may complain.
class Complaints {
 public:
  explicit Complaints(Progress* progress = nullptr) : progress_(progress) {}

  void Note(const std::string& message) {
    if (!told_.insert(message).second) return;
    if (progress_ != nullptr) progress_->Clear();
    std::cerr << "word_count: " + message + "\n";
  }
  void Error(const std::string& message) {
    Note(message);
    exit_code_ = kIncomplete;
  }
  template <typename Lists>
  void Pass(const Lists& lists) {
    for (const std::string& note : lists.notes) Note(note);
    for (const std::string& error : lists.errors) Error(error);
  }

  void set_progress(Progress* progress) { progress_ = progress; }
  [[nodiscard]] ExitCode exit_code() const { return exit_code_; }

 private:
  Progress* progress_;
  std::set<std::string> told_;
  ExitCode exit_code_ = kAllWell;
};

struct Total {
  WordCounts words;
  uint64_t files = 0;
  uint64_t bytes = 0;
  int workers = 0;
  int killed = 0;
  cohort::PoolStats stats;
};

// All files, counted by a pool. An error is the pool's; what is wrong with
// files goes to `complaints`.
absl::StatusOr<Total> CountInPool(const std::vector<ListedFile>& files,
                                  const Options& options,
                                  Complaints& complaints) {
  const absl::Time begin = absl::Now();
  uint64_t listed_bytes = 0;
  for (const ListedFile& file : files) listed_bytes += file.size;
  Progress progress(std::cout,
                    isatty(STDOUT_FILENO) != 0 ? Progress::Style::kBar
                                               : Progress::Style::kLines,
                    listed_bytes);
  complaints.set_progress(&progress);

  absl::StatusOr<cohort::ProcessPool> pool = cohort::ProcessPool::Create(
      {.workers = options.workers, .start_method = options.start_method});
  if (!pool.ok()) return pool.status();

  // Large batches repeat fewer words to the parent, small ones share the work
  // more evenly and lose less when a worker is killed.
  constexpr uint64_t kLeast = 256 << 10;
  constexpr uint64_t kMost = 4 << 20;
  const uint64_t batch_bytes =
      options.chaos
          ? kLeast
          : std::clamp(listed_bytes / (16 * pool->workers()), kLeast, kMost);
  std::vector<cohort::Future<BatchCount>> futures;
  for (Batch& batch : MakeBatches(files, batch_bytes)) {
    futures.push_back(
        pool->Submit({.retries = 1000}, CountBatch, std::move(batch)));
  }
  std::optional<Chaos> chaos;
  if (options.chaos) chaos.emplace(*pool, *options.chaos);

  Total total;
  for (auto&& [index, count] : cohort::AsCompleted(futures)) {
    if (!count.ok()) return count.status();
    count->AddTo(total.words);
    total.files += count->files;
    total.bytes += count->bytes;
    complaints.Pass(*count);
    progress.Update(total.bytes, absl::Now() - begin);
    futures[index] = {};  // Its memory: there may be many.
  }
  progress.Finish(total.bytes, absl::Now() - begin);
  complaints.set_progress(nullptr);

  if (chaos) {
    chaos->Stop();
    total.killed = chaos->killed();
  }
  total.workers = pool->workers();
  total.stats = pool->Stats();
  return total;
}

// Counts all again in this process. Returns whether `total` is exactly right.
bool Verify(const std::vector<ListedFile>& files, const Total& total,
            absl::Duration parallel) {
  const absl::Time begin = absl::Now();
  FileCounter counter;
  for (const ListedFile& file : files) counter.Count({.path = file.path});
  const absl::Duration serial = absl::Now() - begin;
  const bool exact = counter.words() == total.words &&
                     counter.rest().files == total.files &&
                     counter.rest().bytes == total.bytes;
  if (exact) {
    std::cout << absl::StreamFormat(
        "verify    exact; serially %.2f s, speed-up %.2f\n",
        absl::ToDoubleSeconds(serial), absl::FDivDuration(serial, parallel));
  } else {
    std::cout << absl::StreamFormat(
        "verify    DIFFERENT: serially %d files, %d bytes, %d words (%d "
        "different); a file that changes while it is counted does that too\n",
        counter.rest().files, counter.rest().bytes, counter.words().total(),
        counter.words().table().size());
  }
  return exact;
}

void Print(const Total& total, const Options& options, absl::Duration listing,
           absl::Duration counting) {
  for (const auto& [word, count] : total.words.Top(20)) {
    std::cout << absl::StreamFormat("%9d  ", count) << word << '\n';
  }
  const auto bytes = static_cast<double>(total.bytes);
  const double seconds = absl::ToDoubleSeconds(counting);
  std::cout
      << absl::StreamFormat("files     %d\n", total.files)
      << absl::StreamFormat("bytes     %d (%s)\n", total.bytes,
                            FormatBytes(bytes))
      << absl::StreamFormat("words     %d (%d different)\n",
                            total.words.total(), total.words.table().size())
      << absl::StreamFormat("time      %.2f s, and %.2f s to list the files\n",
                            seconds, absl::ToDoubleSeconds(listing))
      << absl::StreamFormat("speed     %s/s, %d workers by %s\n",
                            FormatBytes(bytes / seconds), total.workers,
                            options.start_method == cohort::StartMethod::kFork
                                ? "fork"
                                : "spawn");
  if (options.chaos) {
    std::cout << absl::StreamFormat(
        "chaos     %d workers killed, %d attempts retried\n", total.killed,
        total.stats.retried);
  }
}

ExitCode Main(int argc, char** argv) {
  absl::StatusOr<Options> options = ParseOptions(argc, argv);
  if (!options.ok()) {
    std::cerr << "word_count: " << options.status().message() << '\n';
    return kUsage;
  }
  if (options->help) {
    std::cout << kHelp;
    return kAllWell;
  }
  if (options->paths.empty()) options->paths = IncludeTree();
  if (options->paths.empty()) {
    std::cerr << "word_count: no C++ headers are installed here; name files "
                 "or folders to count\n";
    return kUsage;
  }

  Complaints complaints;
  const absl::Time begin = absl::Now();
  const FileList list = ListFiles(options->paths);
  const absl::Time listed = absl::Now();
  complaints.Pass(list);
  const absl::StatusOr<Total> total =
      CountInPool(list.files, *options, complaints);
  if (!total.ok()) {
    std::cerr << "word_count: " << total.status() << '\n';
    return kIncomplete;
  }
  const absl::Duration counting = absl::Now() - listed;
  Print(*total, *options, listed - begin, counting);
  ExitCode exit_code = complaints.exit_code();
  if (options->verify && !Verify(list.files, *total, counting)) {
    exit_code = kIncomplete;
  }
  if (!std::cout.flush()) {
    std::cerr << "word_count: the standard output cannot be written\n";
    exit_code = kIncomplete;
  }
  return exit_code;
}

}  // namespace
}  // namespace cohort_examples

int main(int argc, char** argv) {
  cohort::Init(argc, argv);
  return cohort_examples::Main(argc, argv);
}
