# SPDX-License-Identifier: Apache-2.0
"""What the tests of the whole command share: running it, measuring it from outside, places to work in.

Every test is a file that runs alone:  CARBIDE=build/release/bin/carbide tests/cli/test_gnu.py [--long] [--seed N] [NAME...]
Without CARBIDE the release build is taken. --long runs what takes too long for every day; the seed of a random test is
printed and brings the same run back. A file in which nothing could run ends with 77, which ctest shows as skipped.
"""
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CARBIDE = os.path.abspath(os.environ.get("CARBIDE") or os.path.join(ROOT, "build/release/bin/carbide"))
WORK = os.environ.get("CARBIDE_TEST_DIR") or os.path.join(ROOT, "build/test-work")
LONG = os.environ.get("CARBIDE_TEST_LONG", "") not in ("", "0")
SEED = int(os.environ.get("CARBIDE_TEST_SEED") or 20261121)
MIB = 1 << 20
KEEP_FAILURES = os.path.join(WORK, "failures")

C_LOCALE = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "CARBIDE_", "TMPDIR"))}
C_LOCALE["LC_ALL"] = "C"

# Sanitizers have memory of their own: what they say of a budget means nothing.
PLAIN = os.environ.get("CARBIDE_BUILD_KIND", "plain") in ("", "plain")

# How much of what is random or repeated a build with sanitizers does: it is several times slower.
SHARE = 1.0 if PLAIN else 0.15

# Exit codes of the command.
DONE, DISORDER, USAGE_OR_IO, BAD_DATA, TEMP_SPACE, BUDGET = range(6)


class Result:
    """How a command ended: exit (negative: killed by that signal), out, err, seconds, timed_out."""

    def __init__(self, code, out, err, seconds, timed_out=False):
        self.exit, self.out, self.err, self.seconds, self.timed_out = code, out, err, seconds, timed_out

    @property
    def text(self):
        return self.err.decode("utf-8", "replace")

    def __repr__(self):
        late = " TIMED OUT" if self.timed_out else ""
        return f"exit {self.exit}{late}, {len(self.out)} bytes out, stderr: {self.text[-800:]!r}"


_extra_mib = None


def with_room(argv):
    """A build with sanitizers needs memory for itself before it begins: budgets of a few MiB grow by that."""
    global _extra_mib
    if PLAIN or not any(a in ("--memory", "-S") for a in argv):
        return argv
    if _extra_mib is None:
        _extra_mib = measure([CARBIDE, "--version"])["rss_peak"] // MIB + 4
    out = list(argv)
    for i, a in enumerate(out[:-1]):
        if a in ("--memory", "-S") and out[i + 1].endswith("M") and out[i + 1][:-1].isdigit():
            out[i + 1] = f"{int(out[i + 1][:-1]) + _extra_mib}M"
    return out


def run(argv, stdin=b"", timeout=100, env=None, cwd=None, program=None, preexec=None, stdout=subprocess.PIPE):
    """Runs argv; a hang ends it (timed_out) instead of the test run. `program` differs from argv[0] on purpose."""
    argv = with_room(argv)
    timeout *= 1 if PLAIN else 5
    started = time.monotonic()
    feed = {"stdin": stdin} if hasattr(stdin, "fileno") else {"stdin": subprocess.PIPE}
    p = subprocess.Popen(argv, executable=program, stdout=stdout, stderr=subprocess.PIPE, cwd=cwd,
                         env=C_LOCALE if env is None else env, preexec_fn=preexec, start_new_session=True, **feed)
    late = False
    try:
        out, err = p.communicate(None if hasattr(stdin, "fileno") else stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        late = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(p.pid, signal.SIGKILL)
        out, err = p.communicate()
    return Result(p.returncode, out or b"", err or b"", time.monotonic() - started, late)


def carbide(*args, **kw):
    return run([CARBIDE, *map(str, args)], **kw)


def sort(*args, **kw):
    """`carbide sort` without progress and with what the caller says."""
    return carbide("sort", *args, **kw)


def gnu_sort(*args, **kw):
    return run(["sort", *map(str, args)], **kw)


# ---- measuring from outside ----

def compiled(name, source, *flags):
    """A small C program of the tests or of bench/, compiled once."""
    os.makedirs(WORK, exist_ok=True)
    target = os.path.join(WORK, name)
    if os.path.exists(target) and os.path.getmtime(target) >= os.path.getmtime(source):
        return target
    compiler = os.environ.get("CC") or next((c for c in ("cc", "gcc", "clang", "clang-19") if shutil.which(c)), None)
    if compiler is None:
        raise unittest.SkipTest("NO C COMPILER: nothing can be measured from outside")
    fresh = f"{target}.{os.getpid()}"
    subprocess.run([*compiler.split(), "-std=c17", "-D_GNU_SOURCE", "-O2", "-o", fresh, source, "-pthread", *flags], check=True)
    os.rename(fresh, target)
    return target


def launcher():
    return os.environ.get("CARBIDE_LAUNCH") or compiled("launch", os.path.join(ROOT, "bench/launch.c"))


_cgroup_kind = None


def cgroup_kind():
    """v1, v2 or none."""
    global _cgroup_kind
    if _cgroup_kind is None:
        _cgroup_kind = run([launcher(), "--probe"]).out.decode().strip()
    return _cgroup_kind


def need_cgroup():
    if cgroup_kind() == "none":
        skip_loudly("no memory cgroup can be made here (run as root, or delegate one): the budget is measured by peak RSS only")


# Code that is not optimised and asserts everywhere is larger than what the plan expects of it: the promise is that of release
# builds, where nothing is added.
DEBUG_BYTES = (5 << 18) if os.environ.get("CARBIDE_DEBUG_BUILD") == "1" else 0


def need_plain_build():
    if not PLAIN:
        skip_loudly("a build with sanitizers keeps no budget")


def measure(argv, cgroup=None, timeout=120, stdin=None, stdout=None, env=None, cwd=None):
    """Runs argv from a tiny parent: the dictionary that bench/launch prints, with the standard error as "err"."""
    with tempfile.TemporaryDirectory(dir=work_root()) as folder:
        report, err = os.path.join(folder, "report"), os.path.join(folder, "err")
        command = [launcher(), "--json", report, "--err", err, "--timeout", str(timeout)]
        command += ["--cgroup", str(cgroup)] if cgroup else []
        command += ["--in", stdin or "/dev/null", "--out", stdout or "/dev/null", "--", *map(str, argv)]
        p = subprocess.run(command, env=C_LOCALE if env is None else env, cwd=cwd, capture_output=True)
        if p.returncode != 0:
            raise RuntimeError(f"launch ended with {p.returncode}: {p.stderr.decode()}")
        with open(report) as f:
            figures = json.load(f)
        with open(err, errors="replace") as f:
            figures["err"] = f.read()
    figures["rss_peak"] = figures["rss_peak_kib"] * 1024
    return figures


# ---- places ----

def work_root():
    os.makedirs(WORK, exist_ok=True)
    return WORK


def skip_loudly(why):
    print(f"\n*** SKIPPED: {why} ***", file=sys.stderr, flush=True)
    raise unittest.SkipTest(why)


def file_count(folder):
    return sum(len(files) + len(folders) for _, folders, files in os.walk(folder))


@contextlib.contextmanager
def mounted(kind, size, folder):
    """A small file system of its own at `folder`: "tmpfs" or "ext4" (by a loop device). Skips where it cannot be had."""
    os.makedirs(folder, exist_ok=True)
    if os.geteuid() != 0:
        skip_loudly(f"mounting a {kind} needs root")
    image = folder + ".img"
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    else:
        if shutil.which("mkfs.ext4", path=os.environ.get("PATH", "") + ":/sbin:/usr/sbin") is None:
            skip_loudly("mkfs.ext4 is not there")
        with open(image, "wb") as f:
            f.truncate(size)
        run(["mkfs.ext4", "-q", "-F", image], env={**C_LOCALE, "PATH": os.environ.get("PATH", "") + ":/sbin:/usr/sbin"})
        command = ["mount", "-o", "loop", image, folder]
    made = run(command)
    if made.exit != 0:
        skip_loudly(f"a {kind} cannot be mounted here: {made.text.strip()}")
    try:
        yield folder
    finally:
        for _ in range(50):
            if run(["umount", folder]).exit == 0:
                break
            time.sleep(0.1)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(image)


class Case(unittest.TestCase):
    """A test with a folder of its own (self.dir) and in it a folder for temporary files (self.temp)."""

    maxDiff = 2000

    def setUp(self):
        if not os.access(CARBIDE, os.X_OK):
            skip_loudly(f"there is no {CARBIDE}")
        self.random = random.Random(f"{SEED}:{self.id()}")
        self.dir = tempfile.mkdtemp(prefix="t-", dir=work_root())
        self.temp = self.path("temp")
        os.mkdir(self.temp)
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, data):
        path = self.path(name)
        with open(path, "wb") as f:
            f.write(data)
        return path

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def sort(self, *args, **kw):
        """carbide sort with this test's folder for temporary files."""
        return sort("-T", self.temp, *args, **kw)

    def assertEnded(self, result, code):
        self.assertFalse(result.timed_out, f"it hangs: {result}")
        self.assertEqual(result.exit, code, repr(result))

    def assertSaid(self, result, *words):
        """The message holds each word (any case)."""
        for word in words:
            self.assertIn(str(word).lower(), result.text.lower())

    def assertSameBytes(self, got, want, what=""):
        if got == want:
            return
        at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
        self.fail(f"{what}: {len(got)} bytes instead of {len(want)}, first difference at {at}: "
                  f"{got[max(0, at - 40):at + 40]!r} instead of {want[max(0, at - 40):at + 40]!r}")

    def assertNothingLeft(self):
        self.assertEqual(os.listdir(self.temp), [], "temporary files were left behind")


def records(rows, seed=1, shape="lines"):
    """Rows of 100 bytes in the sort benchmark's shape, made here so that they never depend on what is tested."""
    r = random.Random(seed)
    key_bytes = bytes(range(32, 127))
    table = bytes(key_bytes[i % 95] for i in range(256))
    out = []
    for i in range(rows):
        if shape == "fixed":
            out.append(r.randbytes(10) + b"%06d" % i + b"\0" * 4 + b"x" * 80)
        else:
            out.append(r.randbytes(10).translate(table) + b"  %032X  " % i + b"%052d\r\n" % i)
    return b"".join(out)


def built_without(library, *options):
    """Why a server with these options cannot be had in this build; None: it can."""
    done = subprocess.run([CARBIDE, "serve", "--listen", "127.0.0.1:0", "--memory", "1G", *options], stderr=subprocess.PIPE,
                          text=True, timeout=120, env=C_LOCALE)
    return "carbide was built without " + library if "without " + library in done.stderr else None


def main(skip=None):
    """`skip`: why nothing here can run."""
    global LONG, SEED
    if skip is not None:
        print("skipped: " + skip)
        sys.exit(77)
    arguments = sys.argv[1:]
    if "--long" in arguments:
        arguments.remove("--long")
        LONG = True
    if "--seed" in arguments:
        at = arguments.index("--seed")
        SEED = int(arguments[at + 1])
        del arguments[at:at + 2]
    module = sys.modules["__main__"]
    # The test file imported the names before main changed them.
    sys.modules[__name__].LONG, sys.modules[__name__].SEED = LONG, SEED
    print(f"{os.path.basename(sys.argv[0])}: carbide {CARBIDE}, seed {SEED}{', long' if LONG else ''}", flush=True)
    program = unittest.main(module=module, argv=[sys.argv[0], *arguments], exit=False, verbosity=2)
    result = program.result
    if not result.wasSuccessful():
        sys.exit(1)
    sys.exit(77 if result.testsRun and len(result.skipped) == result.testsRun else 0)
