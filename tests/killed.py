"""Helpers for tests of loggers: a run whose process is killed after a validation, and then resumed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from command import environment, small_run

KILLER = '''
import os, signal, time
from pathlib import Path
from loopwright import Callback

class Kill(Callback):
    """Kills the process at the end of a validation, once. Before, waits until values are sent."""

    def __init__(self, step, waits, record, api_key="", place=""):
        self.step, self.waits, self.record = step, waits, record

    def on_validate_end(self, trainer, model, loop):
        if trainer.global_step == self.step and not Path("killed").exists():
            Path("killed").touch()
            sent = trainer.run_dir / self.record
            while self.waits and not (sent.exists() and '"val/loss"' in sent.read_text()):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
'''


def kill_and_resume(cwd: Path, logger: str, variables: Mapping[str, str], *words: str, waits: bool) -> Path:
    """Run the command until the validation of step 4, where it is killed, and resume it. Return the run directory.

    Args:
        cwd: directory of the command.
        logger: option of the group ``loggers``.
        variables: environment variables of the command.
        words: further overrides.
        waits: whether the process is killed only after the values of a validation were sent.
    """
    (cwd / "killer.py").write_text(KILLER)
    kill = f"+callbacks.kill={{_target_: killer.Kill, step: 4, record: {logger}.json, waits: {str(waits).lower()}}}"
    always = (kill, f"loggers=[json_lines,{logger}]", "loop.max_steps=6", "log_every_n_steps=1")
    assert _call(cwd, variables, *small_run(*always, *words)) == -signal.SIGKILL
    (run_dir,) = cwd.glob("outputs/*/*/")
    assert _call(cwd, variables, "resume", str(run_dir)) == 0
    return run_dir


def open_port() -> socket.socket:
    """Return a port of this machine that accepts connections, for `proxy_variables`."""
    server = socket.create_server(("127.0.0.1", 0))
    server.setblocking(False)
    return server


def proxy_variables(server: socket.socket) -> dict[str, str]:
    """Return environment variables with which a process takes the port for the proxy of the network."""
    address = f"http://127.0.0.1:{server.getsockname()[1]}"
    return dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"), address)


def has_connection(server: socket.socket) -> bool:
    """Return whether a process has connected to the port."""
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def lines_of(run_dir: Path) -> list[tuple[str, int, float]]:
    """Return the name, step and value of each line in ``metrics.jsonl``."""
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [(row["name"], row["step"], float(row["value"])) for row in rows]


def _call(cwd: Path, variables: Mapping[str, str], *words: str) -> int:
    command = [sys.executable, "-m", "loopwright", "--trust=killer", "--allow-env=PLANTED", *words]
    env = {**environment(cwd), **variables}
    return subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.DEVNULL, check=False, timeout=200).returncode
