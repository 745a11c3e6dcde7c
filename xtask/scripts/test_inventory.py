#!/usr/bin/env python3
"""Lists the tests and assertions of two revisions, and what the later one lacks.

    python3 xtask/scripts/test_inventory.py BEFORE_REV [AFTER_REV]

Without AFTER_REV, the files of the work tree count. Needs git and Python 3.9, and runs nothing.

A test is a function with `#[test]` or `#[tokio::test]` (also in `proptest!`), one of the functions
named in `on_every_plane!` (once for each of two data planes), a row of the conformance table, a
packet fixture, or a configuration with a mistake (`tests/broken`). An assertion is `assert*!`,
`prop_assert*!`, `expect`, `unwrap` and their `_err`, a call of a function `assert_…`, or an inline
snapshot, in code that only tests use. Snapshots in files are counted beside them.

A test of BEFORE is found in AFTER by its name, in its own crate first; then by its body: the share
of words that both have, of those that have no counterpart yet. The script lists each test without a
counterpart, each found by its body, and each that has fewer assertions than before, and exits with
1 if any test has no counterpart.
"""

import collections
import re
import subprocess
import sys

ASSERTION = re.compile(
    r"\b(?:insta::)?(?:debug_|prop_)?assert\w*!|\.(?:expect|unwrap)(?:_err)?\(|\bassert_\w+\("
)
LIKE_ENOUGH = 0.5
# Code of these folders is there for tests only.
FOR_TESTS = re.compile(r"(^|/)tests(/|\.rs$)|adit-(testbed|fixtures|conformance|harness)/|adit-lab/src/planes")
# At the revision where the inventory begins, a program without a harness, and its tests.
WITHOUT_ATTRIBUTE = {
    "user_namespace.rs": [
        "nobody_becomes_root_of_its_own",
        "nobody_is_told_what_is_missing",
        "threads_forbid_a_user_namespace",
    ]
}

Test = collections.namedtuple("Test", "crate path name body assertions")


def git(*arguments):
    return subprocess.run(["git", *arguments], check=True, capture_output=True).stdout


def files(revision):
    """The paths and texts of a revision, or of the work tree."""
    if revision is None:
        names = git("ls-files", "-co", "--exclude-standard").decode().splitlines()
        for name in names:
            try:
                with open(name, "rb") as file:
                    yield name, file.read().decode("utf-8", "replace")
            except OSError:
                pass
        return
    names = git("ls-tree", "-r", "--name-only", revision).decode().splitlines()
    names = [name for name in names if name.endswith((".rs", ".snap", ".svg", ".toml", ".txt"))]
    request = "".join(f"{revision}:{name}\n" for name in names).encode()
    run = subprocess.run(["git", "cat-file", "--batch"], input=request, check=True, capture_output=True)
    data, at = run.stdout, 0
    for name in names:
        end = data.index(b"\n", at)
        size = int(data[at:end].split()[2])
        yield name, data[end + 1 : end + 1 + size].decode("utf-8", "replace")
        at = end + 1 + size + 1


def blanked(text):
    """The text with the insides of comments, strings and characters replaced by spaces."""
    pattern = re.compile(
        r'//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?\'(?:\\[^\n]{1,8}?|[^\\\'\n])\'', re.S
    )
    return pattern.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def block_end(text, start):
    """The position behind the block that begins at the first brace from `start`."""
    depth, at = 0, text.find("{", start)
    if at < 0:
        return len(text)
    for at in range(at, len(text)):
        if text[at] == "{":
            depth += 1
        elif text[at] == "}":
            depth -= 1
            if depth == 0:
                return at + 1
    return len(text)


def crate_of(path):
    parts = path.split("/")
    return parts[1] if parts[0] in ("crates", "tools") and len(parts) > 2 else parts[0]


def test_regions(path, code):
    """The parts of a file that only tests use."""
    if FOR_TESTS.search(path):
        return [(0, len(code))]
    regions = []
    for match in re.finditer(r"#\[cfg\((?:all\()?test\b[^\]]*\]", code):
        end = code.find(";", match.end())
        brace = code.find("{", match.end())
        if brace >= 0 and (end < 0 or brace < end):
            regions.append((match.start(), block_end(code, match.end())))
    return regions


def tests_of_file(path, text):
    code = blanked(text)
    crate, name = crate_of(path), path.rsplit("/", 1)[-1]
    attribute = re.compile(
        r"#\[(?:tokio::)?test\b[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?(?:async\s+)?fn\s+(\w+)"
    )
    functions = {match.group(1): match.start() for match in re.finditer(r"\bfn\s+(\w+)", code)}
    found = [(match.group(1), match.start()) for match in attribute.finditer(code)]
    names = {function for function, _ in found}
    found += [(function, functions[function]) for function in WITHOUT_ATTRIBUTE.get(name, [])
              if function in functions and function not in names]
    for function, start in found:
        yield make(crate, path, function, text, code, start)
    for match in re.finditer(r"on_every_plane!\s*\{", code):
        inside = code[match.end() - 1 : block_end(code, match.start())].strip("{}")
        inside = re.sub(r"#\[[^\]]*\]|\bneeds\s+[\w:]+\s*;", "", inside)
        for function in re.findall(r"\b\w+\b", inside):
            for plane in ("userspace", "ebpf"):
                made = make(crate, path, function, text, code, functions.get(function, match.start()))
                yield made._replace(name=f"{function} ({plane})")
    if "conformance" in path:
        for match in re.finditer(r"Row::new\(\s*((?:[^;]|\n)*?)\)", text):
            strings = re.findall(r'"((?:[^"\\]|\\.)*)"', match.group(1))
            if len(strings) >= 2:
                rest = text[match.start() : match.start() + 700]
                yield Test(crate, path, f"row {strings[0]} {strings[1]}", rest, 1)
    if "fixtures/src/table" in path:
        for match in re.finditer(r"\b(?:encap|decap|into|out_of)\(\s*(?:format!\(\s*)?\"((?:[^\"\\]|\\.)*)\"", text):
            yield Test(crate, path, f"fixture {match.group(1)}", text[match.start() : match.start() + 400], 1)


def make(crate, path, function, text, code, start):
    end = block_end(code, code.index("fn", start))
    body = text[start:end]
    return Test(crate, path, function, body, len(ASSERTION.findall(code[start:end])))


class Inventory:
    def __init__(self, revision):
        self.tests, self.assertions, self.snapshots = [], collections.Counter(), collections.Counter()
        for path, text in files(revision):
            if path.endswith(".rs") and not path.startswith("target/"):
                self.tests.extend(tests_of_file(path, text))
                code = blanked(text)
                for start, end in test_regions(path, code):
                    self.assertions[crate_of(path)] += len(ASSERTION.findall(code[start:end]))
            elif path.endswith(".snap") or "/snapshots/" in path:
                self.snapshots[crate_of(path)] += 1
            elif "/tests/broken/" in path and path.endswith(".toml"):
                name = "broken " + path.rsplit("/", 1)[1]
                self.tests.append(Test(crate_of(path), path, name, text, 1))

    def count(self, crate):
        return sum(test.crate == crate for test in self.tests)


def words(body):
    return collections.Counter(re.findall(r"\w+", body))


def likeness(one, other):
    both = sum((one & other).values())
    return 2 * both / max(1, sum(one.values()) + sum(other.values()))


def matched(before, after):
    """Pairs of tests with how they were found, and the tests of `before` that have no counterpart."""
    pairs, left = [], list(after)
    rest = []
    for same in (lambda a, b: a.crate == b.crate and a.path.rsplit("/", 1)[1] == b.path.rsplit("/", 1)[1],
                 lambda a, b: a.crate == b.crate, lambda a, b: True):
        rest = []
        by_name = collections.defaultdict(list)
        for test in left:
            by_name[test.name].append(test)
        for test in before:
            twin = next((other for other in by_name[test.name] if same(test, other)), None)
            if twin is None:
                rest.append(test)
            else:
                by_name[test.name].remove(twin)
                left.remove(twin)
                pairs.append((test, twin, 1.0))
        before = rest
    counted = [words(test.body) for test in left]
    candidates = []
    for number, test in enumerate(rest):
        mine = words(test.body)
        for other, theirs in enumerate(counted):
            share = likeness(mine, theirs)
            if share >= LIKE_ENOUGH:
                candidates.append((share, number, other))
    taken_before, taken_after = set(), set()
    for share, number, other in sorted(candidates, reverse=True):
        if number not in taken_before and other not in taken_after:
            taken_before.add(number)
            taken_after.add(other)
            pairs.append((rest[number], left[other], share))
    lost = [test for number, test in enumerate(rest) if number not in taken_before]
    new = [test for number, test in enumerate(left) if number not in taken_after]
    return pairs, lost, new


def main():
    if not 2 <= len(sys.argv) <= 3 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    before = Inventory(sys.argv[1])
    after = Inventory(sys.argv[2] if len(sys.argv) == 3 else None)
    crates = sorted({test.crate for test in before.tests + after.tests})
    print(f"{'':<20}{'tests':>15}{'assertions':>18}{'snapshot files':>18}")
    rows = [(crate, [(before.count(crate), after.count(crate)),
                     (before.assertions[crate], after.assertions[crate]),
                     (before.snapshots[crate], after.snapshots[crate])]) for crate in crates]
    rows.append(("all", [tuple(map(sum, zip(*(row[1][column] for row in rows)))) for column in range(3)]))
    for crate, counts in rows:
        columns = [f"{one} -> {other}" for one, other in counts]
        print(f"{crate:<20}{columns[0]:>15}{columns[1]:>18}{columns[2]:>18}")
    pairs, lost, new = matched(before.tests, after.tests)
    print(f"\nfound by name: {sum(share == 1.0 for _, _, share in pairs)}; by their bodies:")
    for one, other, share in sorted((pair for pair in pairs if pair[2] < 1.0), key=lambda pair: pair[2]):
        print(f"  {share:4.0%}  {one.crate}: {one.name}\n        is now {other.path}: {other.name}")
    print("\nfewer assertions than before:")
    for one, other, _ in pairs:
        if other.assertions < one.assertions:
            print(f"  {one.assertions} -> {other.assertions}  {other.path}: {other.name}")
    print(f"\nnew: {len(new)}")
    print(f"\nwithout a counterpart: {len(lost)}")
    for test in lost:
        print(f"  {test.path}: {test.name}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
