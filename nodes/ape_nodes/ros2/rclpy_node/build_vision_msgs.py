"""Builds vision_msgs and the other packages of definitions.msg for a ROS 2 that came by pip.

    python -m ape_nodes.ros2.rclpy_node.build_vision_msgs

The wheels of rclpy contain ROS 2's own code generators, headers and libraries, but none of these
packages. This generates the types that the node uses, compiles them, and installs them as the
wheels do: Python packages with the other packages, libraries in `lib/` of the environment.
"""

from __future__ import annotations

import importlib
import io
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from ape_nodes.ros2.types import added_definitions

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["install", "main", "packages"]

_USED: Final = ("std_msgs", "geometry_msgs", "builtin_interfaces")
_TYPESUPPORTS: Final = ("rosidl_typesupport_fastrtps_c", "rosidl_typesupport_introspection_c")


def install(name: str, prefix: Path) -> Path:
    """Generate, compile and install a package of messages.

    Args:
        name: A package that has definitions in definitions.msg.
        prefix: The environment that the wheels are in: `sys.prefix` of its Python.

    Returns:
        The folder of the Python package.

    Raises:
        ModuleNotFoundError: the generators are not installed.
        subprocess.CalledProcessError: the compiler failed, and has printed why.
    """
    package = Path(sysconfig.get_path("purelib")) / name
    own = f"{name}__{_TYPESUPPORTS[0]}"
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _generate(name, work, prefix / "share")
        include = prefix / "include"
        headers = [work / "c", work / "introspection", include, *include.iterdir()]
        # The C library: message structs with both type supports.
        library = prefix / f"lib/lib{own}.so"
        objects = [*_compiled(work / "c", headers), *_compiled(work / "introspection", headers)]
        parts = _libraries_of("rosidl_generator_c", *_TYPESUPPORTS)
        _link(library, objects, prefix, parts)
        alias = prefix / f"lib/lib{name}__{_TYPESUPPORTS[1]}.so"
        alias.unlink(missing_ok=True)
        alias.symlink_to(library.name)  # one library holds both; ROS looks for each by its name
        # The Python package: classes, and an extension that converts them to the C structs.
        generated = work / "python" / name
        (generated / "__init__.py").touch()
        headers += [Path(sysconfig.get_path("include")), Path(np.get_include())]
        bindings = _compiled(work / "python", headers)
        module = generated / f"{name}_s__rosidl_typesupport_c.so"
        parts = _libraries_of("rosidl_generator_c", "rosidl_generator_py")
        _link(module, bindings, prefix, [own, *parts])
        shutil.rmtree(package, ignore_errors=True)
        shutil.copytree(generated, package, ignore=shutil.ignore_patterns("*.c", "*.o"))
    return package


def _generate(package: str, work: Path, share: Path) -> None:
    """Write sources to `c/`, `introspection/` and `python/`, each with a folder of the package."""
    os.environ.setdefault("AMENT_PREFIX_PATH", str(share.parent))  # generators find templates by it
    from rosidl_adapter import convert_to_idl  # noqa: PLC0415 (installed with ROS only)
    from rosidl_generator_c.cli import GenerateC  # noqa: PLC0415 (as above, and all that follow)
    from rosidl_generator_py.cli import GeneratePython  # noqa: PLC0415
    from rosidl_generator_type_description.cli import HashTypeDescription  # noqa: PLC0415
    from rosidl_typesupport_c.cli import GenerateCTypesupport  # noqa: PLC0415
    from rosidl_typesupport_fastrtps_c.cli import GenerateFastRTPSCTypesupport  # noqa: PLC0415
    from rosidl_typesupport_introspection_c.cli import (  # noqa: PLC0415
        GenerateIntrospectionCTypesupport,
    )

    home, found = work / "c" / package, [str(share)]
    # Generators read IDL: each .msg is converted first, and named as "folder:path in it".
    definitions = []
    for name, text in added_definitions().items():
        if not name.startswith(f"{package}/"):
            continue
        path = Path("msg") / f"{name.rpartition('/')[2]}.msg"
        (work / path).parent.mkdir(exist_ok=True)
        (work / path).write_text(text)
        with redirect_stdout(io.StringIO()):  # it prints every file
            convert_to_idl(work, package, path, home)
        definitions.append(f"{home}:{path.with_suffix('.idl')}")
    # The RIHS01 hashes must exist before the C code, which contains them.
    hashes = HashTypeDescription("hash").generate_type_hashes(package, definitions, found, home)
    GenerateC("c").generate(package, definitions, found, home, hashes)
    for generator, folder in (
        (GenerateFastRTPSCTypesupport("fastrtps"), "c"),
        (GenerateCTypesupport("c", typesupport_implementations=_TYPESUPPORTS), "c"),
        (GenerateIntrospectionCTypesupport("introspection"), "introspection"),
        (GeneratePython("py", typesupport_implementations=["rosidl_typesupport_c"]), "python"),
    ):
        generator.generate(package, definitions, found, work / folder / package)


def _run(compiler: str, *arguments: str) -> None:
    subprocess.run([shutil.which(compiler) or compiler, *arguments], check=True)  # noqa: S603


def _compiled(folder: Path, headers: Sequence[Path]) -> list[Path]:
    """The object files of all sources below a folder."""
    flags = ["-O1", "-fPIC", "-w", *(f"-I{path}" for path in headers)]

    def compiled(source: Path) -> Path:
        made = source.with_suffix(f"{source.suffix}.o")
        language = ["cc"] if source.suffix == ".c" else ["c++", "-std=c++17"]
        _run(*language, *flags, "-c", str(source), "-o", str(made))
        return made

    sources = sorted(path for path in folder.rglob("*") if path.suffix in {".c", ".cpp"})
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compiled, sources))


def _link(made: Path, objects: Sequence[Path], prefix: Path, libraries: Sequence[str]) -> None:
    """Link a shared library against these and those of ROS's run time."""
    # No rpath: the wheels set LD_LIBRARY_PATH to `lib/`.
    names = [*libraries, "rosidl_runtime_c", "rosidl_typesupport_c", *_TYPESUPPORTS, "fastcdr"]
    found = [f"-L{prefix / 'lib'}", *(f"-l{name}" for name in names)]
    _run("c++", "-shared", "-o", str(made), *map(str, objects), *found)


def _libraries_of(*kinds: str) -> list[str]:
    """Libraries of the packages whose messages ours contain."""
    return [f"{package}__{kind}" for package in _USED for kind in kinds]


def packages() -> list[str]:
    """The packages of definitions.msg, vision_msgs first."""
    return list(dict.fromkeys(name.split("/")[0] for name in added_definitions()))


def _is_whole(name: str) -> bool:
    """Whether a package is installed with all types that are used here."""
    try:
        module = importlib.import_module(f"{name}.msg")
    except ImportError:
        return False
    kinds = [kind.split("/")[2] for kind in added_definitions() if kind.startswith(f"{name}/")]
    return all(hasattr(module, kind) for kind in kinds)


def main() -> None:
    """Install each package into the environment of this Python, unless it is there."""
    for name in packages():
        if _is_whole(name):
            sys.stdout.write(f"{name} is installed\n")
            continue
        try:
            package = install(name, Path(sys.prefix))
        except ModuleNotFoundError as error:
            sys.exit(f"{error.name} is missing: pip install 'ape-stream[rclpy]' first")
        except subprocess.CalledProcessError as error:
            sys.exit(f"{name} was not built: {error.cmd[0]} failed")
        except OSError as error:
            sys.exit(f"{name} was not built: {error}")
        sys.stdout.write(f"{name} was built: {package}\n")


if __name__ == "__main__":
    main()
