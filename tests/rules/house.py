"""The packages of the project, and what their files import."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "ape_stream": ROOT / "ape_stream",
    "ape_model": ROOT / "model/ape_model",
    "ape_cuda_ops": ROOT / "cuda_ops/ape_cuda_ops",
    "ape_nodes": ROOT / "nodes/ape_nodes",
    "ape_peers": ROOT / "model/ape_peers",
}


def runtime_nodes(tree):
    """All nodes but those under `if TYPE_CHECKING`; what functions import lazily is included."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


def imported_libraries(tree):
    """Top-level names of what a file imports at run time, also by `library` or `import_module`."""
    roots = set()
    for node in runtime_nodes(tree):
        match node:
            case ast.Import(names=names):
                roots |= {alias.name.split(".")[0] for alias in names}
            case ast.ImportFrom(module=str(module), level=0):
                roots.add(module.split(".")[0])
            case ast.Call(
                func=ast.Name(id="library") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                roots.add(name.split(".")[0])
    return roots
