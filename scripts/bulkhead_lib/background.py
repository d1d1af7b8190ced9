"""Work that goes on beside a context."""

import threading


class Background:
    """_run() runs in a thread until it sees self.stop, which the context's end sets."""

    def __init__(self):
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.stop.set()
        self.thread.join()

    def _run(self):
        raise NotImplementedError
