"""Builds vision_msgs, the other packages of definitions.msg and our services for wheels of rclpy.

    python -m ape_nodes.ros2.rclpy_node.build_vision_msgs

The wheels of rclpy contain ROS 2's own code generators, headers and libraries, but none of these
packages. This generates the types that the node uses, compiles them, and installs them as the
wheels do: Python packages with the other packages, libraries in `lib/` of the environment, and what
packages that use them are made from in `include/` and `share/`.
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

from ape_nodes.ros2.types import added_definitions, service_definitions

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["install", "main", "packages"]

_USED: Final = (
    "std_msgs", "geometry_msgs", "builtin_interfaces", "sensor_msgs", "service_msgs",
)  # fmt: skip
_PYTHON: Final = "rosidl_generator_py"
_TYPESUPPORTS: Final = ("rosidl_typesupport_fastrtps_c", "rosidl_typesupport_introspection_c")


def install(name: str, prefix: Path) -> Path:
    """Generate, compile and install a package of messages.

    Args:
        name: One of `packages`.
        prefix: The environment that the wheels are in: `sys.prefix` of its Python.

    Returns:
        The folder of the Python package.

    Raises:
        ModuleNotFoundError: the generators are not installed.
        subprocess.CalledProcessError: the compiler failed, and has printed why.
    """
    package = Path(sysconfig.get_path("purelib")) / name
    own = _library(name)
    before = packages()[: packages().index(name)]  # what it may use of those that are built here
    built = [other for other in before if _bindings(prefix, other).exists()]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _generate(name, work, prefix / "share")
        include = prefix / "include"
        headers = [work / "c", work / "introspection", include, *include.iterdir()]
        used = _libraries_of("rosidl_generator_c", *_TYPESUPPORTS) + list(map(_library, built))
        # The C library: message structs with both type supports.
        library = prefix / f"lib/lib{own}.so"
        objects = [*_compiled(work / "c", headers), *_compiled(work / "introspection", headers)]
        _link(library, objects, prefix, used)
        alias = prefix / f"lib/lib{name}__{_TYPESUPPORTS[1]}.so"
        alias.unlink(missing_ok=True)
        alias.symlink_to(library.name)  # one library holds both; ROS looks for each by its name
        # The Python package: classes, and an extension that converts them to the C structs.
        generated = work / "python" / name
        (generated / "__init__.py").touch()
        headers += [Path(sysconfig.get_path("include")), Path(np.get_include())]
        module, objects = _bindings(prefix, name), _compiled(work / "python", headers)
        used += _libraries_of(_PYTHON) + [f"{other}__{_PYTHON}" for other in built]
        _link(module, objects, prefix, [own, *used])
        shutil.rmtree(package, ignore_errors=True)
        shutil.copytree(generated, package, ignore=shutil.ignore_patterns("*.c", "*.o"))
        # The same library, so that packages that contain these messages can be linked against it.
        (package / f"{name}_s__rosidl_typesupport_c.so").symlink_to(module)
        for part in ("c", "introspection"):
            _keep(work / part / name, include / name / name, "*.h")
        _keep(work / "c" / name, prefix / "share" / name, "*.json", "*.idl")
    return package


def _library(name: str) -> str:
    """The name of the library of a package that was built here."""
    return f"{name}__{_TYPESUPPORTS[0]}"


def _bindings(prefix: Path, name: str) -> Path:
    """The library that converts the messages of a package to Python and back."""
    return prefix / f"lib/lib{name}__{_PYTHON}.so"


def _keep(made: Path, to: Path, *patterns: str) -> None:
    """Copy what other packages are made from."""
    for path in (path for pattern in patterns for path in made.rglob(pattern)):
        target = to / path.relative_to(made)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def _definitions() -> dict[str, str]:
    """The text of every message and service that is built, by type."""
    return {**added_definitions(), **service_definitions()}


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
    for name, text in _definitions().items():
        owner, kind, short = name.split("/")
        if owner != package:
            continue
        path = Path(kind) / f"{short}.{kind}"
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
    """Packages to build, each after those that it uses: vision_msgs first, ours last."""
    return list(dict.fromkeys(name.split("/")[0] for name in _definitions()))


def _is_whole(name: str) -> bool:
    """Whether a package is installed with all types that are used here."""
    kinds = [one.split("/")[1:] for one in _definitions() if one.startswith(f"{name}/")]
    try:
        modules = [(importlib.import_module(f"{name}.{kind}"), one) for kind, one in kinds]
    except ImportError:
        return False
    # One that was built here by an earlier version left nothing for packages that use it.
    folder, ours = Path(modules[0][0].__file__ or ""), sysconfig.get_path("purelib")
    usable = not folder.is_relative_to(ours) or _bindings(Path(sys.prefix), name).exists()
    return usable and all(hasattr(module, one) for module, one in modules)


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
