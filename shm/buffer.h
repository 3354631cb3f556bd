// SPDX-License-Identifier: Apache-2.0
//
// `cohort::Buffer` holds bytes that travel without being copied: an image, a
// tensor, the content of a file. Whoever made it fills it; once it is sent, the
// kernel makes it read-only for everybody, so a receiver reads the sender's own
// pages, with nothing to lock and nobody who could change them under its eyes.
//
//   struct Frame {
//     int64_t id = 0;
//     cohort::Buffer pixels;
//     template <class Archive>
//     void serialize(Archive& archive) { archive(id, pixels); }
//   };
//
//   absl::StatusOr<cohort::Buffer> pixels = cohort::Buffer::Create(8 << 20);
//   if (!pixels.ok()) return pixels.status();
//   for (uint32_t& pixel : pixels->MutableAs<uint32_t>()) pixel = 0xff00ff00;
//   return frames.Put({.id = 1, .pixels = *std::move(pixels)});
//
//   absl::StatusOr<Frame> frame = frames.Get();         // in another process
//   for (uint32_t pixel : frame->pixels.As<uint32_t>()) ...
//
// A receiver may send it on, through as many processes as it likes. It travels
// by descriptor; below some 16 KiB a std::string or a std::vector is faster.
// For bytes that several processes change, take a Region (shm/region.h).

#ifndef COHORT_SHM_BUFFER_H_
#define COHORT_SHM_BUFFER_H_

#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cohort/os/check.h"
#include "cohort/os/descriptor.h"

namespace cohort {

// Buffer
//
// |          | mutable_bytes() | Seal(), or it is sent   | a process dies     |
// |----------+-----------------+-------------------------+--------------------|
// | Empty    | none            | Empty; arrives so       | --                 |
// | Writable | its bytes       | Sealed; if that fails:  | gone: nobody else  |
// |          |                 | Writable                | has it             |
// | Sealed   | fatal           | Sealed                  | freed if no other  |
// |          |                 |                         | process has it     |
//
// To encode one is to send it: it stays sealed where the carrier then refuses,
// and can be read and sent again.
//
// Contract
//   Placement:      private memory; the bytes have pages of their own. Layout:
//                   docs/formats/buffer.md.
//   Thread-safety:  as a container, and several threads may send one at once.
//                   A thread that writes while another one seals dies of
//                   SIGSEGV.
//   Process-safety: sealed, any number of processes read it.
//   Fork-safety:    sealed, it works in the child. A writable one stays with
//                   the process that made it: in the child it is empty.
//   Crash-safety:   a process that dies leaves nothing behind. A receiver has
//                   whole bytes: they could not be had before they were sealed.
//   Signal-safety:  bytes(), As() and size() of a sealed one.
//   Errors:         ResourceExhausted: no memory, addresses or descriptors
//                   left. Seal(): FailedPrecondition while the kernel is at
//                   work on its pages (direct I/O). What arrives is refused by
//                   FailedPrecondition unless its size and its content are
//                   sealed; no access to a received one raises SIGBUS. To
//                   write to a sealed one is fatal, or SIGSEGV through what
//                   mutable_bytes() had returned before.
//   Ordering:       what was written before it was sealed is visible to all who
//                   have it.
//   Cost:           whole pages, taken at first touch, and one descriptor.
//                   Create, Seal and receive: some five system calls each.
//   Reference:      memfd_create(2), F_SEAL_WRITE; docs/design/buffer.md.
class Buffer final {
 public:
  // No bytes.
  Buffer() noexcept;

  // `size` bytes, all zero. 0 makes an empty one.
  static absl::StatusOr<Buffer> Create(size_t size);

  // The sealed bytes behind a descriptor that came from elsewhere.
  static absl::StatusOr<Buffer> Attach(os::Descriptor memory);

  // Empties `other`.
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  // Aligned to a page. Sealing does not move them.
  [[nodiscard]] std::span<const std::byte> bytes() const;
  [[nodiscard]] size_t size() const { return bytes().size(); }
  [[nodiscard]] bool empty() const { return bytes().empty(); }

  // Likewise, to be written. Requires that it is not sealed, else it is fatal.
  [[nodiscard]] std::span<std::byte> mutable_bytes();

  // The bytes as a row of T. Requires that they are a whole number of T, else
  // it is fatal: ask for size() first if it is not known.
  template <typename T>
  [[nodiscard]] absl::Span<const T> As() const {
    return Row<const T>(bytes().data());
  }
  template <typename T>
  [[nodiscard]] absl::Span<T> MutableAs() {
    return Row<T>(mutable_bytes().data());
  }

  // Makes the bytes read-only for good, in all processes. Sending does it, too.
  absl::Status Seal() const;
  [[nodiscard]] bool sealed() const;

  // What Attach() takes; this one keeps it. Invalid unless it is sealed.
  [[nodiscard]] const os::Descriptor& descriptor() const;

  // For the codec (serialize/codec.h).
  template <typename Archive>
  void save(Archive& archive) const {
    if (absl::Status sealed = Seal(); !sealed.ok()) archive.Fail(sealed);
    archive(descriptor());
  }
  template <typename Archive>
  void load(Archive& archive) {
    os::Descriptor memory;
    archive(memory);
    *this = Buffer();
    if (!memory.valid()) return;
    absl::StatusOr<Buffer> attached = Attach(std::move(memory));
    if (!attached.ok()) archive.Fail(attached.status());
    *this = *std::move(attached);
  }

 private:
  struct Memory;

  explicit Buffer(std::unique_ptr<Memory> memory);

  // Whether the bytes are here: a child does not have those that its parent
  // was still writing.
  [[nodiscard]] bool IsHere() const;

  template <typename T, typename Byte>
  absl::Span<T> Row(Byte* first) const {
    static_assert(std::is_trivially_copyable_v<T> && !std::is_pointer_v<T>,
                  "cohort: the bytes of a Buffer are read in other processes; "
                  "As<T>() takes only types that are their bytes");
    static_assert(alignof(T) <= 4096,
                  "cohort: a Buffer is aligned to a page of 4096 bytes");
    os::Check(
        size() % sizeof(T) == 0,
        "the bytes of a Buffer are no whole number of the type asked for");
    return {reinterpret_cast<T*>(first), size() / sizeof(T)};
  }

  std::unique_ptr<Memory> memory_;  // Null if empty.
};

}  // namespace cohort

#endif  // COHORT_SHM_BUFFER_H_
