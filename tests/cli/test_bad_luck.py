#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""Faults of the real system: full disks, limits of the process, and system calls that strace makes fail.

Where tests/fault fails calls inside the command, these come from the kernel: a small file system, /dev/full, RLIMIT_NOFILE, RLIMIT_FSIZE,
RLIMIT_NPROC, and injected errors, short transfers and interrupts of a strace around a release build. Always the same demand: the right bytes, or
an error with message and exit code, the old output as it was, nothing left, no hang.
"""
import os
import resource
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

OLD = b"what was there before\n"


class Luck(h.Case):
    def setUp(self):
        super().setUp()
        self.data = h.records(200_000)
        self.source = self.write("in", self.data)
        self.want = b"".join(sorted(self.data.splitlines(True)))

    def right_or_refused(self, result, codes, out=None, before=OLD, said=()):
        """Right bytes, or one of the codes with a message and everything as before."""
        self.assertFalse(result.timed_out, f"it hangs: {result}")
        if result.exit == 0:
            with open(out or self.path("out"), "rb") as f:
                self.assertSameBytes(f.read(), self.want)
        else:
            self.assertIn(result.exit, codes, repr(result))
            self.assertTrue(result.text.strip(), "an error without a message")
            self.assertSaid(result, *said)
            if out is None:
                self.assertSameBytes(self.read("out"), before, "the old output")
        self.assertNothingLeft()
        return result.exit

    def run_sort(self, *arguments, temp=None, out=None, memory="8M", **kw):
        if out is None:
            self.write("out", OLD)
        return h.sort("--memory", memory, "-T", temp or self.temp, "-o", out or self.path("out"), *arguments, self.source, **kw)


class FullDisks(Luck):
    def test_a_full_disk_for_temporary_files_ends_with_4(self):
        for size in (1 << 20, 8 << 20):
            with h.mounted("ext4", size, self.path("disk")) as disk:
                result = self.run_sort(temp=disk)
                self.right_or_refused(result, (h.TEMP_SPACE,), said=("disk",))
                self.assertEqual(result.exit, h.TEMP_SPACE)
                self.assertEqual([x for x in os.listdir(disk) if x != "lost+found"], [])

    def test_a_small_memory_file_system_for_temporary_files_ends_with_4_or_is_refused(self):
        with h.mounted("tmpfs", 1 << 20, self.path("disk")) as disk:
            result = self.run_sort(temp=disk)
            self.right_or_refused(result, (h.TEMP_SPACE, h.USAGE_OR_IO), said=("disk",))
            self.assertNotEqual(result.exit, 0)
            self.assertEqual(os.listdir(disk), [])

    def test_one_full_disk_of_two_is_no_reason_to_fail_or_ends_with_4(self):
        with h.mounted("ext4", 4 << 20, self.path("disk")) as disk:
            result = self.run_sort("-T", disk)
            self.right_or_refused(result, (h.TEMP_SPACE,))
            self.assertEqual([x for x in os.listdir(disk) if x != "lost+found"], [])

    def test_a_full_disk_for_the_output_ends_with_2_and_leaves_no_part_of_it(self):
        for kind in ("tmpfs", "ext4"):
            with self.subTest(kind=kind), h.mounted(kind, 1 << 20, self.path("disk")) as disk:
                for name in (disk + "/out", disk + "/out.gz"):
                    result = self.run_sort(out=name)
                    self.assertIn(result.exit, (h.USAGE_OR_IO, h.TEMP_SPACE), repr(result))
                    self.assertSaid(result, "disk", "space")
                    self.assertEqual([x for x in os.listdir(disk) if x != "lost+found"], [])
                    self.assertNothingLeft()

    def test_a_disk_that_fills_up_meanwhile(self):
        """Enough at the start, then somebody else takes it."""
        with h.mounted("ext4", 40 << 20, self.path("disk")) as disk:
            filler = subprocess.Popen(["sh", "-c", f"sleep 0.05; head -c 30000000 /dev/zero > {disk}/filler 2>/dev/null; :"])
            result = self.run_sort(temp=disk)
            filler.wait()
            self.right_or_refused(result, (h.TEMP_SPACE,))
            self.assertEqual([x for x in os.listdir(disk) if x not in ("lost+found", "filler")], [])

    def test_dev_full_as_standard_output_and_as_output_file(self):
        with open("/dev/full", "wb") as full:
            result = h.sort("--memory", "8M", "-T", self.temp, self.source, stdout=full)
        self.assertEnded(result, h.USAGE_OR_IO)
        self.assertSaid(result, "space")
        self.assertNothingLeft()
        result = h.sort("--memory", "8M", "-T", self.temp, "-o", "/dev/full", self.source)
        self.assertEnded(result, h.USAGE_OR_IO)
        small = self.write("small", b"b\na\n")
        with open("/dev/full", "wb") as full:
            self.assertEnded(h.sort(small, stdout=full), h.USAGE_OR_IO)
            self.assertEnded(h.carbide("sort", "--help", stdout=full), h.USAGE_OR_IO)

    def test_a_standard_output_that_is_closed(self):
        small = self.write("small", b"b\na\n")
        result = h.sort(small, preexec=lambda: os.close(1))
        self.assertEnded(result, h.USAGE_OR_IO)
        self.assertEnded(h.sort("-o", self.path("out"), small, preexec=lambda: os.close(1)), 0)
        self.assertEqual(self.read("out"), b"a\nb\n")


class Limits(Luck):
    def limited(self, kind, figure):
        return lambda: resource.setrlimit(kind, (figure, figure))

    def test_few_file_descriptors(self):
        for figure in list(range(3, 16)) + [20, 32]:
            with self.subTest(descriptors=figure):
                result = self.run_sort(preexec=self.limited(resource.RLIMIT_NOFILE, figure))
                # Too few for the loader itself: it says so with 127.
                self.right_or_refused(result, (h.USAGE_OR_IO, h.TEMP_SPACE, 127))
        self.assertEqual(result.exit, 0, "32 descriptors are enough")

    def test_few_file_descriptors_for_a_merge_of_many_files(self):
        names = [self.write(f"m{i:03}", b"%04d\n" % i) for i in range(300)]
        self.want = b"".join(b"%04d\n" % i for i in range(300))
        self.source = names[0]
        result = self.run_sort("-m", *names[1:], preexec=self.limited(resource.RLIMIT_NOFILE, 40))
        self.assertEqual(self.right_or_refused(result, (h.USAGE_OR_IO,)), 0, repr(result))

    def test_a_file_size_limit_is_an_error_and_no_death_by_signal(self):
        for figure in (4096, 1 << 20, 10 << 20, 19 << 20):
            with self.subTest(bytes=figure):
                result = self.run_sort(preexec=self.limited(resource.RLIMIT_FSIZE, figure))
                self.right_or_refused(result, (h.USAGE_OR_IO, h.TEMP_SPACE))
                self.assertGreater(result.exit, 0)

    def test_no_threads(self):
        if os.geteuid() == 0:
            if shutil.which("setpriv") is None:
                h.skip_loudly("root has no limit of threads, and setpriv is not there")
            command = ["setpriv", "--reuid=65534", "--clear-groups"]
            os.chmod(self.dir, 0o777)
            os.chmod(self.temp, 0o777)
            if h.run([*command, h.CARBIDE, "--version"]).exit != 0:
                h.skip_loudly("another user cannot reach the command here")
        else:
            command = []
        self.write("out", OLD)
        os.chmod(self.path("out"), 0o666)
        # The leak sanitizer wants a thread of its own at the end.
        env = {**h.C_LOCALE, "ASAN_OPTIONS": h.C_LOCALE.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}
        result = h.run([*command, h.CARBIDE, "sort", "--memory", "8M", "-T", self.temp, "-o", self.path("out"), self.source],
                       env=env, preexec=self.limited(resource.RLIMIT_NPROC, 1))
        self.right_or_refused(result, (h.USAGE_OR_IO,))

    def test_little_address_space(self):
        h.need_plain_build()
        for figure in (16 << 20, 24 << 20, 32 << 20, 64 << 20):
            with self.subTest(bytes=figure):
                result = self.run_sort(preexec=self.limited(resource.RLIMIT_AS, figure))
                self.right_or_refused(result, (h.USAGE_OR_IO, h.BUDGET, 127))


class Strace(Luck):
    """System calls that fail, are cut short or interrupted, in the build that users get."""

    def setUp(self):
        super().setUp()
        if shutil.which("strace") is None:
            h.skip_loudly("strace is not there")
        if h.run(["strace", "-o", "/dev/null", "true"]).exit != 0:
            h.skip_loudly("strace may not trace here")
        h.need_plain_build()
        self.data = h.records(110_000)
        self.source = self.write("in", self.data)
        self.want = b"".join(sorted(self.data.splitlines(True)))

    def inject(self, calls, what, codes):
        self.write("out", OLD)
        result = h.run(["strace", "-f", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:{what}", h.CARBIDE, "sort", "--memory", "8M",
                        "-T", self.temp, "-o", self.path("out"), self.source], timeout=60)
        with self.subTest(calls=calls, what=what):
            return self.right_or_refused(result, codes)

    def test_failing_calls_end_in_the_right_bytes_or_a_clear_error(self):
        failed = 0
        cases = [("pwrite64", "EIO"), ("pwrite64", "ENOSPC"), ("pwrite64", "EDQUOT"), ("pwritev", "EIO"), ("pread64", "EIO"), ("preadv", "EIO"),
                 ("read", "EIO"), ("openat", "EMFILE"), ("openat", "EACCES"), ("fsync", "EIO"), ("fdatasync", "EIO"), ("rename,renameat,renameat2", "EIO"),
                 ("linkat", "EIO"), ("linkat", "EXDEV"), ("fallocate", "ENOSPC"), ("fallocate", "EOPNOTSUPP"), ("ftruncate", "EIO"), ("mmap", "ENOMEM"),
                 ("clone,clone3", "EAGAIN"), ("fstat,newfstatat", "EIO"), ("fcntl", "EINVAL"), ("close", "EIO"), ("statfs,fstatfs", "ENOSYS"),
                 ("fadvise64", "EINVAL"), ("madvise", "EINVAL"), ("sync_file_range", "EIO")]
        # Numbers from the middle of the run: the loader's own calls are not ours to survive (127).
        for calls, error in cases:
            for when in ("1", "3", "40", "2+", "30+") if h.LONG else ("3", "30+"):
                failed += self.inject(calls, f"error={error}:when={when}", (h.USAGE_OR_IO, h.TEMP_SPACE, h.BUDGET, 127)) != 0
        self.assertGreater(failed, 5, "hardly anything was hit")

    def test_interrupted_calls_are_made_again(self):
        for calls in ("pwrite64", "pread64", "read", "pwritev", "preadv", "openat", "fallocate", "fdatasync,fsync"):
            self.assertEqual(self.inject(calls, "error=EINTR:when=4+3", ()), 0, calls)

    def test_short_transfers_are_continued(self):
        """A write or read of a few bytes more or less than asked is normal for the kernel."""
        for calls, first in (("pwrite64", 1), ("pwritev", 1), ("write", 1)):
            # strace's retval skips the call itself: what it claims to have written has to be rewritten by nobody, so a 0 is all it may claim.
            code = self.inject(calls, f"retval=0:when={first + 2}", (h.USAGE_OR_IO, h.TEMP_SPACE))
            self.assertIn(code, (0, h.USAGE_OR_IO, h.TEMP_SPACE))

    def test_a_direct_open_that_is_refused_falls_back(self):
        """File systems without O_DIRECT and without O_TMPFILE exist."""
        for error in ("EINVAL", "EOPNOTSUPP", "EISDIR"):
            result = h.run(["strace", "-f", "-o", "/dev/null", "-P", self.temp, "-e", "trace=openat,open", "-e", f"inject=openat:error={error}:when=2", h.CARBIDE, "sort",
                            "--memory", "8M", "-T", self.temp, "-o", self.path("out"), self.source], timeout=60)
            self.assertFalse(result.timed_out)
            self.assertIn(result.exit, (0, h.USAGE_OR_IO, h.TEMP_SPACE), repr(result))
            self.assertNothingLeft()


if __name__ == "__main__":
    h.main()
