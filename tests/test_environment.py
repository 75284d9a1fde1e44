"""The rows of `vilau env`."""

import json
import platform
import subprocess
import sys
from importlib import metadata

import diffusers
import torch
import transformers

from vilau_hf import __version__, environment
from vilau_hf.cli import main
from vilau_hf.tested_versions import is_tested_transformers


def test_env_prints_a_row_for_each_version_and_the_devices(capsys):
    main(["env"])
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["vilau_hf"] == __version__ and rows["python"] == platform.python_version()
    assert rows["diffusers"] == diffusers.__version__
    assert rows["torch"].split()[0] == metadata.version("torch")
    side = "inside" if is_tested_transformers(transformers.__version__) else "OUTSIDE"
    assert rows["transformers"].startswith(f"{transformers.__version__} ({side} the tested window 5.20.2 to 5.24.x)")
    assert set(environment.PACKAGES) < set(rows)
    if torch.cuda.is_available():
        assert torch.cuda.get_device_name(0) in rows["devices"]
    elif not torch.backends.mps.is_available():
        assert rows["devices"] == "CPU only"


def test_env_names_missing_packages_and_untested_versions(capsys, monkeypatch):
    installed = metadata.version

    def version(name):
        if name == "peft":
            raise metadata.PackageNotFoundError(name)
        return "5.30.0" if name == "transformers" else installed(name)

    monkeypatch.setattr(environment.metadata, "version", version)
    main(["env"])
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["peft"] == "not installed"
    assert rows["transformers"] == "5.30.0 (OUTSIDE the tested window 5.20.2 to 5.24.x)"
    main(["env", "--json"])
    described = json.loads(capsys.readouterr().out)
    assert described["packages"]["peft"] is None and described["transformers_is_tested"] is False
    assert described["packages"]["pillow"] == metadata.version("pillow")


def test_env_works_where_the_libraries_cannot_be_imported():
    script = (
        "import sys\nfor name in ('torch', 'transformers', 'diffusers'): sys.modules[name] = None\n"
        "from vilau_hf.cli import main\nmain(['env'])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "cannot be imported" in run.stdout and transformers.__version__ in run.stdout
