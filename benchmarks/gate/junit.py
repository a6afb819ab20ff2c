"""A report as a JUnit file: a test case for each finding, in a suite for each operator.

What is regressed is a failure; what is undecided is an error where it keeps the report from
passing; what was not compared is skipped. Source: the schema that JUnit's Ant task writes, as
Jenkins, GitLab and GitHub's reporters read it.
"""

from collections import defaultdict
from xml.etree import ElementTree

from benchmarks.gate.findings import COMPARED, REGRESSIONS, UNDECIDED, Finding
from benchmarks.gate.report import Report, clean, percent


def to_junit(report: Report) -> str:
    """The whole file. Names and reasons are shown without control characters, which XML has not."""
    root = ElementTree.Element("testsuites", name=clean(f"gate {report.base} {report.head}"))
    by_op: dict[str, list[Finding]] = defaultdict(list)
    for finding in report.findings:
        by_op[f"{finding.key.suite}.{finding.key.op}"].append(finding)
    for name, findings in sorted(by_op.items()):
        suite = ElementTree.SubElement(root, "testsuite", name=clean(name))
        for finding in findings:
            _case(suite, finding, report)
        _count(suite)
    if report.blockers:
        suite = ElementTree.SubElement(root, "testsuite", name="the run")
        for blocker in report.blockers:
            case = ElementTree.SubElement(suite, "testcase", name="decided", classname="gate")
            ElementTree.SubElement(case, "error", message=clean(blocker))
        _count(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


def _case(suite: ElementTree.Element, finding: Finding, report: Report) -> None:
    key = finding.key
    name = clean(f"{key.case} {key.metric} {key.variant}")
    of = clean(f"{key.machine}.{key.suite}.{key.op}")
    case = ElementTree.SubElement(suite, "testcase", name=name, classname=of)
    said = clean(f"{finding.outcome} ({percent(finding.ratio)}): {finding.reason}")
    tolerated = finding.outcome == "unstable" and report.exit_code == 0
    if finding.outcome in REGRESSIONS:
        ElementTree.SubElement(case, "failure", message=said)
    elif finding.outcome in UNDECIDED and not tolerated:
        ElementTree.SubElement(case, "error", message=said)
    elif finding.outcome not in COMPARED:
        ElementTree.SubElement(case, "skipped", message=said)


def _count(suite: ElementTree.Element) -> None:
    cases = list(suite)
    suite.set("tests", str(len(cases)))
    for what, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(case.find(what) is not None for case in cases)))
