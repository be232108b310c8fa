"""What all tests rely on."""

from __future__ import annotations

import signal

# A shell without job control starts what is in the background with SIGINT ignored, and children
# would inherit that: programs that tests interrupt would not hear it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
