"""Private names borrowed from other libraries, behind one door.

Each function below borrows one private name. Its docstring gives the version that it was checked with, the reason, and
the public alternative that would replace it. ``tests/test_compat.py`` fails with the name of whatever was renamed.
"""
