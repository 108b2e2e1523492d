"""What shows that a systemd enforces a directive: a unit with that directive alone, and one without it.

Rule: a probe exits 0 when it is enforced and 1 when it is not; without the directive it has to exit 1, or it shows
nothing.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from tests.link_local.manager import Manager
from tests.process.harness import ROOT

_BEGIN = """
import ctypes, errno, mmap, os, resource, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def refused(call, *errnos):
    try:
        call()
    except OSError as exc:
        return exc.errno in (errnos or (errno.EPERM,))
    return False
def called(number, *words):
    if libc.syscall(number, *words) < 0:
        raise OSError(ctypes.get_errno(), "")
def status(name):
    return next(line.split()[1] for line in open("/proc/self/status") if line.startswith(name + ":"))
def read_only(path):
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
def end(enforced):
    sys.exit(0 if enforced else 1)
"""

#: i386's getpid by int 0x80. A kernel without that emulation gives SIGSEGV with and without the directive.
_OTHER_ARCHITECTURE = """
import platform, signal
def foreign():
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex("b814000000cd80c3"))
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
if platform.machine() != "x86_64":
    end(status("Seccomp") == "2")
pid = os.fork()
if pid == 0:
    foreign()
    os._exit(0)
state = os.waitpid(pid, 0)[1]
end(os.WIFSIGNALED(state) and os.WTERMSIG(state) == signal.SIGSYS)
"""

#: Directive → how to see it. Those of a sandbox that a user's systemd enforces without a user namespace.
PLAIN = {
    "UMask=0077": "end(os.umask(0) == 0o077)",
    "LimitCORE=0": "end(resource.getrlimit(resource.RLIMIT_CORE) == (0, 0))",
    "KeyringMode=private": (
        "buffer = ctypes.create_string_buffer(256)\n"
        "called(250, 6, -3, buffer, 256)\n"  # KEYCTL_DESCRIBE of the session keyring
        "end(buffer.value.endswith(b';_ses'))"
    ),
    "NoNewPrivileges=yes": "end(status('NoNewPrivs') == '1')",
    "LockPersonality=yes": "end(refused(lambda: called(135, 8)))",  # PER_LINUX32
    "MemoryDenyWriteExecute=yes": ("end(refused(lambda: mmap.mmap(-1, 4096, prot=7), errno.EPERM, errno.EACCES))"),
    "RestrictNamespaces=yes": "end(refused(lambda: called(272, 0x10000000)))",  # CLONE_NEWUSER
    "RestrictRealtime=yes": "end(refused(lambda: called(144, 0, 99, ctypes.byref(ctypes.c_int(0)))))",  # else EINVAL
    "RestrictSUIDSGID=yes": "open('suid', 'w').close()\nend(refused(lambda: os.chmod('suid', 0o4700)))",
    "SystemCallArchitectures=native": _OTHER_ARCHITECTURE,
    "SystemCallErrorNumber=EPERM\nSystemCallFilter=@system-service\nSystemCallFilter=~@privileged @debug @resources": (
        "open('own', 'w').close()\n"
        "end(refused(lambda: os.chown('own', os.getuid(), -1)) and refused(lambda: called(101, 0, 0, 0, 0))"
        " and refused(lambda: os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0))))"
    ),
    # what is shipped allows every family that a test could count on: so one that allows less
    "RestrictAddressFamilies=AF_UNIX": "end(refused(lambda: socket.socket(socket.AF_INET), errno.EAFNOSUPPORT))",
}

#: Those that are silently ignored without PrivateUsers=yes (systemd 252).
STRICT = {
    "": "end(open('/proc/self/uid_map').read().split()[2] == '1')",
    "ProtectSystem=strict": "end(read_only('/usr') and read_only('/'))",
    "ProtectHome=read-only": "end(read_only('/home'))",
    "ProtectSystem=strict\nReadWritePaths=@HERE@": "end(read_only('/usr') and not read_only('.'))",
    "PrivateTmp=yes": "end(not os.path.exists('@TMP@'))",
    "PrivateDevices=yes": (
        "end(not os.path.exists('/dev/mem') and len(os.listdir('/dev')) < 25 and status('Seccomp') == '2')"
    ),
    "CapabilityBoundingSet=": "end(int(status('CapBnd'), 16) == 0)",
}


#: PrivateTmp hides a checkout below /tmp, and with it the interpreter: this shows it again, and nothing else there.
CHECKOUT = f"BindReadOnlyPaths={ROOT}" if ROOT.is_relative_to("/tmp") else ""


@dataclass
class Bench:
    """A manager whose units run one script each, in a directory that its user may write to."""

    manager: Manager
    units: Path
    place: Path
    number: int = 0

    def run(self, directives: str, script: str) -> int:
        """The exit status of `script` in a unit with these directives."""
        self.number += 1
        name = f"probe-{self.number}"
        (self.place / f"{name}.py").write_text(_BEGIN + script)
        (self.units / f"{name}.service").write_text(
            f"[Service]\nType=oneshot\nWorkingDirectory={self.place}\nStandardError=append:{self.place}/{name}.err\n"
            f"{directives}\nExecStart={sys.executable} -I {self.place}/{name}.py\n"
        )
        assert self.manager.ctl("daemon-reload").status == 0
        self.manager.ctl("start", f"{name}.service")
        shown = self.manager.ctl("show", f"{name}.service", "--property=ExecMainStatus", "--value").out
        error = self.place / f"{name}.err"
        said = error.read_text() if error.exists() else ""
        assert "Traceback" not in said, said
        return int(shown)
