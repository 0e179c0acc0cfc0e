"""A worker of pytest-xdist that is forked from a process that has imported what tests import.

It does what `python -c` does with the line by which execnet starts a worker: it runs the code that
comes in a line of stdin, as a literal.
"""

import ast
import sys

if __name__ == "__main__":
    exec(ast.literal_eval(sys.stdin.readline()))
