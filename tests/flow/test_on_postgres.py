"""The hub and its plugins on PostgreSQL: every SQL text, the command line, health, and what it says of a bad database."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import json
import logging
import os
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

import hub
import plugins
from hub import log as hub_log
from hub import views
from hub.app import HubApp
from hub.hookspecs import PROJECT  # noqa: F401 - placeholder
