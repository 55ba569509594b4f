"""The code of the documents, taken out of Markdown and run.

Takes the text of a Markdown file. Gives its code blocks and its file tree, and runs the blocks in order in one process.
Knows nothing of pytest. As a program it runs one document in the current folder: `python documents.py README.md`.

A block in ```python runs in the namespace of the document, a line `$ …` of a block in ```console in a shell. A comment on the
line above the fence changes that, and has to say why:

    <!-- not run: needs a notebook -->
    <!-- raises: DataError -->
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

RUN = ("python", "console")
SHOWN = ("text", "toml", "json", "csv", "html", "mermaid")  # blocks that are only looked at
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<code>.*?)^(?P=indent)```[ ]*$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- *(?P<kind>not run|raises): *(?P<why>.+?) *--> *\n *\Z")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its first line in the document, its code and its mark."""

    language: str
    line: int
    code: str
    not_run: str = ""
    raises: str = ""

    @property
    def commands(self) -> list[str]:
        """The commands of a console block: what follows `$ `, with continuation lines."""
        joined = self.code.replace("\\\n", "")
        return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a document, in order."""
    found = []
    for match in FENCE.finditer(text):
        mark = MARK.search(text[: match.start()])
        kinds = {mark["kind"].replace(" ", "_"): mark["why"]} if mark else {}
        indent = len(match["indent"])
        code = "".join(line[indent:] if line.strip() else line for line in match["code"].splitlines(keepends=True))
        found.append(Block(match["language"].strip(), text.count("\n", 0, match.start()) + 2, code, **kinds))
    return found


def file_tree(text: str) -> dict[str, str]:
    """The tree that stands in the block that begins with `src/pellucid/`: path from the root of the project → what it says of it.

    One entry a line, two spaces deeper than its folder, at least two spaces before the description; folders end in `/`.
    """
    tree = next((block.code for block in blocks(text) if block.code.startswith("src/pellucid/")), "")
    found: dict[str, str] = {}
    folders: list[tuple[int, str]] = []
    for line in filter(str.strip, tree.splitlines()):
        depth = len(line) - len(line.lstrip())
        name, _, says = line.strip().partition("  ")
        folders = [(other, path) for other, path in folders if other < depth]
        path = (folders[-1][1] if folders else "") + name
        found[path] = says.strip()
        folders += [(depth, path)] if name.endswith("/") else []
    return found


def run(document: Path) -> None:
    """Run the blocks of a document in order, in the current folder; the first that fails ends it."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(document.read_text(encoding="utf-8")):
        if block.not_run or block.language not in RUN:
            continue
        if block.language == "console":
            for command in block.commands:
                done = subprocess.run(["bash", "-c", command], stdin=subprocess.DEVNULL, check=False)
                if done.returncode != (2 if block.raises else 0):
                    sys.exit(f"{document.name}, line {block.line}: exit code {done.returncode}: {command}")
            continue
        try:
            exec(compile("\n" * (block.line - 1) + block.code, document.name, "exec"), namespace)
        except Exception as error:
            if type(error).__name__ != block.raises:
                raise
        else:
            if block.raises:
                sys.exit(f"{document.name}, line {block.line}: expected {block.raises}, nothing was raised")


if __name__ == "__main__":
    run(Path(sys.argv[1]))
