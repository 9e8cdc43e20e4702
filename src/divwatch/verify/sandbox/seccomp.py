"""The system calls that a container refuses, as the BPF filter that `bwrap --seccomp` takes.

Namespaces hide files, network and other processes. They do not stop code from starting any number of processes, from using
memory that no limit counts, or from reaching rarely used parts of the kernel. Python needs none of the calls refused here.
"""

from __future__ import annotations

import errno
import platform
import struct

# Numbers: Linux arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h (aarch64).
_SHARED = {  # from 424 on the numbers are the same on all architectures
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "pidfd_open": 434, "clone3": 435, "pidfd_getfd": 438, "mount_setattr": 442, "memfd_secret": 447,
}  # fmt: skip
_REFUSED = {
    "x86_64": _SHARED | {
        # processes and threads: the program is a single one, so its limits cover all that it does
        "clone": 56, "fork": 57, "vfork": 58,
        # memory that RLIMIT_AS does not count
        "shmget": 29, "memfd_create": 319, "msgget": 68, "semget": 64, "mq_open": 240,
        # sockets of families without a network namespace (vsock, netlink, alg); socketpair is allowed
        "socket": 41,
        # other processes
        "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
        # namespaces, mounts, keys, kernel programs
        "unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161,
        "add_key": 248, "request_key": 249, "keyctl": 250, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323,
        "name_to_handle_at": 303, "open_by_handle_at": 304, "init_module": 175, "finit_module": 313,
        "personality": 135, "modify_ldt": 154,
    },
    "aarch64": _SHARED | {
        "clone": 220, "shmget": 194, "memfd_create": 279, "msgget": 186, "semget": 190, "mq_open": 180, "socket": 198,
        "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272,
        "unshare": 97, "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51,
        "add_key": 217, "request_key": 218, "keyctl": 219, "bpf": 280, "perf_event_open": 241, "userfaultfd": 282,
        "name_to_handle_at": 264, "open_by_handle_at": 265, "init_module": 105, "finit_module": 273,
        "personality": 92,
    },
}  # fmt: skip
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NEWEST = 448  # later calls look absent, as on an older kernel

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_REFUSE, _ABSENT = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS


def bpf_filter(machine: str | None = None) -> bytes | None:
    """The filter for a machine's architecture (default: this one), or None if its system calls are not listed here.

    >>> len(bpf_filter("x86_64")) % 8, bpf_filter("sparc")
    (0, None)
    """
    machine = machine or platform.machine()
    if machine not in _REFUSED:
        return None
    # clone3 looks absent, not refused: the C library then tries clone, and reports its error.
    absent = {_SHARED["clone3"]}
    refused = sorted(set(_REFUSED[machine].values()) - absent)
    code = [
        (_LOAD, 0, 0, 4),  # seccomp_data.arch: another one (32 bit) has other numbers
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # seccomp_data.nr
        (_JUMP_AT_LEAST, 0, 1, _NEWEST),  # x32 numbers too
        (_RETURN, 0, 0, _ABSENT),
    ]
    for number in sorted(absent):
        code += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ABSENT)]
    for number in refused:
        code += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in code)
