"""The `hotoven` command: Ctrl-C ends it at once with one line, from the imports on.

Beside the package and not in it: importing anything of the package takes seconds, in which Ctrl-C
must already be heard. What the command does is in `hotoven.cli`.
"""

import os
import signal
import sys
import threading

RESUMABLE = ("reproduce", "train", "evaluate")
INTERRUPTED = 130  # the exit code that shells give to SIGINT


def main() -> int:
    """Runs one command; returns the exit code."""
    stop_on_interrupt()
    from hotoven import cli  # only now: see above

    return cli.main()


def stop_on_interrupt() -> None:
    """From now on SIGINT ends the process, whatever it is doing; to be called by the main thread.

    KeyboardInterrupt would not do: a callback of JAX swallows it, an import turns it into a
    traceback, and it waits for a program that compiles. Nothing is lost by an end at any moment,
    since every file is written atomically and a run can be resumed.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as under nohup
        return
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    threading.Thread(target=_stop, args=(read_end,), daemon=True).start()
    signal.set_wakeup_fd(write_end)  # written to at once, even while the main thread is busy in C
    signal.signal(signal.SIGINT, lambda number, frame: None)


def _stop(read_end: int) -> None:
    """Waits for a signal, then says one line and ends the process."""
    os.read(read_end, 1)
    hint = "; --resume goes on" if sys.argv[1:2] and sys.argv[1] in RESUMABLE else ""
    # a progress bar leaves the cursor hidden and in its line
    before = "\x1b[?25h\n" if os.isatty(2) else ""
    os.write(2, f"{before}hotoven: stopped{hint}\n".encode())
    os._exit(INTERRUPTED)  # not sys.exit: threads that still compile would turn it into an abort


if __name__ == "__main__":
    sys.exit(main())
