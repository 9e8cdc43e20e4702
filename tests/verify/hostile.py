"""Programs that try to leave the sandbox, to take more than their share, or to pass tests that they fail.

Each defines `f`, tested by `assert f(2) == 4` and `assert f(3) == 9`, and is wrong unless what it does is allowed.
`ESCAPES` return True from `f` where the attempt worked; a sandbox holds when none passes `assert f() is not True`.
"""
# ruff: noqa: E501 - programs on a line

# name -> source; `f(x)` never returns a square honestly
FAKES = {
    "exits with success": "import os\nos._exit(0)",
    "exits with success when called": "import os\ndef f(x):\n    os._exit(0)",
    "raises SystemExit": "import sys\ndef f(x):\n    sys.exit(0)",
    "always equal": "class Any:\n    def __eq__(self, other):\n        return True\n    __hash__ = None\ndef f(x):\n    return Any()",
    "always equal number": (
        "class Any(int):\n    def __eq__(self, other):\n        return True\n    def __ne__(self, other):\n"
        "        return False\n    __hash__ = int.__hash__\ndef f(x):\n    return Any(7)"
    ),
    "always equal list": "class Any(list):\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return Any()",
    "lies about its class": (
        "class Any:\n    __class__ = int\n    def __eq__(self, other):\n        return True\n    def __int__(self):\n"
        "        return 7\n    def __index__(self):\n        return 7\ndef f(x):\n    return Any()"
    ),
    "patched builtins": (
        "import builtins\nbuiltins.AssertionError = type('E', (BaseException,), {})\nbuiltins.compile = None\n"
        "builtins.exec = lambda *a: None\nbuiltins.all = lambda xs: True\nbuiltins.isinstance = lambda *a: True\n"
        "def f(x):\n    return 0"
    ),
    "patched runner": (
        "import sys, gc\nmain = sys.modules['__main__']\nmain.run_tests = lambda *a: None\n"
        "main.try_tests = lambda *a: {'passed': True, 'reason': ''}\nmain.pack = lambda *a, **k: {'object': 0}\n"
        "def f(x):\n    return 0"
    ),
    "success on every descriptor": (
        'import os\nfor fd in range(64):\n    try:\n        os.write(fd, b\'{"started": true}\\n'
        '{"passed": true, "reason": ""}\\n\')\n    except OSError:\n        pass\ndef f(x):\n    return 0'
    ),
    "replies before it is asked": (
        'import os\nfor fd in range(64):\n    try:\n        os.write(fd, b\'{"value": {"object": 0}}\\n\' * 9)\n'
        "    except OSError:\n        pass\ndef f(x):\n    return 0"
    ),
    "ends loops early": "def f(x):\n    raise StopIteration",
    "raises AssertionError": "def f(x):\n    raise AssertionError",
    "reads the tests from frames": (
        "import sys, gc, re\ndef f(x):\n    seen = []\n    frame = sys._getframe()\n    while frame:\n"
        "        seen.append(repr(frame.f_locals) + repr(frame.f_globals))\n        frame = frame.f_back\n"
        "    seen += [o for o in gc.get_objects() if isinstance(o, str)]\n"
        "    found = re.findall(r'f\\((\\d)\\) == (\\d+)', ' '.join(map(str, seen)))\n"
        "    return dict((int(a), int(b)) for a, b in found).get(x, -1)"
    ),
    "reads the tests from files": (
        "import os, re\ndef f(x):\n    for folder, _, names in os.walk('/'):\n        if '/lib' in folder:\n"
        "            continue\n        for name in names:\n            try:\n                path = os.path.join(folder, name)\n"
        "                if os.path.getsize(path) > 100000:\n                    continue\n"
        "                text = open(path, errors='replace').read()\n            except OSError:\n                continue\n"
        "            found = dict(re.findall(r'assert f\\((\\d)\\) == (\\d+)', text))\n            if str(x) in found:\n"
        "                return int(found[str(x)])\n    return -1"
    ),
    "reads the tests from its input": (
        "import os, re\ndef f(x):\n    os.lseek(0, 0, 0)\n    text = os.read(0, 100000).decode()\n"
        "    return int(dict(re.findall(r'f\\((\\d)\\) == (\\d+)', text)).get(str(x), -1))"
    ),
    "reads the memory of others": (
        "import os, re\ndef f(x):\n    for pid in range(1, 50):\n        try:\n            memory = open(f'/proc/{pid}/mem', 'rb')\n"
        "            maps = open(f'/proc/{pid}/maps').read()\n        except OSError:\n            continue\n"
        "        return int(x * x)\n    return -1"
    ),
    "redefines what the tests call": "def f(x):\n    return 0\nset = len = int = abs = lambda *a: 4\n__eq__ = None",
}

# name -> source of `f()`, which returns True, or a text of what it got, where the attempt worked
ESCAPES = {
    "fork": "import os\ndef f():\n    if os.fork() == 0:\n        os._exit(0)\n    return True",
    "fork bomb": "import os\ndef f():\n    while True:\n        try:\n            os.fork()\n        except OSError:\n            return False",
    "vfork by number": "import ctypes\ndef f():\n    libc = ctypes.CDLL(None)\n    return libc.syscall(57) >= 0 or libc.syscall(56, 17, 0, 0, 0, 0) >= 0",
    "subprocess": "import subprocess\ndef f():\n    return bool(subprocess.run(['/bin/true']))",
    "shell": "import os\ndef f():\n    return os.system('true') == 0",
    "daemon": (
        "import os, time\ndef f():\n    if os.fork():\n        return True\n    os.setsid()\n    if os.fork():\n        os._exit(0)\n"
        "    time.sleep(60)"
    ),
    "thread after exit": (
        "import threading, time\ndef f():\n    threading.Thread(target=time.sleep, args=(60,), daemon=False).start()\n"
        "    return True"
    ),
    "write outside scratch": (
        "import os\ndef f():\n    for place in ('/', '/usr', '/lib', '/etc', '/dev', '/dev/shm', '/home', '/root', '/var/tmp',\n"
        "                  os.path.dirname(os.__file__)):\n        try:\n            open(place + '/left-behind', 'w').close()\n"
        "            return place\n        except OSError:\n            pass\n    return False"
    ),
    "read the password file": "def f():\n    return open('/etc/shadow').read() or True",
    "read users": "def f():\n    return open('/etc/passwd').read() or True",
    "see the environment": "import os\ndef f():\n    return [k for k in os.environ if k not in ('PWD', 'LC_CTYPE')] or False",
    "see the home": (
        "import os\ndef f():\n    seen = []\n    for home in ('/root', '/home'):\n        for folder, _, names in os.walk(home):\n"
        "            seen += [os.path.join(folder, n) for n in names]\n"
        "    allowed = os.path.dirname(os.path.dirname(os.__file__))\n"
        "    import sys\n    return [n for n in seen if not n.startswith((allowed, sys.executable))] or False"
    ),
    "see the project": "import os\ndef f():\n    return os.path.exists(HERE)",
    "network by address": (
        "import socket\ndef f():\n    s = socket.create_connection(('127.0.0.1', PORT), 2)\n    return True"
    ),
    "network by name": "import socket\ndef f():\n    return bool(socket.getaddrinfo('localhost', 80))",
    "network by inherited socket": (
        "import socket\ndef f():\n    for fd in range(3, 64):\n        try:\n            s = socket.socket(fileno=fd)\n"
        "            s.connect(('127.0.0.1', PORT))\n            return True\n        except (OSError, TypeError):\n            pass\n    return False"
    ),
    "vsock": "import socket\ndef f():\n    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)\n    return True",
    "netlink": "import socket\ndef f():\n    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)\n    return True",
    "signal the parent": (
        "import os, signal\ndef f():\n    hit = []\n    for pid in (os.getppid(), TESTER, *range(1, 400)):\n        if pid == os.getpid():\n"
        "            continue\n        try:\n            os.kill(pid, signal.SIGKILL)\n            hit.append(pid)\n"
        "        except OSError:\n            pass\n    return [p for p in hit if p > 1] or False"
    ),
    "ptrace": (
        "import ctypes, os\ndef f():\n    libc = ctypes.CDLL(None)\n"
        "    return any(libc.ptrace(16, pid, 0, 0) == 0 for pid in range(1, 400) if pid != os.getpid())"
    ),
    "proc": "import os\ndef f():\n    return os.path.exists('/proc/self') or os.path.exists('/proc/1')",
    "sys": "import os\ndef f():\n    return os.path.exists('/sys/kernel')",
    "symlink out of scratch": (
        "import os\ndef f():\n    os.symlink('/etc/shadow', '/tmp/link')\n    os.symlink('../../../../', '/tmp/up')\n"
        "    try:\n        return open('/tmp/link').read() or True\n    except OSError:\n        pass\n"
        "    return os.path.exists('/tmp/up/etc/shadow')"
    ),
    "mount": "import ctypes\ndef f():\n    return ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0",
    "new user namespace": "import ctypes\ndef f():\n    return ctypes.CDLL(None).unshare(0x10000000) == 0",
    "chroot": "import os\ndef f():\n    os.chroot('/tmp')\n    return True",
    "become root": "import os\ndef f():\n    os.setuid(0)\n    return True",
    "raise its limits": (
        "import resource\ndef f():\n    for name in ('RLIMIT_CPU', 'RLIMIT_AS', 'RLIMIT_FSIZE', 'RLIMIT_NOFILE'):\n"
        "        try:\n            resource.setrlimit(getattr(resource, name), (-1, -1))\n            return name\n"
        "        except (OSError, ValueError):\n            pass\n    return False"
    ),
    "raise its priority": "import os\ndef f():\n    os.setpriority(os.PRIO_PROCESS, 0, 0)\n    return os.getpriority(os.PRIO_PROCESS, 0) < 19",
    "memory that no limit counts": (
        "import ctypes, os\ndef f():\n    libc = ctypes.CDLL(None)\n    try:\n        os.memfd_create('x')\n        return 'memfd'\n"
        "    except OSError:\n        pass\n    return libc.shmget(0, 1 << 20, 0o1777) >= 0"
    ),
    "io_uring": "import ctypes\ndef f():\n    return ctypes.CDLL(None).syscall(425, 1, ctypes.create_string_buffer(256)) >= 0",
    "kernel programs": "import ctypes\ndef f():\n    return ctypes.CDLL(None).syscall(321, 0, ctypes.create_string_buffer(128), 128) >= 0",
    "32 bit calls": "import ctypes\ndef f():\n    return ctypes.CDLL(None).syscall(0x40000000 + 39) >= 0",
    "device nodes": (
        "import os, stat\ndef f():\n    os.mknod('/tmp/disk', 0o666 | stat.S_IFBLK, os.makedev(8, 0))\n"
        "    return bool(open('/tmp/disk', 'rb').read(1)) or True"
    ),
    "exec something else": "import os\ndef f():\n    for shell in ('/bin/sh', '/usr/bin/env', '/bin/bash'):\n        if os.path.exists(shell):\n            return shell\n    return False",
}  # fmt: skip

# Attempts that do no harm where they succeed: they must, without a sandbox, or they show nothing.
HARMLESS = (
    "fork", "subprocess", "shell", "thread after exit", "read users", "see the environment", "see the project",
    "network by address", "network by name", "netlink", "proc", "sys", "memory that no limit counts",
    "exec something else",
)  # fmt: skip

# name -> source: takes more than its share; must end within its limits
GREEDY = {
    "endless loop": "def f(x):\n    while True:\n        pass",
    "endless loop at once": "while True:\n    pass",
    "endless sleep": "import time\ndef f(x):\n    time.sleep(1000)",
    "endless loop that catches all": "def f(x):\n    while True:\n        try:\n            while True:\n                pass\n        except BaseException:\n            pass",
    "ignores signals": (
        "import signal\nfor number in range(1, 32):\n    try:\n        signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError):\n        pass\nwhile True:\n    pass"
    ),
    "memory bomb": "def f(x):\n    kept = []\n    while True:\n        kept.append(bytearray(1 << 24))",
    "memory bomb in the reply": "def f(x):\n    return [[0] * 1000] * 1000000",
    "endless output": "def f(x):\n    while True:\n        print('a' * 100000)",
    "endless output on the channel": (
        "import os\ndef f(x):\n    while True:\n        for fd in range(3, 64):\n            try:\n"
        "                os.write(fd, b'a' * 65536)\n            except OSError:\n                pass"
    ),
    "endless replies": (
        "import os\nwhile True:\n    for fd in range(3, 64):\n        try:\n            os.write(fd, b'{\"value\": 1}\\n')\n"
        "        except OSError:\n            pass"
    ),
    "endless iterator": "def f(x):\n    while True:\n        yield x",
    "deep reply": "def f(x):\n    a = []\n    for _ in range(100000):\n        a = [a]\n    return a",
    "deep reply by hand": (
        "import os\nfor fd in range(3, 64):\n    try:\n        os.write(fd, b'{\"value\": ' + b'[' * 100000 + b'\\n')\n"
        "    except OSError:\n        pass\ndef f(x):\n    return 0"
    ),
    "huge number": "def f(x):\n    return 10 ** 10 ** 8",
    "fills the disk": (
        "import os\ndef f(x):\n    n = 0\n    while True:\n        with open(f'/tmp/{n}', 'wb') as file:\n"
        "            file.write(bytes(1 << 22))\n        n += 1"
    ),
    "opens everything": "def f(x):\n    kept = []\n    while True:\n        kept.append(open('/dev/null'))",
    "deep recursion": "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(x):\n    return f(x)",
    "crashes": "import ctypes\ndef f(x):\n    return ctypes.string_at(0)",
    "raw threads": (
        "import ctypes, mmap\ndef f(x):\n    libc = ctypes.CDLL(None)\n    while True:\n        if libc.syscall(56, 0x10f00, 0, 0, 0, 0) < 0:\n"
        "            return 0"
    ),
}  # fmt: skip
