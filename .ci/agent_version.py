"""The agent's version, as constants in its source: read, bump, check.

Used by ``make agent-version-*`` and the workflow ``agent-version-bump.yml``.
"""

import argparse
import re
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTANTS = Path("node_agent/agent.py")
AGENT_SOURCES = ("node_agent", "pki", "proto/mesh")
VERSION = re.compile(r'^AGENT_VERSION = "(\d+\.\d+\.\d+)"$', re.MULTILINE)
BUILD_DATE = re.compile(r'^AGENT_BUILD_DATE = "(\d{4}-\d{2}-\d{2})"$', re.MULTILINE)


def find(pattern: re.Pattern[str], text: str, name: str) -> str:
    """The one value of a constant; exits with one line when it is not there."""
    match = pattern.search(text)
    if match is None:
        raise SystemExit(f"agent-version: {CONSTANTS} has no {name}")
    return match[1]


def git(root: Path, *args: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"agent-version: git {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def get(root: Path) -> str:
    text = (root / CONSTANTS).read_text()
    return f"{find(VERSION, text, 'AGENT_VERSION')} {find(BUILD_DATE, text, 'AGENT_BUILD_DATE')}"


def bump(root: Path, version: str | None, build_date: str) -> str:
    """Write the new version (None: the patch number plus one) and date; the version must rise."""
    text = (root / CONSTANTS).read_text()
    old = tuple(map(int, find(VERSION, text, "AGENT_VERSION").split(".")))
    if version is None:
        version = f"{old[0]}.{old[1]}.{old[2] + 1}"
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise SystemExit(f"agent-version: VERSION must be MAJOR.MINOR.PATCH, not {version!r}")
    if tuple(map(int, version.split("."))) <= old:
        raise SystemExit(f"agent-version: VERSION must be above {'.'.join(map(str, old))}, not {version}")
    try:
        date.fromisoformat(build_date)
    except ValueError:
        raise SystemExit(f"agent-version: BUILD_DATE must be YYYY-MM-DD, not {build_date!r}") from None
    text = VERSION.sub(f'AGENT_VERSION = "{version}"', text)
    (root / CONSTANTS).write_text(BUILD_DATE.sub(f'AGENT_BUILD_DATE = "{build_date}"', text))
    return version


def check(root: Path, base: str) -> str:
    """What is wrong, or nothing: agent sources changed since ``base`` need a new version, and all is committed."""
    dirty = git(root, "status", "--porcelain", "--", *AGENT_SOURCES).splitlines()
    if dirty:
        return f"uncommitted changes in the agent: {dirty[0][3:]}"
    changed = git(root, "diff", "--name-only", base, "HEAD", "--", *AGENT_SOURCES).splitlines()
    if not changed:
        return ""
    known = git(root, "ls-tree", "-r", "--name-only", base, "--", str(CONSTANTS))
    before = VERSION.search(git(root, "show", f"{base}:{CONSTANTS}")) if known else None
    if before and before[1] == find(VERSION, (root / CONSTANTS).read_text(), "AGENT_VERSION"):
        return (
            f"{changed[0]} changed since {base}, but AGENT_VERSION is still {before[1]}: make agent-version-bump"
        )
    return ""


def main(argv: list[str], root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(prog="agent-version")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("get")
    bumping = verbs.add_parser("bump")
    which = bumping.add_mutually_exclusive_group(required=True)
    which.add_argument("version", nargs="?")
    which.add_argument("--patch", action="store_true")
    bumping.add_argument("--build-date", default=datetime.now(UTC).date().isoformat())
    checking = verbs.add_parser("check")
    checking.add_argument("--base", default="HEAD~1")
    args = parser.parse_args(argv)
    if args.verb == "get":
        print(get(root))
    elif args.verb == "bump":
        print(bump(root, args.version, args.build_date))
    elif wrong := check(root, args.base):
        print(f"agent-version: {wrong}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
