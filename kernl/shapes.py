"""The only place where the sizes of real models are written.

A `ModelShape` is what a model's configuration says of its matrices; a `Workload` is what a user
sends it. Operators turn the two into the dims of their cases, so that the suite measures what
models run. `tests/test_shapes.py` holds each row against the configuration class of transformers.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelShape:
    """Sizes of one transformer.

    Attributes:
        name: the model's name on the Hugging Face hub, without its owner.
        hidden: width of the residual stream.
        heads: query heads of one attention layer.
        intermediate: width inside the MLP.
        vocabulary: rows of the token embedding.
        activation: what the MLP applies, as `kernl.ops.linear` names it.
        bias: whether the linear layers add a bias.
        kv_heads: key and value heads, fewer than `heads` in grouped-query attention.
        head_dim: width of one attention head.
        norm: "layer" for layer normalisation, "rms" for root mean square normalisation.
        gated: whether the MLP multiplies its activation with a second projection.
        causal: whether a token sees only those before it: the model decodes.
        rope: whether queries and keys are rotated by their positions.
        frames: tokens of every call of an encoder that hears, whatever is said; 0 for text.
        mel_bins: channels of what it hears, at twice as many positions; 0 for text.
        transposed: whether linear layers keep their weights as (inputs, outputs).
    """

    name: str
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    activation: str
    bias: bool = True
    kv_heads: int = 0
    head_dim: int = 0
    norm: str = "layer"
    gated: bool = False
    causal: bool = False
    rope: bool = False
    frames: int = 0
    mel_bins: int = 0
    transposed: bool = False

    def __post_init__(self) -> None:
        # What most models leave unsaid: as many key heads as heads, which share the width evenly.
        object.__setattr__(self, "kv_heads", self.kv_heads or self.heads)
        object.__setattr__(self, "head_dim", self.head_dim or self.hidden // self.heads)


@dataclass(frozen=True)
class Workload:
    """One call of a model: `batch` sequences of `seq` tokens each."""

    batch: int
    seq: int

    @property
    def tokens(self) -> int:
        """Rows that every linear layer sees."""
        return self.batch * self.seq


BERT_BASE = ModelShape("bert-base-uncased", 768, 12, 3072, 30522, "gelu")
BERT_LARGE = ModelShape("bert-large-uncased", 1024, 16, 4096, 30522, "gelu")
MINILM = ModelShape("all-MiniLM-L6-v2", 384, 12, 1536, 30522, "gelu")
T5_SMALL = ModelShape("t5-small", 512, 8, 2048, 32128, "relu", bias=False, norm="rms")
WHISPER_BASE = ModelShape("whisper-base", 512, 8, 2048, 51865, "gelu", frames=1500, mel_bins=80)
GPT2 = ModelShape("gpt2", 768, 12, 3072, 50257, "gelu_tanh", causal=True, transposed=True)


def _llama_like(
    name: str, hidden: int, heads: int, intermediate: int, vocabulary: int, kv_heads: int
) -> ModelShape:
    """A decoder with rotary positions, grouped-query attention, RMS norms and a gated silu MLP."""
    return ModelShape(
        name,
        hidden,
        heads,
        intermediate,
        vocabulary,
        "silu",
        bias=False,
        kv_heads=kv_heads,
        norm="rms",
        gated=True,
        causal=True,
        rope=True,
    )


TINY_LLAMA = _llama_like("TinyLlama-1.1B", 2048, 32, 5632, 32000, 4)
LLAMA_1B = _llama_like("Llama-3.2-1B", 2048, 32, 8192, 128256, 8)
MISTRAL_7B = _llama_like("Mistral-7B-v0.1", 4096, 32, 14336, 32000, 8)

MODELS: tuple[ModelShape, ...] = (
    BERT_BASE,
    BERT_LARGE,
    MINILM,
    T5_SMALL,
    WHISPER_BASE,
    GPT2,
    LLAMA_1B,
    MISTRAL_7B,
    TINY_LLAMA,
)

WORKLOADS: tuple[Workload, ...] = (
    Workload(1, 16),
    Workload(1, 128),
    Workload(1, 384),
    Workload(1, 512),
    Workload(8, 128),
    Workload(8, 512),
    Workload(32, 128),
    Workload(32, 512),
)


def workloads(model: ModelShape) -> tuple[Workload, ...]:
    """What is measured of a model: every workload, and speech where it hears."""
    speech = (Workload(1, model.frames), Workload(8, model.frames)) if model.frames else ()
    return (*WORKLOADS, *speech)
