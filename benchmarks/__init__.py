"""What zttrio's stack does in a second, beside what the kernel's does on the same machine.

``python -m benchmarks`` measures and prints one table; `docs/performance.md` says how to
read it.
"""
