"""What a model of the suite is: its configuration, its shapes, its weights, its inputs.

Weights are random: what a model costs depends on its sizes alone, and nothing has to be downloaded.
`build` makes a model from a configuration object, `samples` what its forward takes. torch and
transformers are imported when they are needed. `benchmarks.models` lists the models.

Dims of a case are `batch`, `seq` and `ragged`. `seq` counts tokens, a picture's patches or frames
of a spectrogram. A text model always gets a mask: of ones, or, where the case is ragged, of lengths
that lie evenly between a quarter of `seq` and all of it, padded on the right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

DTYPE = "fp16"
_FIRST_ORDINARY_ID = 3  # below lie the padding and the marks of most vocabularies
_DRY_BATCH, _DRY_SEQ = 2, 16


@dataclass(frozen=True)
class ModelCase:
    """One shape that a model is called with."""

    batch: int
    seq: int
    ragged: bool = False

    @property
    def name(self) -> str:
        """`batch8_seq128_ragged.fp16`, as the cases of operators are named."""
        return f"batch{self.batch}_seq{self.seq}{'_ragged' if self.ragged else ''}.{DTYPE}"

    @property
    def dims(self) -> dict[str, int | bool]:
        """The dims by name."""
        return {"batch": self.batch, "seq": self.seq, "ragged": self.ragged}

    def small(self, seq: int | None) -> ModelCase:
        """The same for a dry run on the CPU; `seq` is what the small model insists on."""
        return ModelCase(min(self.batch, _DRY_BATCH), seq or min(self.seq, _DRY_SEQ), self.ragged)


@dataclass(frozen=True)
class Sample:
    """What one call gets.

    Attributes:
        half: arguments by name for weights in half precision.
        full: the same values for weights in float32.
        valid: which places of (batch, sequence) hold tokens; None where all do.
    """

    half: dict[str, torch.Tensor]
    full: dict[str, torch.Tensor]
    valid: torch.Tensor | None


@dataclass(frozen=True)
class Model:
    """One model, or the part of it that is measured.

    Attributes:
        name: as operators are named; the asv class is named after it.
        kind: its `model_type` in transformers.
        sizes: what its configuration says where that is not the class's default.
        tiny: what it says beside that in a dry run on the CPU.
        cases: the shapes that it is called with.
        make: from its configuration to the module.
        inputs: makes the arguments of a call from configuration, case and generator.
        operators: those that rewriting puts into its graph.
        quick: those of the cases that the quick profile measures.
        dry_seq: the length that the tiny model insists on; 0 for any.
        version: raise it when weights or inputs change their meaning.
    """

    name: str
    kind: str
    sizes: Mapping[str, Any]
    tiny: Mapping[str, Any]
    cases: tuple[ModelCase, ...]
    make: Callable[[Any], torch.nn.Module]
    inputs: Callable[[Any, ModelCase, torch.Generator], dict[str, torch.Tensor]]
    operators: tuple[str, ...]
    quick: tuple[ModelCase, ...] = ()
    dry_seq: int = 0
    version: int = 1

    def configuration(self, dry: bool = False) -> Any:
        """The configuration object of transformers."""
        from transformers import AutoConfig

        return AutoConfig.for_model(self.kind, **{**self.sizes, **(self.tiny if dry else {})})

    def build(self, dry: bool = False) -> torch.nn.Module:
        """The model on the CPU: float32, eval mode, the same weights each time.

        Biases and the weights of norms are random too, so that none of them can be left out.
        """
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = self.make(self.configuration(dry)).float()
            for parameter in module.parameters():
                if parameter.dim() == 1:
                    parameter.data += 0.02 * torch.randn_like(parameter)
        module.train(False)
        return module

    def case_of(self, dims: Mapping[str, Any], dry: bool = False) -> ModelCase:
        """The case with these dims; in a dry run a smaller one."""
        case = ModelCase(int(dims["batch"]), int(dims["seq"]), bool(dims["ragged"]))
        return case.small(self.dry_seq or None) if dry else case

    def samples(
        self, case: ModelCase, seeds: Iterable[int], device: str, dry: bool = False
    ) -> list[Sample]:
        """What so many calls get, one a seed, on a device."""
        return [self._sample(self.configuration(dry), case, seed, device) for seed in seeds]

    def _sample(self, config: Any, case: ModelCase, seed: int, device: str) -> Sample:
        import torch

        given = self.inputs(config, case, torch.Generator().manual_seed(seed))
        moved = {name: tensor.to(device) for name, tensor in given.items()}
        half = {name: x.half() if x.is_floating_point() else x for name, x in moved.items()}
        full = {name: x.float() if x.is_floating_point() else x for name, x in half.items()}
        mask = moved.get("attention_mask")
        return Sample(half, full, mask.bool() if case.ragged and mask is not None else None)


def text(config: Any, case: ModelCase, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Random identifiers, and a mask."""
    import torch

    shape = (case.batch, case.seq)
    ids = torch.randint(_FIRST_ORDINARY_ID, config.vocab_size, shape, generator=generator)
    mask = torch.ones(shape, dtype=torch.int64)
    if case.ragged:
        least = max(1, case.seq // 4)
        lengths = torch.randint(least, case.seq + 1, (case.batch, 1), generator=generator)
        mask = (torch.arange(case.seq) < lengths).long()
        ids = ids.where(mask.bool(), config.pad_token_id or 0)
    return {"input_ids": ids, "attention_mask": mask}


def picture(config: Any, case: ModelCase, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Random pixels of one size."""
    import torch

    side = config.image_size
    return {"pixel_values": torch.randn(case.batch, 3, side, side, generator=generator)}


def sound(config: Any, case: ModelCase, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """A random spectrogram."""
    import torch

    shape = (case.batch, config.num_mel_bins, case.seq)
    return {"input_features": torch.randn(shape, generator=generator)}


def whole(config: Any) -> torch.nn.Module:
    """The model without a head."""
    from transformers import AutoModel

    build: Any = AutoModel.from_config
    module: torch.nn.Module = build(config)
    return module


def t5_encoder(config: Any) -> torch.nn.Module:
    """The encoder of T5 alone."""
    from transformers import T5EncoderModel

    return T5EncoderModel(config)


def whisper_encoder(config: Any) -> torch.nn.Module:
    """The encoder of Whisper alone."""
    from transformers import WhisperModel

    encoder: torch.nn.Module = WhisperModel(config).encoder
    return encoder
