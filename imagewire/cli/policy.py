"""`imagewire policy`: check, test, compare and publish policies before they meet an image."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import Parameter

if TYPE_CHECKING:
    from imagewire.policy_diff import Comparison
    from operators.policy import Policy
    from operators.policy_cases import Outcome
    from operators.policy_file import Remark

policy = cyclopts.App(
    name="policy",
    help="Check, test, compare and publish policies: check, test, diff, publish.",
    default_parameter=cyclopts.Parameter(negative=()),
)

Data = Annotated[Path | None, Parameter(name=["--data", "-d"])]
Config = Annotated[Path | None, Parameter(name=["--config", "-c"])]


@policy.command
def check(
    file: Path | None = None,
    /,
    *,
    strict: bool = False,
    json: bool = False,
    config: Config = None,
) -> int:
    """Check a policy: syntax, names, types, and rules that can never decide anything.

    Ends with exit code 1 if a worker would refuse the policy.

    Args:
        file: The policy; the one in the settings if none is given.
        strict: Exit code 1 for warnings too.
        json: Print one JSON object.
        config: Settings file that names the policy and its calibrations.
    """
    from imagewire.cli.outcome import EXIT_FAILED
    from imagewire.cli.terminal import console, print_error, print_json, print_note
    from operators.operator import OperatorError
    from operators.policy_doubts import doubts

    try:
        checked = _load(file, config)
    except OperatorError as error:
        if json:
            print_json({"usable": False, "error": str(error)})
        else:
            print_error(str(error))
        return EXIT_FAILED
    found = doubts(checked)
    if json:
        print_json(
            {
                "usable": True,
                "version": checked.version,
                "rules": [_rule_fields(rule) for rule in checked.rules],
                "warnings": [_remark_fields(remark) for remark in found],
            }
        )
    else:
        console.print(_rules_table(checked))
        for remark in found:
            print_note(
                f"warning {file or 'policy'}:{remark.line}:{remark.column}: "
                f"rule '{remark.rule}': {remark.message}"
            )
        plural = "warning" if len(found) == 1 else "warnings"
        print_note(f"{checked.version}: {len(checked.rules)} rules, {len(found)} {plural}")
    return EXIT_FAILED if found and strict else 0


@policy.command
def test(file: Path, cases: Path, /, *, json: bool = False, config: Config = None) -> int:
    """Try a policy on images that are described in a file, and compare the verdicts.

    Ends with exit code 1 if a verdict is not the expected one.

    Args:
        file: The policy.
        cases: TOML with [[cases]]: findings, and the action and rules that are expected.
        json: Print one JSON object.
        config: Settings file that names the calibrations.
    """
    from imagewire.cli.outcome import EXIT_FAILED, UsageError
    from imagewire.cli.terminal import console, print_json, print_note
    from operators.policy_cases import MAX_BYTES, outcomes, read_cases

    tried = _load(file, config)
    try:
        with cases.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{cases}: the cases cannot be read ({error.strerror})") from error
    done = outcomes(tried, read_cases(content, str(cases)))
    failed = [outcome for outcome in done if outcome.mistakes]
    if json:
        print_json(
            {
                "policy": tried.version,
                "passed": len(done) - len(failed),
                "failed": len(failed),
                "cases": [_outcome_fields(outcome) for outcome in done],
            }
        )
    else:
        if failed:
            console.print(_failures_table(failed))
        print_note(f"{tried.version}: {len(done) - len(failed)} of {len(done)} cases as expected")
    return EXIT_FAILED if failed else 0


@policy.command
def diff(
    new: Path,
    /,
    *,
    against: Path | None = None,
    since: str = "7d",
    feed: tuple[str, ...] = (),
    json: bool = False,
    data: Data = None,
    config: Config = None,
) -> int:
    """Evaluate a policy over the findings that are stored, and show which verdicts change.

    No model runs. Verdicts are compared with those that are stored, or with another policy's.

    Args:
        new: The policy to try.
        against: Compare with this policy instead of the verdicts that are stored.
        since: Images since: 30m, 2h, 7d (ago) or 2026-01-31T12:00:00Z, by event time.
        feed: Only these feeds.
        json: Print one JSON object.
        data: Data directory of the running stack to ask.
        config: Settings file that names the ClickHouse server to ask.
    """
    from rich.progress import Progress

    from imagewire.cli.terminal import error_console, print_json
    from imagewire.connection import find_connection
    from imagewire.policy_diff import compare
    from imagewire.reachability import reaching
    from imagewire.replaying import since_ms
    from imagewire.settings import ConfigurationError
    from sinks.clickhouse.reader import ClickHouseReader

    try:
        begin = since_ms(since)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f"--since: {error}") from error
    tried = _load(new, config)
    other = None if against is None else _load(against, config)
    connection = find_connection(data, config)
    with (
        reaching(connection, "ClickHouse"),
        ClickHouseReader(connection.settings.clickhouse) as reader,
        Progress(
            console=error_console, transient=True, disable=json or not error_console.is_terminal
        ) as progress,
    ):
        task = progress.add_task("images", total=None)
        compared = compare(
            reader,
            tried,
            other,
            begin,
            feed,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    if json:
        print_json(compared.fields())
    else:
        _show_comparison(compared)
    return 0


@policy.command
def publish(
    file: Path | None = None,
    /,
    *,
    name: str | None = None,
    withdraw: bool = False,
    data: Data = None,
    config: Config = None,
) -> int:
    """Put a policy in force on every worker that follows the control topic.

    It is checked first; one that cannot be used is not published. It stays in force, also for
    workers that start later, until another is published or it is withdrawn.

    Args:
        file: The policy.
        name: Name that the workers follow (policy.name); the settings' if none is given.
        withdraw: Send the workers back to the policy in their settings.
        data: Data directory of the running stack.
        config: Settings file that names the Kafka to use.
    """
    from imagewire.cli.outcome import UsageError
    from imagewire.cli.terminal import print_note
    from imagewire.connection import find_connection
    from imagewire.policy_topic import publish_policy
    from imagewire.reachability import reaching
    from operators.calibration import read_calibration
    from operators.policy import Policy

    if (file is None) != withdraw:
        raise UsageError("name the policy to publish, or --withdraw, and not both")
    connection = find_connection(data, config)
    key = name or connection.settings.policy.name
    content, said = None, "withdrawn; workers go back to the policy in their settings"
    if file is not None:
        _load(file, config)
        content = file.read_bytes()
        # As workers will call it: after the name that it is published under.
        files = connection.settings.policy.calibration_files()
        calibrations = [read_calibration(each) for each in files]
        said = f"{Policy.read(content, key, str(file), calibrations).version} is published"
    with reaching(connection, "Kafka"):
        asyncio.run(publish_policy(connection.settings.kafka, key, content))
    print_note(f"policy '{key}': {said}")
    return 0


def _load(file: Path | None, config: Path | None) -> Policy:
    from imagewire.settings import load_settings
    from operators.policy import Policy

    settings = load_settings(config).settings.policy
    return Policy.load(file or settings.file, settings.calibration_files())


def _rule_fields(rule: Any) -> dict[str, Any]:
    return {
        "name": rule.name,
        "action": rule.action,
        "priority": rule.priority,
        "severity": rule.severity,
        "category": rule.category,
        "feeds": list(rule.feeds),
        "enabled": rule.enabled,
        "shadow": rule.shadow,
        "sample": rule.sample,
        "expires": None if rule.expires is None else rule.expires.isoformat(),
        "reads": sorted(rule.condition.variables),
        "line": rule.line,
    }


def _remark_fields(remark: Remark) -> dict[str, Any]:
    return {
        "rule": remark.rule,
        "line": remark.line,
        "column": remark.column,
        "message": remark.message,
    }


def _outcome_fields(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.case.name,
        "passed": not outcome.mistakes,
        "action": outcome.action,
        "rules": list(outcome.rules),
        "shadow": list(outcome.shadow),
        "mistakes": list(outcome.mistakes),
    }


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> Any:
    from rich.table import Table
    from rich.text import Text

    from imagewire.cli.terminal import printable

    table = Table(title=title or None, title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def _rules_table(checked: Policy) -> Any:
    rows = []
    for rule in checked.rules:
        limits = [] if rule.enabled else ["switched off"]
        limits += ["shadow"] if rule.shadow else []
        limits += [f"sample {rule.sample:g}"] if rule.sample < 1 else []
        limits += [f"until {rule.expires}"] if rule.expires else []
        limits += [f"feeds {', '.join(rule.feeds)}"] if rule.feeds else []
        rows.append(
            (
                *(rule.name, rule.action, str(rule.priority), rule.severity, rule.category),
                *(", ".join(sorted(rule.condition.variables)), "; ".join(limits)),
            )
        )
    headings = ("rule", "action", "priority", "severity", "category", "reads", "limits")
    return _table(headings, rows)


def _failures_table(failed: Sequence[Outcome]) -> Any:
    return _table(
        ("case", "expected", "got", "rules that fired", "what is wrong"),
        [
            (
                outcome.case.name,
                outcome.case.expect.action,
                outcome.action,
                ", ".join(outcome.rules + tuple(f"({name})" for name in outcome.shadow)),
                "; ".join(outcome.mistakes),
            )
            for outcome in failed
        ],
    )


def _show_comparison(compared: Comparison) -> None:
    from imagewire.cli.terminal import console, print_note

    if compared.changes:
        console.print(
            _table(
                ("feed", "from", "to", "images", "for example"),
                [
                    (feed, before, after, str(change.images), ", ".join(change.examples))
                    for (feed, before, after), change in compared.ordered_changes()
                ],
                "verdicts that change",
            )
        )
    if compared.rules:
        console.print(
            _table(
                ("rule", "feed", "fired", "would fire", "newly, for example"),
                [
                    (*name, str(rule.before), str(rule.after), ", ".join(rule.examples))
                    for name, rule in sorted(compared.rules.items())
                    if rule.before or rule.after
                ],
                "rules",
            )
        )
    for note in compared.notes:
        print_note(f"note: {note}")
    print_note(
        f"{compared.after} against {compared.before}: {compared.changed} of {compared.images} "
        "verdicts change"
    )
