"""The command line ``unionhub``. Exit codes: 0 done, 1 the work failed, 2 wrong usage or configuration."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
import orjson

from hub import __version__, db_commands, log
from hub.contract import Command, Report
from hub.control import all_commands, call_running, is_usage, run_command
from hub.db_commands import FileCommand
from hub.errors import AlreadyRunning, Busy, HubError
from hub.model import Json
from hub.plugins import Registry, load_plugins
from hub.render import progress_line, table_of
from hub.settings import Configuration, load, write_default, write_simulator_secrets

CONFIG = click.option(
    "--config", "-c", "folder", type=click.Path(path_type=Path), default=Path("config"), show_default=True,
    help="Thư mục cấu hình / configuration folder",
)  # fmt: skip
_registry: Registry | None = None


def registry() -> Registry:
    """The installed plugins, loaded once per process."""
    global _registry
    if _registry is None:
        _registry = load_plugins()
    return _registry


def load_configuration(folder: Path) -> Configuration:
    known = registry()
    # The public passwords of our own simulators, so that the shipped configuration starts as it is.
    write_simulator_secrets(folder.absolute())
    return load(
        folder.absolute(),
        os.environ,
        known.connector_types,
        known.event_types,
        known.handlers,
        broken_plugins=bool(known.broken),
    )


def _fail(said: str, code: int) -> None:
    click.echo(said, err=True)
    raise SystemExit(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="unionhub")
def app() -> None:
    """Union Hub: sự kiện vào, lượt gửi ra, không mất gì / events in, deliveries out, nothing lost."""


@app.group()
def db() -> None:
    """Cơ sở dữ liệu / the database."""


@app.command()
@click.argument("folder", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Viết cấu hình mặc định có chú giải / write the commented default configuration."""
    for path in write_default(folder):
        click.echo(path)


@app.command()
@CONFIG
def check(folder: Path) -> None:
    """Kiểm tra cấu hình, không chạy gì / check the configuration, start nothing."""
    config = load_configuration(folder)
    problems = [*(f"{b.name}: {b.why}" for b in registry().broken), *map(str, config.left_out)]
    for problem in problems:
        click.echo(problem, err=True)
    click.echo(
        f"Cấu hình đúng: {len(config.connections)} kết nối, {len(config.subscriptions)} đăng ký nhận"
        f" / configuration is valid: {len(config.connections)} connections, {len(config.subscriptions)} subscriptions"
    )
    click.echo(_database(config))
    if problems:
        raise SystemExit(1)


def _database(config: Configuration) -> str:
    """Which database a start would use; a PostgreSQL server is asked, since an address alone says little."""
    if not config.is_postgres:
        return f"Cơ sở dữ liệu: tệp {config.database} / database: the file {config.database}"
    from hub.store.look import look
    from hub.store.migrate import CORE, Owner

    owners = [CORE, *(Owner(s.owner, s.versions) for s in registry().schemas.values())]
    found = asyncio.run(look(config.hub.database_url, owners))
    vi, en = {
        "none": ("còn trống, bảng được tạo khi chạy lần đầu", "empty, its tables are made at the first start"),
        "older": ("bảng cũ hơn, được nâng cấp khi chạy", "its tables are older, they are upgraded at the next start"),
        "current": ("sẵn sàng", "ready"),
    }[found.tables]
    return f"Cơ sở dữ liệu: PostgreSQL {found.place}, {vi} / database: PostgreSQL {found.place}, {en}"


@app.command()
@click.option("--json", "as_json", is_flag=True)
def plugins(as_json: bool) -> None:
    """Liệt kê phần mở rộng và lỗi của chúng / list plugins and what is wrong with them."""
    known = registry()
    rows: list[Json] = [
        {"name": p.name, "version": p.version, "hooks": ", ".join(p.hooks), "error": ""} for p in known.plugins
    ]
    rows += [{"name": b.name, "version": "", "hooks": "", "error": b.why} for b in known.broken]
    click.echo(orjson.dumps(rows).decode() if as_json else table_of({"plugins": rows}, _lang()))


@app.command()
@CONFIG
@click.option("--console-token", is_flag=True, help="Hỏi mã truy cập trang vận hành / ask for a token at the console")
def run(folder: Path, console_token: bool) -> None:
    """Chạy hub đến khi nhận SIGTERM hoặc Ctrl-C / run the hub until SIGTERM or Ctrl-C."""
    from hub.serve import serve_forever

    log.configure()
    for broken in registry().broken:
        log.log("plugin.left_out", plugin=broken.name, code=broken.code, why=broken.why)
    config = load_configuration(folder)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve_forever(config, registry(), with_token=console_token))


@app.command()
@CONFIG
def simulators(folder: Path) -> None:
    """Chạy các đối tác mô phỏng mà cấu hình trỏ tới / run the simulated partners the configuration points at."""
    from hub.simulators import run_simulators

    raise SystemExit(run_simulators(load_configuration(folder), registry()))


@app.command()
@click.option("--once", is_flag=True, help="Chạy đến khi xong rồi thoát / until settled, then exit")
@click.option("--seed", type=int, default=1, show_default=True, help="Hạt giống dữ liệu mẫu / seed of the sample data")
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="Thư mục chạy / working folder")
@click.option("--port", type=int, default=8080, show_default=True, help="Cổng trang vận hành / console port")
@click.option(
    "--database-url", default="", metavar="URL",
    help="Cơ sở dữ liệu PostgreSQL trống, thay cho tệp; mật khẩu để trong PGPASSFILE"
    " / an empty PostgreSQL database instead of a file; its password in PGPASSFILE",
)  # fmt: skip
def demo(once: bool, seed: int, folder: Path | None, port: int, database_url: str) -> None:
    """Chạy công việc chính với dữ liệu mẫu / run the main job with sample data."""
    from hub.demo import run_demo

    raise SystemExit(run_demo(once=once, seed=seed, folder=folder, port=port, database_url=database_url))


@db.command("upgrade")
@CONFIG
def db_upgrade(folder: Path) -> None:
    """Nâng cấp bảng dữ liệu / bring the tables to this version."""
    from hub.app import HubApp

    async def upgrade() -> None:
        hub = HubApp(load_configuration(folder), registry())
        await hub.store.open()
        await hub.store.close()

    asyncio.run(upgrade())
    click.echo("Đã ở phiên bản mới nhất / up to date")


# -- commands of the core and of plugins -----------------------------------------------------------


def _execute(command: Command, name: str, folder: Path, params: Mapping[str, Any], as_json: bool) -> None:
    """Through the running hub, else in this process under the lock."""
    log.configure()
    config = load_configuration(folder)
    report = _reporter(config, as_json)

    async def execute() -> Json:
        from hub.app import HubApp

        result = await call_running(config, name, params, report)
        if result is not None:
            return result
        hub = HubApp(config, registry())
        await hub.open()
        try:
            return await run_command(hub, name, params, report)
        finally:
            await hub.stop()

    _answer(command, asyncio.run(execute()), config, as_json)


def _execute_on_files(command: FileCommand, name: str, folder: Path, params: Mapping[str, Any], as_json: bool) -> None:
    """In this process, whether a hub runs or not."""
    config = load_configuration(folder)
    checked = command.params.model_validate(params)
    _answer(command, command.run(config, registry(), checked, _reporter(config, as_json)), config, as_json)


def _reporter(config: Configuration, as_json: bool) -> Report:
    def report(progress: Mapping[str, Any]) -> None:
        if not as_json:
            click.echo(progress_line(progress, config.hub.lang), err=True)

    return report


def _answer(command: Command | FileCommand, result: Json, config: Configuration, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps(result, default=str, option=orjson.OPT_INDENT_2).decode())
    else:
        click.echo((command.render or table_of)(result, config.hub.lang))
    if result.get("failed"):
        raise SystemExit(1)


def _click_type(annotation: Any) -> tuple[click.ParamType[Any] | type, bool]:
    """A pydantic field's annotation as a click type, and whether it is a flag."""
    options = [a for a in get_args(annotation) if a is not type(None)]
    if get_origin(annotation) is Literal:
        return click.Choice([str(o) for o in options]), False
    if len(options) == 1:
        return _click_type(options[0])
    if annotation is bool:
        return bool, True
    if isinstance(annotation, type) and issubclass(annotation, Path):
        return click.Path(path_type=Path), False
    if isinstance(annotation, type) and hasattr(annotation, "__members__"):
        return click.Choice([m.value for m in annotation.__members__.values()]), False
    return (int if annotation is int else float if annotation is float else str), False


def _parameters(command: Command | FileCommand) -> list[click.Parameter]:
    parameters: list[click.Parameter] = []
    for field_name, field in command.params.model_fields.items():
        kind, is_flag = _click_type(field.annotation)
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        shown = field.alias or field_name
        if extra.get("argument"):
            parameters.append(click.Argument([field_name], type=kind, required=field.is_required()))
        elif is_flag:
            parameters.append(
                click.Option([f"--{shown.replace('_', '-')}", field_name], is_flag=True, help=field.description)
            )
        else:
            parameters.append(
                click.Option(
                    [f"--{shown.replace('_', '-')}", field_name],
                    type=kind,
                    required=field.is_required(),
                    help=field.description,
                )
            )
    parameters.append(
        click.Option(["--config", "-c", "_folder"], type=click.Path(path_type=Path), default=Path("config"))
    )
    parameters.append(click.Option(["--json", "_json"], is_flag=True, help="JSON"))
    return parameters


def _callback(command: Any, name: str, execute: Callable[..., None]) -> Callable[..., None]:
    def run_it(_folder: Path, _json: bool, **values: Any) -> None:
        params: dict[str, Any] = {}
        for field_name, value in values.items():
            if value is None:
                continue
            key = command.params.model_fields[field_name].alias or field_name
            params[key] = str(value.absolute()) if isinstance(value, Path) else value
        execute(command, name, _folder, params, _json)

    return run_it


def build() -> click.Group:
    """The whole command line: the fixed commands and one group per plugin."""
    root = app
    for name, command in all_commands(registry()).items():
        group: click.Group = root
        if command.group:
            found = root.commands.get(command.group)
            if not isinstance(found, click.Group):
                found = click.Group(command.group, help=_GROUPS.get(command.group, command.group))
                root.add_command(found)
            group = found
        group.add_command(_click_command(command, name, _execute))
    for on_files in db_commands.COMMANDS:
        db.add_command(_click_command(on_files, f"db {on_files.name}", _execute_on_files))
    return root


def _click_command(command: Command | FileCommand, name: str, execute: Callable[..., None]) -> click.Command:
    return click.Command(
        command.name,
        params=_parameters(command),
        callback=_callback(command, name, execute),
        help=f"{command.help_vi} / {command.help_en}",
    )


_GROUPS = {
    "deliveries": "Lượt gửi / deliveries",
    "events": "Sự kiện / events",
    "connections": "Kết nối / connections",
    "repairs": "Việc cần xử lý / repairs",
    "sync": "Lượt chạy / runs",
    "keys": "Khóa API / API keys",
    "requests": "Yêu cầu gửi đến / inbound requests",
    "members": "Đoàn viên / members",
    "campaigns": "Đợt gửi tin / campaigns",
    "documents": "Văn bản / documents",
    "batches": "Đợt gửi / batches",
    "sms": "Tin nhắn SMS / SMS",
    "subjects": "Xóa dữ liệu của một người / erasing a person",
}


def _lang() -> str:
    return "en" if os.environ.get("UNIONHUB_LANG") == "en" else "vi"


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop where it is installed: a quarter more requests for nothing."""
    with suppress(ImportError):
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


def main() -> None:
    try:
        build()(standalone_mode=True)
    except AlreadyRunning as error:
        _fail(f"một tiến trình khác đang dùng sổ cái này; chưa có gì thay đổi / {error}; nothing was changed", 2)
    except HubError as error:
        told = (_of_postgres(error) if isinstance(error, Busy) else None) or error
        _fail(str(told), 2 if is_usage(told) else 1)
    except OSError as error:
        name, why = error.filename or "", error.strerror or str(error)
        _fail(f"không đọc hoặc ghi được {name}: {why} / cannot read or write {name}: {why}", 1)
    except sqlite3.Error as error:
        # SQLite's own words: a file that is no database, a full disk, a lock.
        _fail(f"không mở được cơ sở dữ liệu: {error} / cannot open the database: {error}", 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if (known := _of_postgres(error)) is None:
            raise
        _fail(str(known), 2 if is_usage(known) else 1)


def _of_postgres(error: Exception) -> HubError | None:
    """What an operator can do about an error of PostgreSQL's, or one it caused; None: it is none of the known ones."""
    if "asyncpg" not in sys.modules:
        return None
    from hub.store.postgres.connect import explained

    return explained(error, "PostgreSQL")


if __name__ == "__main__":
    main()
