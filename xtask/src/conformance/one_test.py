"""Runs one test of Eclipse paho.mqtt.testing, or lists the tests of a suite.

    one_test.py SUITE.py list
    one_test.py SUITE.py TEST HOST PORT

The suite runs as the program that it is, so that its own start sets host, port and topics. Only the end is another:
its `unittest.main` would read the command line a second time and fail on it, so that what stands here takes its place.
"""

import os
import runpy
import sys
import traceback
import unittest

PASSED, FAILED, UNKNOWN = 0, 1, 2


def one(name):
    """Runs the test with this name in the suite that is the main program now; never returns."""
    suite = unittest.TestSuite([sys.modules["__main__"].Test(name)])
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    # A test that was skipped or did not run is none that passed.
    passed = result.wasSuccessful() and result.testsRun == 1 and not result.skipped and not result.expectedFailures
    leave(PASSED if passed else FAILED)


def leave(code):
    """Ends at once: the clients of the suites have threads that may wait for ever."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main():
    suite, name = sys.argv[1:3]
    sys.path.insert(0, os.path.dirname(os.path.abspath(suite)))
    if name == "list":
        tests = runpy.run_path(suite)["Test"]
        print("\n".join(unittest.TestLoader().getTestCaseNames(tests)))
        leave(PASSED)
    os.dup2(1, 2)
    unittest.main = lambda: one(name)
    host, port = sys.argv[3:5]
    # Not `-h`, which the suites take for a part of `--help`; and two words for the port, as one of them expects.
    sys.argv = [suite, "--hostname=" + host, "--port", port]
    try:
        runpy.run_path(suite, run_name="__main__")
    except SystemExit:
        print("the suite ended without a test")
    except BaseException:
        traceback.print_exc()
    leave(UNKNOWN)


main()
