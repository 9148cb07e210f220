"""Which language model a recipe begins with."""

import torch
from pydantic import BaseModel, ConfigDict, Field

from ..core.errors import ConfigError
from ..models.quantisation import Quantisation


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
    answers: tuple[int, int] | None = Field(
        None,
        description="tokens of the answers liked and not liked; default: Yes and No, as they "
        "follow the prompt. `e2urec import` finds those of a model made elsewhere",
    )

    @property
    def dtype(self) -> torch.dtype | Quantisation:
        """In what the weights of the base are kept; see `load_backbone`."""
        return self.quantize or torch.float32

    def check_tuning(self, *, whole: bool) -> None:
        """Raise ConfigError where the `whole` model is to be tuned, and has too few bits."""
        if whole and self.quantize is not None:
            raise ConfigError(
                f"model.quantize={self.quantize}: the whole model cannot be tuned in so few bits; "
                "set tuning.lora.rank=16, or leave model.quantize out"
            )
