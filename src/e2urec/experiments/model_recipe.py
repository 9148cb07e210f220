"""Which language model a recipe begins with."""

from dataclasses import replace
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..core.errors import ConfigError
from ..models.backbone import Backbone, load_backbone, load_frozen, load_split_backbone
from ..models.quantisation import Quantisation
from ..models.verbaliser import AnswerTokens, Prefix, Verbaliser
from .packaged import resolve_model


class ModelRecipe(BaseModel):
    """Which language model."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field("smollm2-135m", description="packaged name, Hugging Face name or folder")
    layers: int | None = Field(None, ge=1, description="keep the first so many blocks of a decoder")
    window: int = Field(512, ge=16, description="longest prompt in tokens")
    quantize: Quantisation | None = Field(
        None,
        description="keep the linear layers of the frozen base in 4bit or 8bit, under adapters "
        "(tuning.lora); needs the extra quantize",
    )
    fsdp: bool = Field(False, description="split the base's blocks among a launcher's processes")
    answers: AnswerTokens | None = Field(
        None,
        description="tokens of liked and not liked, one or a list each; default: Yes and No, as "
        "they follow the prompt. `e2urec import` finds those of a model made elsewhere",
    )
    prefix: Prefix = Field(
        (), description="tokens that the decoder of an encoder-decoder writes before them"
    )

    @model_validator(mode="after")
    def _prefix_has_answers(self) -> Self:
        # Without answers of their own, a model's tokenizer says both.
        if self.prefix and self.answers is None:
            raise ConfigError(
                f"model.prefix={list(self.prefix)}: stands before model.answers, which are not "
                "set; set them as well, or leave it out, since import finds both by itself"
            )
        return self

    @model_validator(mode="after")
    def _bits_are_not_split(self) -> Self:
        if self.fsdp and self.quantize is not None:
            raise ConfigError(
                f"model.quantize={self.quantize}: packed weights are not split among processes; "
                "leave out either this or model.fsdp"
            )
        return self

    def load(self, *, whole: bool, revision: str | None, offline: bool) -> Backbone:
        """The base: in float32 to be tuned as a `whole`, else as files or `quantize` have it.

        Args:
            whole: whether all of it will be tuned.
            revision: commit of a hub name.
            offline: nothing is asked of the hub.

        Raises:
            ModelError: it cannot be loaded.
            ConfigError: it has no place for `prefix`.
        """
        source = resolve_model(self.name)
        options: dict[str, Any] = {"revision": revision, "offline": offline, "layers": self.layers}
        if self.fsdp:
            base = load_split_backbone(source, **options)
        elif whole:
            base = load_backbone(source, **options)
        else:
            base = load_frozen(source, quantize=self.quantize, **options)
        return self._with_answers(base)

    def _with_answers(self, base: Backbone) -> Backbone:
        """The base with the answers that are set, if any are."""
        if self.answers is None:
            return base
        if self.prefix and not base.seq2seq:
            raise ConfigError(
                f"model.prefix={list(self.prefix)}: '{base.name}' is no encoder-decoder, so that "
                "nothing stands between a prompt and its answer; leave it out"
            )
        return replace(base, verbaliser=Verbaliser.of(self.answers, self.prefix))

    def check_tuning(self, *, whole: bool) -> None:
        """Raise ConfigError where the `whole` model is to be tuned, and has too few bits."""
        if whole and self.quantize is not None:
            raise ConfigError(
                f"model.quantize={self.quantize}: the whole model cannot be tuned in so few bits; "
                "set tuning.lora.rank=16, or leave model.quantize out"
            )
