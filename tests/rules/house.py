"""The packages of the project, and what their files import; each file is read and parsed once."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "ape_stream": ROOT / "ape_stream",
    "ape_model": ROOT / "model/ape_model",
    "ape_cuda_ops": ROOT / "cuda_ops/ape_cuda_ops",
    "ape_nodes": ROOT / "nodes/ape_nodes",
    "ape_peers": ROOT / "model/ape_peers",
}


@cache
def text_of(path):
    return path.read_text(encoding="utf-8")


@cache
def tree_of(path):
    return ast.parse(text_of(path))


@cache
def nodes_of(path):
    return list(ast.walk(tree_of(path)))


@cache
def runtime_nodes(path):
    """All nodes but those under `if TYPE_CHECKING`; what functions import lazily is included."""
    waiting, nodes = [tree_of(path)], []
    while waiting:
        match waiting.pop():
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=otherwise):
                waiting += otherwise
            case node:
                nodes.append(node)
                waiting += ast.iter_child_nodes(node)
    return nodes


def forget_sources():
    """Free the trees, 110 MB of them."""
    for cached in (text_of, tree_of, nodes_of, runtime_nodes):
        cached.cache_clear()


def imported_libraries(path):
    """Top-level names of what a file imports at run time, also by `library` or `import_module`."""
    roots = set()
    for node in runtime_nodes(path):
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
