"""Windows and macOS by reading: what only some systems have is called in `files.py` alone, with another way there."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "prewrite"
ONE_PLACE = SOURCE / "files.py"
MODULES = {
    "crypt", "fcntl", "grp", "msvcrt", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty", "winreg",
}  # fmt: skip
CALLS = {
    "os": {
        "chown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getloadavg", "getpgid", "getuid", "kill",
        "killpg", "link", "lockf", "mkfifo", "mknod", "nice", "O_DIRECTORY", "O_NOFOLLOW", "openpty", "pread",
        "pwrite", "sched_getaffinity", "sched_setaffinity", "sendfile", "setpgid", "setpgrp", "setsid", "statvfs",
        "symlink", "sysconf", "uname", "wait", "wait3", "wait4", "waitpid", "name",
    },
    "sys": {"platform", "getwindowsversion"},
    "signal": {
        "SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGUSR1", "SIGUSR2", "alarm", "pause",
        "pthread_kill", "setitimer", "sigwait",
    },
    "socket": {"AF_UNIX", "SO_REUSEPORT"},
    "time": {"tzset"},
}  # fmt: skip
METHODS = {"symlink_to", "hardlink_to", "add_signal_handler", "add_reader", "lchmod", "owner", "group_id"}


def platform_calls(code):
    """What in `code` not every system has: (line, name)."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            wanted = CALLS.get(node.module or "", set())
            if (node.module or "").split(".")[0] in MODULES:
                yield node.lineno, str(node.module)
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names if alias.name in wanted)
        elif isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.attr in CALLS.get(node.value.id, ()):
                yield node.lineno, f"{node.value.id}.{node.attr}"
            elif node.attr in METHODS:
                yield node.lineno, node.attr


def text_without_encoding(code):
    """Text files and child processes that are read in whatever encoding the system has: (line, name)."""
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if "encoding" in given or None in given:
            continue
        if (name == "read_text" and not node.args) or (name == "write_text" and len(node.args) < 2):
            yield node.lineno, name
        elif name in ("open", "fdopen"):
            modes = [arg.value for arg in [*node.args, *given.values()] if isinstance(arg, ast.Constant)]
            of_a_path = isinstance(node.func, ast.Name) or not node.args or bool(modes)
            if of_a_path and not any(isinstance(mode, str) and "b" in mode for mode in modes):
                yield node.lineno, name
        elif name in ("run", "Popen", "check_output") and ("text" in given or "universal_newlines" in given):
            yield node.lineno, name


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import fcntl", ["fcntl"]),
        ("from os import fork", ["os.fork"]),
        ("import os\nif os.name == 'nt': pass", ["os.name"]),
        ("import signal\nsignal.signal(signal.SIGTERM, f)", []),
        ("path.symlink_to(other)", ["symlink_to"]),
        ("import os\nos.replace(a, b)", []),
    ],
)
def test_what_not_every_system_has_is_told(code, found):
    assert [name for _, name in platform_calls(code)] == found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("path.read_text()", ["read_text"]),
        ("path.write_text(text, encoding='utf-8')", []),
        ("open('rows.jsonl')", ["open"]),
        ("path.open('rb')", []),
        ("path.open()", ["open"]),
        ("Ledger.open(path)", []),
        ("subprocess.run(words, text=True)", ["run"]),
    ],
)
def test_text_in_the_encoding_of_the_system_is_told(code, found):
    assert [name for _, name in text_without_encoding(code)] == found


@pytest.mark.parametrize(("look", "allowed"), [(platform_calls, [ONE_PLACE]), (text_without_encoding, [])])
def test_no_module_depends_on_the_system(look, allowed):
    found = [
        f"{file.relative_to(SOURCE)}:{line} {name}"
        for file in sorted(SOURCE.rglob("*.py"))
        if file not in allowed
        for line, name in look(file.read_text(encoding="utf-8"))
    ]
    assert found == []
