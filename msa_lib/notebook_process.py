"""Running papermill in a process of its own, of which nothing survives: no kernel, no worker of a kernel.

The caller starts `python -m msa_lib.notebook_process FOLDER`, which reads FOLDER/job.json and leaves
FOLDER/report.json. Every process of a run carries a marker in its environment, by which it is found through /proc.
Where there is no /proc (macOS), a kernel ends itself within a second of the process that started it. POSIX only.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent  # the folder that holds the package
_MARKER = "MSA_NOTEBOOK_RUN"


def run_in_own_process(job: dict[str, Any], timeout: float, log: Path | None = None) -> str | None:
    """Run one notebook in a new process and return why it failed, or None; its processes are gone afterwards.

    `job` holds the absolute paths `notebook` and `partial` (what is executed, where to), `parameters` (JSON; empty
    injects nothing) and in whole seconds `cell_timeout` and `start_timeout`; `timeout` bounds everything, in seconds.
    Text printed outside of cells is appended to `log`. None means that papermill saw no failure: that proves little.
    """
    marker = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="notebook-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        # The name "python3" may belong to another environment; JUPYTER_PATH comes first, so there it means this one.
        kernel = folder / "jupyter" / "kernels" / "python3" / "kernel.json"
        kernel.parent.mkdir(parents=True)
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": argv, "display_name": "Python 3 (ipykernel)", "language": "python"}
        kernel.write_text(json.dumps(spec), encoding="utf-8")
        env = {
            **os.environ,
            "JUPYTER_PATH": os.pathsep.join(filter(None, [str(folder / "jupyter"), os.environ.get("JUPYTER_PATH")])),
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
            "IPYTHONDIR": str(folder / "ipython"),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")])),
            "PYTHONSAFEPATH": "1",  # a file types.py in the working folder is nobody's module
            "TQDM_DISABLE": "1",
            _MARKER: f"{os.environ.get(_MARKER, '')} {marker}".strip(),  # a nested run ends with the outer one as well
        }
        env.pop("MPLBACKEND", None)  # the kernel shows figures inline
        log = Path(log) if log else folder / "log"
        command = [sys.executable, "-m", "msa_lib.notebook_process", str(folder)]
        with (
            log.open("ab") as sink,
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=sink, stderr=sink, cwd=_ROOT, env=env, start_new_session=True
            ) as worker,
        ):
            try:
                worker.wait(timeout)
            except subprocess.TimeoutExpired:
                return f"not finished after {timeout:g} s"
            finally:
                _end_processes(marker)
                worker.kill()
        try:
            return json.loads((folder / "report.json").read_text(encoding="utf-8"))["reason"]
        except (OSError, ValueError):
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            said = f" and the words {lines[-1][:200]!r}" if lines else ""
            return f"the process running it ended with exit code {worker.returncode}{said}"


def _end_processes(marker: str) -> None:
    """End every process that carries `marker`, first asking, then not."""
    for number, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + patience
        while (pids := _marked(marker)) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(0.05)


def _marked(marker: str) -> list[int]:
    """The other live processes started with `marker` in their environment; none where there is no /proc."""
    pids = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # someone else's, or gone meanwhile
            if marker.encode() in environ.read_bytes():
                pids.append(int(environ.parent.name))
    return [pid for pid in pids if pid != os.getpid()]


def _worker(folder: Path) -> None:
    """The process's own side: run the job in `folder`, leave the reason for failure in report.json."""
    threading.Thread(target=_end_with_caller, args=(folder,), daemon=True).start()
    tempfile.tempdir = str(folder)  # for the kernel's connection file, lest it stay when the kernel is killed
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    report = {"reason": _run_papermill(job)}
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    sys.stderr.flush()
    os._exit(0)  # nothing left to wait for; some setups hang at exit


def _end_with_caller(folder: Path) -> None:
    """Standard input ends when the caller is gone, killed perhaps: then nothing of the run may stay either."""
    os.read(0, 1)
    _end_processes(os.environ[_MARKER].split()[-1])
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _run_papermill(job: dict[str, Any]) -> str | None:
    """Execute into the partial file and return why it failed, or None; only a failed kernel start is tried again."""
    import papermill

    partial = Path(job["partial"])
    reason = ""
    for _ in range(2):
        try:
            papermill.execute_notebook(
                job["notebook"].replace("{", "{{").replace("}", "}}"),  # papermill formats its paths
                job["partial"].replace("{", "{{").replace("}", "}}"),
                job["parameters"] or None,
                kernel_name="python3",
                language="python",
                cwd=str(Path(job["notebook"]).parent),
                progress_bar=False,
                start_timeout=job["start_timeout"],
                execution_timeout=job["cell_timeout"],
            )
            return None
        except Exception as error:
            reason = _why(error, job["cell_timeout"])
            with contextlib.suppress(OSError, ValueError):
                cells = json.loads(partial.read_text(encoding="utf-8"))["cells"]
                if any(cell["metadata"].get("papermill", {}).get("start_time") for cell in cells):
                    return reason
    return f"the kernel did not start, tried twice: {reason}"


def _why(error: Exception, cell_timeout: int) -> str:
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    if isinstance(error, DeadKernelError):
        return "the kernel died (killed, or out of memory)"
    if isinstance(error, CellTimeoutError):
        return f"the cell ran longer than {cell_timeout} s"
    if isinstance(error, PapermillExecutionError):
        name, text = error.ename, error.evalue
    else:
        name, text = type(error).__name__, str(error)
    first = (text.strip().splitlines() or [""])[0][:300]
    return f"{name}: {first}" if first else name


if __name__ == "__main__":
    _worker(Path(sys.argv[1]))
