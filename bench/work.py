#!/usr/bin/env python3
"""Work on a kept path, which hyperfine times: bench/work renames|replacements NUMBER DIR"""
import os
import sys


def replace(path, content):
    """As programs save: a new file, durable, renamed over the old one."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".new", path)


if __name__ == "__main__":
    kind, number, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    for index in range(number):
        if kind == "replacements":
            replace(f"{directory}/state", f"state {index}\n")
        else:
            os.close(os.open(f"{directory}/new", os.O_CREAT | os.O_WRONLY))
            os.rename(f"{directory}/new", f"{directory}/{index}")
    os.execvp("sync", ["sync", "--file-system", directory])
