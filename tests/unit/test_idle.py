"""What a hub that has nothing to do keeps in memory: a new dependency, or one that comes along, is seen here."""

from __future__ import annotations

import json
import subprocess
import sys

#: Packages of others that the running hub loads with every plugin of ours.
PACKAGES = {
    "aiohappyeyeballs", "aiohttp", "aiosignal", "annotated_types", "apscheduler", "attr", "cryptography", "dotenv",
    "frozenlist", "greenlet", "idna", "jinja2", "markupsafe", "multidict", "orjson", "pluggy", "prometheus_client",
    "propcache", "pydantic", "pydantic_core", "pydantic_settings", "sqlalchemy", "structlog", "typing_extensions",
    "typing_inspection", "tzlocal", "uuid_utils", "uvloop", "yarl",
}  # fmt: skip
#: Loaded when somebody asks for what needs them.
LATER = {
    "alembic",
    "asyncpg",
    "click",
    "openpyxl",
    "pygments",
    "python_calamine",
    "rich",
    "sqlalchemy.orm",
    "xlsxwriter",
}
CODE = """
import sys, json
import hub.serve
from hub.plugins import load_plugins
load_plugins()
print(json.dumps(sorted(sys.modules)))
"""


def test_an_idle_hub_loads_these_packages_and_no_others() -> None:
    said = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    modules = json.loads(said.stdout)
    own = {*sys.stdlib_module_names, "hub", "plugins", "cython_runtime"}
    found = {name.partition(".")[0] for name in modules} - own
    assert {name for name in found if not name.startswith("_")} <= PACKAGES
    assert not LATER & set(modules)
    assert len(modules) < 950, "what is needed once can be imported where it is needed"
