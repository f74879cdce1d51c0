"""``maskwright audit``: what is wrong with a data set, before it costs a training run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskwright.cli._dataset import add_json, add_source, load, require_new, write_coco_folder
from maskwright.errors import InputError

if TYPE_CHECKING:
    from maskwright.data.audit.findings import Finding
    from maskwright.data.audit.run import Report

_SHOWN = 5


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_source(parser)
    parser.add_argument("--skip", nargs="+", default=[], metavar="CHECK", help="checks to leave out ('odd size' ...)")
    parser.add_argument("--no-pictures", action="store_true", help="do not open the pictures")
    parser.add_argument("--all", action="store_true", help="print all findings, not five of each check")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write one HTML page, with pictures of it")
    parser.add_argument("--fix", type=Path, metavar="DST", help="write it as COCO with what is safe put right")
    parser.add_argument(
        "--fail-on",
        choices=("error", "warning", "note", "never"),
        default="error",
        help="exit with 1 when something as bad was found (default: error), for continuous integration",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Look, say, repair; 1 if something as bad as ``--fail-on`` was found."""
    if args.fix is not None:
        require_new(args.fix)
    from maskwright.cli.progress import Line
    from maskwright.data.audit.run import LEVELS, audit, fix

    args.lenient = True  # what cannot be used is a finding, not the end
    dataset = load(args, quiet=True)
    try:
        with Line("audit") as line:
            report = audit(dataset, pictures=not args.no_pictures, skip=args.skip, progress=line)
    except ValueError as error:
        raise InputError(str(error)) from error
    if args.report is not None:
        from maskwright.cli._audit_page import write

        write(args.report, dataset, report, title=str(args.src))
    if args.fix is not None:
        write_coco_folder(args.fix, fix(dataset, report))
    if args.json:
        figures = {"images": report.images, "objects": report.objects, "counts": report.counts()}
        print(json.dumps({**figures, "findings": [_row(f) for f in report.findings]}))
    else:
        _print(report, args.all)
        if args.fix is not None:
            done = sum(f.fixable for f in report.findings)
            print(f"{args.fix}: {done} of {len(report.findings)} findings put right; the others need a person")
    worst = report.severity()
    fails = worst is not None and args.fail_on != "never" and LEVELS.index(worst) <= LEVELS.index(args.fail_on)
    return 1 if fails else 0


def _row(finding: Finding) -> dict[str, Any]:
    place = {"split": finding.split, "image": finding.key, "object": finding.ident}
    return {"check": finding.check, "severity": finding.severity, **place, "text": finding.text}


def _print(report: Report, everything: bool) -> None:
    from maskwright.data.audit.findings import CHECKS

    for check, count in report.counts().items():
        row = CHECKS[check]
        print(f"{row.severity}: {count} x {check} - {row.help}")
        its = [f for f in report.findings if f.check == check]
        for finding in its if everything else its[:_SHOWN]:
            where = finding.where()
            print(f"  {where}: {finding.text}" if where else f"  {finding.text}")
        if count > _SHOWN and not everything:
            print("  ...")
    said: list[str] = []
    for level in ("error", "warning", "note"):
        number = sum(f.severity == level for f in report.findings)
        said.append(f"{number} {level}{'' if number == 1 else 's'}")
    print(f"{report.images} images, {report.objects} objects: {', '.join(said)}")
