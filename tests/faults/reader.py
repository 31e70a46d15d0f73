"""A process that opens files of weights in forks of its own, each with little memory to spare and with every event written down.

Reads one path a line; answers with one line of JSON: the error or the shapes read, the events that must not be, the memory taken.
Of a path behind "load " the whole model is loaded.
"""

import json
import os
import resource
import signal
import sys
from pathlib import Path

from vitlab.errors import VitlabError
from vitlab.weights.format import open_tensors
from vitlab.weights.load import load

SPARE = 256 << 20
PATIENCE = 20
"""After so many seconds the process dies."""
FORBIDDEN = {
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "exec",
    "import",
    "pickle.find_class",
}
FORBIDDEN |= {"os.remove", "os.rename", "os.mkdir", "os.putenv", "ctypes.dlopen", "code.__new__", "marshal.loads"}
FORBIDDEN_MODULES = ("socket", "urllib", "http", "ftplib", "webbrowser", "tempfile", "shutil")


def is_forbidden(event, args):
    """Whether nothing that only reads does this.

    numpy parses the header of an array by ast.literal_eval: that is a `compile` of "<unknown>" to a tree, which nothing runs (it
    would be an `exec`). torch raises no event of its own here but an `open` for reading.
    """
    if event == "open":
        return bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if event == "compile":
        return args[1] != "<unknown>"
    return event in FORBIDDEN or event.split(".")[0] in FORBIDDEN_MODULES


def status(name):
    """Return a line of /proc/self/status in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) << 10


def read(line):
    """Return what came of reading all of the path in `line`, or of loading it."""
    verb, _, path = line.rpartition(" ")
    try:
        if verb == "load":
            return {"model": load(path).settings.describe()}
        with open_tensors(Path(path)) as file:
            return {"shapes": {name: list(file.read(name).shape) for name in file.shapes}}
    except VitlabError as error:
        return {"error": str(error)}
    except BaseException as error:
        return {"crash": f"{type(error).__name__}: {error}"}


def watched(line):
    events, watching = [], True
    before = status("VmSize"), status("VmRSS")
    resource.setrlimit(resource.RLIMIT_AS, (before[0] + SPARE,) * 2)
    sys.addaudithook(lambda event, args: events.append(event) if watching and is_forbidden(event, args) else None)
    signal.alarm(PATIENCE)
    result = read(line)
    watching = False
    return result | {"events": events, "space": status("VmPeak") - before[0], "memory": status("VmHWM") - before[1]}


def serve():
    for path in sys.argv[1:]:  # whatever is imported at first use is imported before the forks
        read(path)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.write(1, (json.dumps(watched(line.rstrip("\n"))) + "\n").encode())
            os._exit(0)
        if os.waitpid(pid, 0)[1] != 0:
            os.write(1, b'{"crash": "the process died"}\n')


if __name__ == "__main__":
    serve()
