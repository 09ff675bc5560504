"""Every module can be imported where modules of Unix are missing, as on Windows."""

import subprocess
import sys

SCRIPT = """
import builtins, importlib, pkgutil, sys
UNIX, import_any = {"resource", "fcntl", "termios", "pwd", "grp"}, builtins.__import__
def import_on_windows(name, globals=None, *others, **options):
    if name in UNIX and (globals or {}).get("__name__", "").startswith("convllava"):
        raise ModuleNotFoundError(name)  # other packages know themselves what a system has
    return import_any(name, globals, *others, **options)
builtins.__import__ = import_on_windows
import convllava
failed = []
for module in pkgutil.walk_packages(convllava.__path__, "convllava."):
    if module.name.endswith(("__main__", "lmms_eval_model", "triton_conv_norm", "vlmevalkit")):
        continue  # they run at import, or need an optional package
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        failed.append(f"{module.name}: {error}")
sys.exit("\\n".join(failed) or 0)
"""


def test_every_module_is_imported_without_the_modules_of_unix() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
